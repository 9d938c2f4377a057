"""From the views an importer found to a dataset folder: prepared in parallel, split, checked, described."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bundle.data import DATALIST
from bundle.files import write_text
from bundle.preflight import FileFacts, format_table
from scripts.prepare import records
from scripts.prepare.conversion import Settings
from scripts.prepare.datalist import (
    case_problems,
    check,
    datalist_text,
    patient_folds,
    require_folds,
    stratum,
    summary,
)
from scripts.prepare.duplicates import leave_out_repeats
from scripts.prepare.sources import report_name
from scripts.prepare.view import LeftOut, View
from scripts.prepare.workers import Outcome, default_workers, prepare_all

__all__ = ["add_options", "import_views"]

NATIVE = "native"
SMALLEST_SIZE = 32
_ON_SCREEN = 20


def add_options(parser: argparse.ArgumentParser, in_place: bool = False) -> None:
    """Add the options that all sources share.

    Args:
        parser: the parser of the source's subcommand.
        in_place: without ``--size`` the images stay where they are; else 512 is the default.
    """
    output = parser.add_argument_group("the dataset")
    output.add_argument("--output", required=True, type=Path, metavar="DATASET_DIR", help="folder to be filled")
    stay = "default: the images stay where they are" if in_place else "default: 512"
    output.add_argument(
        "--size",
        type=_size,
        default=None if in_place else 512,
        metavar="PIXELS",
        help=f"longer side of the images to be written, or {NATIVE}; the aspect stays; {stay}",
    )
    output.add_argument("--folds", type=int, default=10, help="0: none, an external test set; default: 10")
    output.add_argument("--seed", type=int, default=0, help="seed of the folds; default: 0")
    output.add_argument(
        "--min-overlap",
        type=_share,
        default=None,
        metavar="IOU",
        help="leave out pairs whose breasts overlap less, 0 to 1; default: 0.9, and 0 for images that stay",
    )
    output.add_argument("--name", help="name of the dataset; default: that of the output folder")
    output.add_argument("--workers", type=_count, metavar="N", help="processes; default: as many as there are use for")
    output.add_argument("--quiet", action="store_true", help="no progress bar")


def _size(text: str) -> int | str:
    if text == NATIVE:
        return text
    if not text.isdecimal() or int(text) < SMALLEST_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither {NATIVE} nor a whole number from {SMALLEST_SIZE}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


@dataclass
class _Prepared:
    """The cases that are left, in the order of the views."""

    views: list[View]
    records: list[dict[str, Any]]
    groups: Mapping[str, str]


def import_views(views: Sequence[View], left_out: Sequence[LeftOut], options: argparse.Namespace, **top: Any) -> int:
    """Make a dataset folder of views; return the command's exit code.

    Args:
        views: what the importer found, in a fixed order.
        left_out: what it left out.
        options: the parsed command line, with the options of ``add_options``.
        top: further top-level keys of the datalist.

    Returns:
        0 written, nothing excluded; 3 written, something excluded; 1 nothing written.

    Raises:
        ValueError: the options do not fit the data, or the output folder holds files of others.
    """
    settings = _settings(options)
    excluded = list(left_out)
    named = _well_named(views, excluded)
    if named and not _has_folds(named, options):
        require_folds(options.folds, len({view.patient_id for view in named}))
    records.require_own(named, settings)
    prepared = _without_repeats(named, _prepare(named, settings, options, excluded), excluded)
    try:
        content = _checked(prepared, options, excluded, top)
    finally:  # also where too few patients are left for the folds
        _report_left_out(excluded)
    if content is None:
        print(f"No {DATALIST} was written: no usable case, or an error above.", file=sys.stderr)
        return 1
    _write(prepared, content, excluded, settings)
    return 3 if any(one.needed for one in excluded) else 0


def _settings(options: argparse.Namespace) -> Settings:
    in_place = options.size is None
    overlap = options.min_overlap if options.min_overlap is not None else 0.0 if in_place else 0.9
    size = options.size if isinstance(options.size, int) else None
    return Settings(options.output, size, in_place, overlap)


def _well_named(views: Sequence[View], excluded: list[LeftOut]) -> list[View]:
    """The views whose names are unique and can name a file."""
    known: dict[str, View] = {}
    for view in views:
        file = report_name(view.image)
        if not view.name or Path(view.name).name != view.name or view.name.startswith("."):
            excluded.append(LeftOut(view.name, file, "its name cannot be that of a file", "Rename it"))
        elif view.name in known:
            reason = f"a second view of this name, the first is {report_name(known[view.name].image)}"
            excluded.append(LeftOut(view.name, file, reason, "Remove or rename one of the two"))
        else:
            known[view.name] = view
    return list(known.values())


def _has_folds(views: Sequence[View], options: argparse.Namespace) -> bool:
    return options.folds != 0 and all(view.fold is not None for view in views)


def _prepare(
    views: Sequence[View], settings: Settings, options: argparse.Namespace, excluded: list[LeftOut]
) -> dict[str, dict[str, Any]]:
    """Name -> record of every view that can be used; what an earlier run has finished is not done again."""
    found = {view.name: record for view in views if (record := records.finished(view, settings)) is not None}
    waiting = [view for view in views if view.name not in found]
    if any(records.has_files(settings.folder, view.name) for view in waiting):
        (settings.folder / DATALIST).unlink(missing_ok=True)  # its images are about to change
    workers = options.workers or default_workers(len(waiting))
    start = time.perf_counter()
    bar = tqdm(total=len(views), initial=len(found), desc="Preparing", unit="pair", disable=options.quiet or None)
    outcomes: dict[str, Outcome] = {}
    with bar:
        for outcome in prepare_all(waiting, settings, workers):
            outcomes[outcome.name] = outcome
            bar.update()
    _print_speed(list(outcomes.values()), time.perf_counter() - start, workers, len(found))
    for view in waiting:
        record, refusal = outcomes[view.name].record, outcomes[view.name].left_out
        if record is not None:
            found[view.name] = record
        elif refusal is not None:
            excluded.append(refusal)
    return found


def _print_speed(outcomes: Sequence[Outcome], seconds: float, workers: int, earlier: int) -> None:
    if earlier:
        print(f"{earlier} pairs were prepared before")
    images = 2 * sum(outcome.record is not None for outcome in outcomes)
    if images:
        busy = sum(outcome.seconds for outcome in outcomes)
        share = sum(outcome.decoding for outcome in outcomes) / busy
        processes = "1 process" if workers == 1 else f"{workers} processes"
        speed = f"{images} images in {seconds:.1f} s: {images / seconds:.1f} images/s"
        print(f"{speed} with {processes}, decoding {100 * share:.0f} % of the time")


def _without_repeats(views: Sequence[View], found: Mapping[str, dict[str, Any]], excluded: list[LeftOut]) -> _Prepared:
    usable = [view for view in views if view.name in found]
    facts = [found[view.name]["facts"] for view in usable]
    kept, repeats, groups = leave_out_repeats(facts, [report_name(view.image) for view in usable])
    excluded += repeats
    return _Prepared([usable[index] for index in kept], [found[usable[index].name] for index in kept], groups)


def _checked(
    prepared: _Prepared, options: argparse.Namespace, excluded: list[LeftOut], top: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The datalist of all cases that pass the data check; None if there are none, or the whole has an error."""
    known: FileFacts = {}
    while prepared.records:
        content = _content(prepared, options, top)
        problems = check(options.output, content, not options.quiet, known)
        wrong = case_problems(problems)
        if not wrong:
            if problems:
                print(format_table(problems), file=sys.stderr)
            return None if any(problem.level == "ERROR" for problem in problems) else content
        for index, problem in wrong.items():
            file = report_name(prepared.views[index].image)
            excluded.append(LeftOut(prepared.views[index].name, file, problem.problem, problem.remedy))
        kept = [index for index in range(len(prepared.records)) if index not in wrong]
        prepared.views = [prepared.views[index] for index in kept]
        prepared.records = [prepared.records[index] for index in kept]
    return None


