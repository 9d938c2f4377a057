"""The data card: one HTML page that shows what a data set holds, and two tables as csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bundle.files import atomic_path, write_text
from scripts.prepare import card_figures, card_tables, contact_sheet
from scripts.prepare.card_frames import NOT_GIVEN, case_frame, csv_frame, left_out_frame
from scripts.prepare.card_tables import number
from scripts.prepare.view import LeftOut

__all__ = ["write_card", "write_excluded"]

TEMPLATE = Path(__file__).with_suffix(".html.j2")
EXCLUDED = "excluded.csv"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SHOWN_ELSEWHERE = ("name", "synthetic", "num_folds", "cases", "description", "allow_leak")


def write_card(
    folder: Path, content: Mapping[str, Any], facts: Sequence[Mapping[str, Any]], left_out: Sequence[LeftOut]
) -> Path:
    """Write ``data_card.html``, ``cases.csv`` and ``excluded.csv``; the same input gives the same bytes.

    Args:
        folder: the dataset folder, to which the paths in ``content`` are relative.
        content: what ``datalist.json`` holds.
        facts: the facts of each of its cases, in the same order.
        left_out: files and views that did not become a case.

    Returns:
        The path of the page.

    Raises:
        ValueError: the facts are not those of the cases.
    """
    facts = _with_folds(content["cases"], facts)
    excluded = left_out_frame(left_out)
    _write_csv(folder / "cases.csv", csv_frame(facts))
    _write_csv(folder / EXCLUDED, excluded)
    return write_text(folder / "data_card.html", _page(folder, content, case_frame(facts), excluded))


def _with_folds(cases: Sequence[Mapping[str, Any]], facts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The facts, each with the fold of its case."""
    if [case["patient_id"] for case in cases] != [one["patient_id"] for one in facts]:
        found = f"{len(facts)} facts that do not follow the {len(cases)} cases of the datalist"
        raise ValueError(f"{found}, expected those of each case in the same order. Correct the call of write_card.")
    return [{**one, "fold": case.get("fold")} for case, one in zip(cases, facts, strict=True)]


def write_excluded(folder: Path, left_out: Sequence[LeftOut]) -> Path:
    """Write ``excluded.csv`` alone, where there is no data set to describe; return its path."""
    _write_csv(folder / EXCLUDED, left_out_frame(left_out))
    return folder / EXCLUDED


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    with atomic_path(path) as unfinished:
        frame.map(_no_formula).to_csv(unfinished, index=False, lineterminator="\n")


def _no_formula(cell: Any) -> Any:
    """The cell, with an apostrophe before a text that a spreadsheet would take for a formula."""
    is_formula = isinstance(cell, str) and cell.startswith(_FORMULA) and cell != "-"  # alone it stands for no name
    return f"'{cell}" if is_formula else cell


def _page(folder: Path, content: Mapping[str, Any], cases: pd.DataFrame, excluded: pd.DataFrame) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    needed, unneeded = excluded[excluded["needed"]], excluded[~excluded["needed"]]
    known = card_tables.known_attributes(cases)
    return environment.get_template(TEMPLATE.name).render(
        **{key: content.get(key) for key in ("name", "synthetic", "description", "allow_leak")},
        leaking=_leaking(cases),
        numbers=_numbers(cases, needed),
        prepared=_prepared(content, cases),
        missing=[name for name in card_tables.COUNTED if name not in known],
        counts=[card_tables.count_table(cases, name) for name in known],
        folds=card_tables.fold_tables(cases) if cases["fold"].notna().any() else [],
        sizes=card_tables.size_table(cases),
        overlap=card_figures.overlap_chart(cases),
        overlaps=[card_tables.overlap_table(cases), card_tables.lowest_table(cases)],
        registered=f"{number(cases['registered'].sum())} of {number(len(cases))}",
        masks=card_figures.mask_chart(cases),
        mask_sizes=card_tables.mask_table(cases),
        intensities=card_figures.intensity_chart(cases),
        reasons=card_tables.reason_table(needed, "Cases and files left out, by reason") if len(needed) else None,
        excluded=card_tables.left_out_table(needed),
        unneeded=card_tables.reason_table(unneeded, "Files that no pair needs") if len(unneeded) else None,
        sheet=_sheet(folder, content["cases"], cases),
        colours={key: "rgb({} {} {})".format(*colour) for key, colour in contact_sheet.COLOURS.items()},
    )


