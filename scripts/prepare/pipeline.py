"""From the views an importer found to a dataset folder: prepared in parallel, split, checked, described."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from bundle.data import DATALIST
from bundle.files import write_text
from bundle.preflight import FileFacts, Problem, format_table
from scripts.prepare import records
from scripts.prepare.conversion import FOLDERS, Settings
from scripts.prepare.datalist import (
    DEFAULT_FOLDS,
    case_problems,
    check,
    datalist_text,
    default_folds,
    patient_folds,
    require_folds,
    stratum,
    summary,
)
from scripts.prepare.duplicates import leave_out_repeats
from scripts.prepare.exclusions import printable, report_left_out, well_named
from scripts.prepare.safeguards import EXCLUDED, locked, require_safe, withdraw, writing
from scripts.prepare.sources import report_name
from scripts.prepare.view import LeftOut, View
from scripts.prepare.workers import Outcome, default_workers, prepare_all

__all__ = ["import_views"]


@dataclass
class _Prepared:
    """The cases that are left, in the order of the views; and those prepared that the data set does not use."""

    views: list[View]
    records: list[dict[str, Any]]
    groups: Mapping[str, str]
    unused: list[tuple[View, dict[str, Any], LeftOut | None]] = field(default_factory=list)


def import_views(views: Sequence[View], left_out: Sequence[LeftOut], options: argparse.Namespace, **top: Any) -> int:
    """Make a dataset folder of views; return the command's exit code.

    Args:
        views: what the importer found, in a fixed order.
        left_out: what it left out.
        options: the parsed command line, with the options of ``add_options``.
        top: further top-level keys of the datalist; ``num_folds`` counts where the views have folds of their own.

    Returns:
        0 written, nothing excluded; 3 written, something excluded; 1 nothing written.

    Raises:
        ValueError: the options do not fit the data, the output folder holds sources or files of others, or another
            command is filling it.
        OSError: a file cannot be written.
    """
    settings = _settings(options)
    excluded = list(left_out)
    named = well_named(views, settings, excluded)
    if named and options.folds is not None and not _has_folds(named, options):
        require_folds(options.folds, len({view.patient_id for view in named}))
    require_safe(views, settings)
    with locked(settings.folder):
        require_safe(views, settings)  # another command may have filled it since
        return _fill(named, excluded, settings, options, top)


def _fill(
    views: list[View],
    excluded: list[LeftOut],
    settings: Settings,
    options: argparse.Namespace,
    top: Mapping[str, Any],
) -> int:
    from scripts.prepare.card import write_excluded  # its libraries are slow to import: not for --help

    prepared = _usable(views, settings, options, excluded)
    try:
        content = _checked(prepared, options, excluded, top)
    finally:  # also where too few patients are left for the folds
        excluded[:] = [printable(one) for one in excluded]
        with writing(settings.folder / EXCLUDED):
            write_excluded(settings.folder, excluded)
        report_left_out(excluded)
    if content is None:
        print(f"No {DATALIST} was written: no usable case, or an error above.", file=sys.stderr)
        print(f"what was left out: {settings.folder / EXCLUDED}", file=sys.stderr)
        if (settings.folder / DATALIST).exists():
            print(f"{settings.folder / DATALIST} is still that of an earlier run", file=sys.stderr)
        return 1
    count = content.get("num_folds", 0)
    if options.folds is None and not _has_folds(prepared.views, options) and count < DEFAULT_FOLDS:
        print(f"too few patients for {DEFAULT_FOLDS} folds: {count or 'no'} folds were made", file=sys.stderr)
    with writing(settings.folder / DATALIST):
        _write(prepared, content, excluded, settings)
    for view, record, why in prepared.unused:
        records.shelve(view, settings, record, why)
    removed = records.remove_others(settings.folder, {view.name for view in views})
    if removed:
        print(f"{removed} cases of an earlier run were removed")
    return 3 if any(one.needed for one in excluded) else 0


def _settings(options: argparse.Namespace) -> Settings:
    in_place = options.size is None
    overlap = options.min_overlap if options.min_overlap is not None else 0.0 if in_place else 0.9
    size = options.size if isinstance(options.size, int) else None
    return Settings(options.output, size, in_place, overlap)


def _has_folds(views: Sequence[View], options: argparse.Namespace) -> bool:
    return options.folds != 0 and all(view.fold is not None for view in views)


def _usable(
    views: Sequence[View], settings: Settings, options: argparse.Namespace, excluded: list[LeftOut]
) -> _Prepared:
    """The cases without the repeats, their files there."""
    known = {view.name: record for view in views if (record := records.finished(view, settings)) is not None}
    found, refused = _prepare(views, known, settings, options)
    prepared, repeats = _without_repeats(views, found)
    again = {
        view.name
        for view, record in zip(prepared.views, prepared.records, strict=True)
        if "shelved" in record and "left_out" not in record
    }
    if again:  # what they repeated is gone
        known = {name: record for name, record in found.items() if name not in again}
        waiting = [view for view in views if view.name in found]
        found, more = _prepare(waiting, known, settings, options)
        refused += more
        prepared, repeats = _without_repeats(waiting, found)
    excluded += [*refused, *repeats]
    return prepared


def _prepare(
    views: Sequence[View], known: Mapping[str, dict[str, Any]], settings: Settings, options: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], list[LeftOut]]:
    """Name -> record of every view that can be used, and the refusals; what is known is not done again."""
    waiting = [view for view in views if view.name not in known]
    if any(records.has_files(settings.folder, view.name) for view in waiting):
        withdraw(settings.folder)
    workers = options.workers or default_workers(len(waiting))
    start = time.perf_counter()
    bar = tqdm(total=len(views), initial=len(known), desc="Preparing", unit="pair", disable=options.quiet or None)
    outcomes: dict[str, Outcome] = {}
    with bar:
        for outcome in prepare_all(waiting, settings, workers):
            outcomes[outcome.name] = outcome
            bar.update()
    _print_speed(list(outcomes.values()), time.perf_counter() - start, workers, known)
    found, refused = {}, []
    for view in views:
        record = known[view.name] if view.name in known else outcomes[view.name].record
        if record is not None and "entry" in record:
            found[view.name] = record
        elif (one := outcomes[view.name].left_out if record is None else records.refusal(record)) is not None:
            refused.append(one)
    return found, refused


def _print_speed(
    outcomes: Sequence[Outcome], seconds: float, workers: int, known: Mapping[str, dict[str, Any]]
) -> None:
    earlier = sum("entry" in record for record in known.values())
    if earlier:
        print(f"{earlier} pairs were prepared before")
    if len(known) > earlier:
        print(f"{len(known) - earlier} pairs were refused before, and nothing about them has changed")
    images = 2 * sum(outcome.record is not None for outcome in outcomes)
    if images:
        busy = sum(outcome.seconds for outcome in outcomes)
        share = sum(outcome.decoding for outcome in outcomes) / busy
        processes = "1 process" if workers == 1 else f"{workers} processes"
        speed = f"{images} images in {seconds:.1f} s: {images / seconds:.1f} images/s"
        print(f"{speed} with {processes}, decoding {100 * share:.0f} % of the time")


def _without_repeats(views: Sequence[View], found: Mapping[str, dict[str, Any]]) -> tuple[_Prepared, list[LeftOut]]:
    usable = [view for view in views if view.name in found]
    facts = [found[view.name]["facts"] for view in usable]
    kept, repeats, groups = leave_out_repeats(facts, [report_name(view.image) for view in usable])
    prepared = _Prepared([usable[index] for index in kept], [found[usable[index].name] for index in kept], groups)
    names = {one.name for one in repeats}
    for view in usable:  # why another case is used in its place may change: only that it is known is kept
        if view.name in names:
            prepared.unused.append((view, found[view.name], records.refusal(found[view.name])))
    return prepared, repeats


def _checked(
    prepared: _Prepared, options: argparse.Namespace, excluded: list[LeftOut], top: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The datalist of all cases that pass the data check; None if there are none, or the whole has an error."""
    before = {index: one for index, record in enumerate(prepared.records) if (one := records.refusal(record))}
    _leave_out(prepared, before, before, excluded)
    known: FileFacts = {}
    while prepared.records:
        content = _content(prepared, options, top)
        problems = check(options.output, content, not options.quiet, known)
        wrong = case_problems(problems)
        if not wrong:
            if problems:
                print(format_table(problems), file=sys.stderr)
            return None if any(problem.level == "ERROR" for problem in problems) else content
        reasons = {
            index: LeftOut(prepared.views[index].name, _culprit(prepared, index, one), one.problem, one.remedy)
            for index, one in wrong.items()
        }
        own = {index for index, one in wrong.items() if "#" not in one.problem and one.file != DATALIST}
        _leave_out(prepared, reasons, own, excluded)
    return None