def _content(prepared: _Prepared, options: argparse.Namespace, top: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"name": options.name or options.output.resolve().name, "synthetic": False, **top}
    folds = _folds(prepared, options)
    if folds is None:
        return content | {"cases": [record["entry"] for record in prepared.records]}
    published = _has_folds(prepared.views, options)
    content["num_folds"] = 1 + max(folds) if published else options.folds
    content["cases"] = [_with_fold(record["entry"], fold) for record, fold in zip(prepared.records, folds, strict=True)]
    return content


def _folds(prepared: _Prepared, options: argparse.Namespace) -> list[int] | None:
    if options.folds == 0:
        return None
    published = [view.fold for view in prepared.views if view.fold is not None]
    if len(published) == len(prepared.views):
        return published
    groups = [prepared.groups[view.patient_id] for view in prepared.views]
    strata = [stratum(record["facts"]) for record in prepared.records]
    return patient_folds(groups, strata, options.folds, options.seed)


def _with_fold(entry: Mapping[str, Any], fold: int) -> dict[str, Any]:
    """The entry with its fold after the view."""
    result: dict[str, Any] = {}
    for key, value in entry.items():
        result[key] = value
        if key == "view":
            result["fold"] = fold
    return result


def _write(prepared: _Prepared, content: Mapping[str, Any], excluded: Sequence[LeftOut], settings: Settings) -> None:
    from scripts.prepare.card import write_card

    facts = [
        record["facts"] | ({"fold": case["fold"]} if "fold" in case else {})
        for record, case in zip(prepared.records, content["cases"], strict=True)
    ]
    write_text(settings.folder / DATALIST, datalist_text(content))
    card = write_card(settings.folder, content, facts, excluded)
    removed = records.remove_others(settings.folder, {view.name for view in prepared.views})
    print(summary(content))
    if removed:
        print(f"{removed} cases of an earlier run were removed")
    print(f"written: {settings.folder / DATALIST}\ndata card: {card}")


def _report_left_out(excluded: Sequence[LeftOut]) -> None:
    """Everything left out, by what to do about it, on the standard error."""
    groups: dict[str, list[LeftOut]] = defaultdict(list)
    for one in excluded:
        if one.needed:
            groups[one.remedy].append(one)
    for remedy, members in groups.items():
        print(f"left out, {len(members)}: {remedy or 'nothing to do'}", file=sys.stderr)
        for one in members[:_ON_SCREEN]:
            print(f"  {one.name}  {one.file}: {one.reason}", file=sys.stderr)
        if len(members) > _ON_SCREEN:
            print(f"  and {len(members) - _ON_SCREEN} more, see excluded.csv", file=sys.stderr)
    for reason, count in Counter(one.reason for one in excluded if not one.needed).items():
        print(f"not needed, {count}: {reason}")