def _leaking(cases: pd.DataFrame) -> list[str]:
    folds = cases.groupby("patient_id")["fold"].nunique()
    return sorted(str(patient) for patient in folds.index[folds > 1])


def _numbers(cases: pd.DataFrame, needed: pd.DataFrame) -> list[tuple[str, str]]:
    """The counts that matter most, each with its words."""
    counts = (
        (cases["patient_id"].nunique(), "patients"),
        (len(cases[["patient_id", "laterality"]].drop_duplicates()), "breasts"),
        (len(cases), "pairs of LE and DES"),
        (cases["lesion"].sum(), "pairs with a lesion"),
        (cases[["mask_regions", "label_mask_regions"]].max(axis=1).sum(), "lesion regions"),
        (len(needed), "left out"),
    )
    return [(number(count), words) for count, words in counts]


def _prepared(content: Mapping[str, Any], cases: pd.DataFrame) -> dict[str, str]:
    """How the data set was prepared, as far as the datalist and the facts show it."""
    rows = {}
    longer = cases[["width", "height"]].max(axis=1).dropna()
    if len(longer):
        rows["longer side, written"] = f"{_from_to(longer)} pixels"
    spacing = cases["pixel_mm"].dropna()
    if len(spacing):
        some = "" if len(spacing) == len(cases) else f", known of {number(len(spacing))} pairs"
        rows["distance of pixels, written"] = f"{_from_to(spacing, 3)} mm{some}"
    folds = content.get("num_folds")
    rows["folds"] = f"{folds}, by patient" if folds else "none: an external test set, not for training"
    rows["LE window"] = _windows([case.get("image_window") for case in content["cases"]])
    rows["DES window"] = _windows([case.get("label_window") for case in content["cases"]])
    return rows | {str(key): str(value) for key, value in content.items() if key not in _SHOWN_ELSEWHERE}


def _from_to(values: pd.Series[float], digits: int = 0) -> str:
    low, high = number(values.min(), digits), number(values.max(), digits)
    return low if low == high else f"{low} to {high}"


def _windows(windows: Sequence[Any]) -> str:
    given = [tuple(window) for window in windows if window]
    if not given:
        return "none: from the smallest to the largest value of each image"
    some = "" if len(given) == len(windows) else f", in {number(len(given))} of {number(len(windows))} pairs"
    if len(set(given)) == 1:
        return f"centre {given[0][0]:g}, width {given[0][1]:g}{some}"
    centre, width = (f"{min(values):g} to {max(values):g}" for values in zip(*given, strict=True))
    return f"{number(len(set(given)))} windows: centre {centre}, width {width}{some}"


def _sheet(folder: Path, entries: Sequence[Mapping[str, Any]], cases: pd.DataFrame) -> list[dict[str, Any]]:
    """The groups of the contact sheet, each with its pictures and captions."""
    groups = contact_sheet.chosen_cases(cases)
    places = [place for group in groups.values() for place in group]
    made = contact_sheet.pictures(folder, [entries[place] for place in places])
    pictures = dict(zip(places, made, strict=True))
    return [
        {"title": title, "pairs": [(pictures[place], *_caption(cases.iloc[place])) for place in group]}
        for title, group in groups.items()
        if group
    ]


def _caption(case: pd.Series[Any]) -> tuple[str, str]:
    """The name of a case, and what else stands under its picture."""
    parts = [
        f"fold {case['fold']:.0f}" if pd.notna(case["fold"]) else "",
        case["label"] if case["label"] != NOT_GIVEN else "",
        f"overlap {case['overlap_after']:.3f}" if pd.notna(case["overlap_after"]) else "",
    ]
    return str(case["name"]), " \N{MIDDLE DOT} ".join(part for part in parts if part)