def _leave_out(
    prepared: _Prepared, reasons: Mapping[int, LeftOut], own: Container[int], excluded: list[LeftOut]
) -> None:
    """Take cases out; where the reason is their ``own``, no other case can change that."""
    excluded += reasons.values()
    for index, why in reasons.items():
        prepared.unused.append((prepared.views[index], prepared.records[index], why if index in own else None))
    kept = [index for index in range(len(prepared.records)) if index not in reasons]
    prepared.views = [prepared.views[index] for index in kept]
    prepared.records = [prepared.records[index] for index in kept]


def _culprit(prepared: _Prepared, index: int, problem: Problem) -> str:
    """The source file that a problem of a case is about, as reports may name it: that of the key it starts with."""
    view, entry = prepared.views[index], prepared.records[index]["entry"]
    key = re.match(r"`?(image|label_mask|label|mask)(_window)?\b", problem.problem)
    about = key[1] if key else next((key for key in FOLDERS if entry.get(key) == problem.file), "image")
    return report_name(getattr(view, about) or view.image)


def _content(prepared: _Prepared, options: argparse.Namespace, top: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"name": options.name or options.output.resolve().name, "synthetic": False, **top}
    folds = _folds(prepared, options)
    if folds is None:
        content.pop("num_folds", None)
        return content | {"cases": [record["entry"] for record in prepared.records]}
    published = _has_folds(prepared.views, options)
    content["num_folds"] = top.get("num_folds", 1 + max(folds)) if published else _num_folds(prepared, options)
    content["cases"] = [_with_fold(record["entry"], fold) for record, fold in zip(prepared.records, folds, strict=True)]
    return content


def _folds(prepared: _Prepared, options: argparse.Namespace) -> list[int] | None:
    if _has_folds(prepared.views, options):
        return [view.fold for view in prepared.views if view.fold is not None]
    count = _num_folds(prepared, options)
    if count == 0:
        return None
    strata = [stratum(record["facts"]) for record in prepared.records]
    return patient_folds(_groups(prepared), strata, count, options.seed)


def _groups(prepared: _Prepared) -> list[str]:
    return [prepared.groups[view.patient_id] for view in prepared.views]


def _num_folds(prepared: _Prepared, options: argparse.Namespace) -> int:
    given: int | None = options.folds
    return default_folds(len(set(_groups(prepared)))) if given is None else given


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
    print(summary(content))
    print(f"written: {settings.folder / DATALIST}\ndata card: {card}")
