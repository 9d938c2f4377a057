"""The tables of the data card: what is counted, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pandas as pd

from scripts.prepare.card_frames import NOT_GIVEN

__all__ = [
    "Table",
    "count_table",
    "fold_tables",
    "known_attributes",
    "left_out_table",
    "lowest_table",
    "mask_table",
    "number",
    "overlap_table",
    "reason_table",
    "size_table",
]

COUNTED = ("view", "laterality", "label", "density", "vendor")
"""What cases are counted by."""
LOWEST = 10
"""Cases listed with the lowest overlap."""
MOST_VALUES = 8
"""Values of one attribute in the tables of the folds; the rarest are added up."""
MOST_COLUMNS = 20
"""Columns of a table of the folds; the attributes for which no room is left go into another one."""
MOST_ROWS = 500
"""Rows of the list of what was left out; the csv has them all."""
DASH = "\N{EN DASH}"
_SIGNS = str.maketrans({",": "\N{NARROW NO-BREAK SPACE}", "-": "\N{MINUS SIGN}"})
_RANGE = ("smallest", "median", "largest")
_ORDER = {text: rank for rank, text in enumerate(("cc", "mlo", "l", "r", "normal", "benign", "malignant"))}
_ANY_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Table:
    """A table as the page shows it.

    Attributes:
        caption: what it shows.
        columns: heads of the columns; the first column names the rows.
        rows: cells as text.
        groups: (head, number of columns) of a row above the heads.
        shares: 0 to 1 for each row, drawn as a bar in the last column.
        texts: columns, counted from 0, that hold words, not numbers.
        total: the last row is a sum.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    groups: Sequence[tuple[str, int]] = ()
    shares: Sequence[float] = ()
    texts: Sequence[int] = ()
    total: bool = False

    @property
    def starts(self) -> set[int]:
        """The first column of each group but the first."""
        return set(accumulate(span for _, span in self.groups))


def number(value: float, digits: int = 0) -> str:
    """A number for a cell: thousands apart, a dash where it is unknown."""
    return DASH if pd.isna(value) else f"{value:,.{digits}f}".translate(_SIGNS)


def _percent(share: float) -> str:
    return f"{number(100 * share)}\N{NO-BREAK SPACE}%"


def known_attributes(cases: pd.DataFrame) -> list[str]:
    """The attributes that are known of any case."""
    return [name for name in COUNTED if (cases[name] != NOT_GIVEN).any()]


def _values(cases: pd.DataFrame, attribute: str) -> list[str]:
    """The values of an attribute in the order they are shown; those not given last."""
    return sorted(
        cases[attribute].unique(),
        key=lambda text: (text == NOT_GIVEN, _ORDER.get(text.lower(), len(_ORDER)), text.lower(), text),
    )


def _counts(cases: pd.DataFrame, lesions: bool) -> list[str]:
    counts = [cases["patient_id"].nunique(), len(cases), *([cases["lesion"].sum()] if lesions else [])]
    return [number(count) for count in counts]


def _count_heads(lesions: bool) -> list[str]:
    return ["patients", "pairs", *(["with lesion"] if lesions else [])]


def count_table(cases: pd.DataFrame, attribute: str) -> Table:
    """Patients, pairs and pairs with lesion for each value of one attribute."""
    lesions = bool(cases["lesion"].any())
    parts = {value: cases[cases[attribute] == value] for value in _values(cases, attribute)}
    shares = [len(part) / len(cases) for part in parts.values()]
    rows = [
        [value, *_counts(part, lesions), _percent(share)]
        for (value, part), share in zip(parts.items(), shares, strict=True)
    ]
    return Table(f"By {attribute}", [attribute, *_count_heads(lesions), "share of pairs"], rows, shares=shares)


def fold_tables(cases: pd.DataFrame) -> list[Table]:
    """What is in each fold: patients, pairs and lesions, and the pairs by each attribute that varies."""
    shown = {name: _common(cases, name) for name in known_attributes(cases) if cases[name].nunique() > 1}
    tables: list[dict[str, Mapping[str, list[str]]]] = [{}]
    for name, columns in shown.items():
        if sum(map(len, tables[-1].values())) + len(columns) > MOST_COLUMNS - 5 and tables[-1]:
            tables.append({})
        tables[-1][name] = columns
    return [_fold_table(cases, part) for part in tables]


def _common(cases: pd.DataFrame, attribute: str) -> dict[str, list[str]]:
    """Head of a column -> the values it counts; the rarest values share the last one."""
    values = _values(cases, attribute)
    counts = cases[attribute].value_counts()
    kept = sorted(values, key=lambda value: (-counts[value], value))[: MOST_VALUES - 1]
    if len(values) <= MOST_VALUES:
        kept = values
    rest = [value for value in values if value not in kept]
    return {value: [value] for value in values if value in kept} | ({f"{len(rest)} others": rest} if rest else {})


def _fold_table(cases: pd.DataFrame, shown: Mapping[str, Mapping[str, list[str]]]) -> Table:
    lesions = bool(cases["lesion"].any())
    parts = {number(fold): cases[cases["fold"] == fold] for fold in sorted(cases["fold"].dropna().unique())}
    columns = [(name, head, values) for name, heads in shown.items() for head, values in heads.items()]
    rows = []
    for title, part in (parts | {"all": cases}).items():
        share = [_percent(part["lesion"].mean())] if lesions else []
        by_value = [number(part[name].isin(values).sum()) for name, _, values in columns]
        rows.append([title, *_counts(part, lesions), *share, *by_value])
    heads = ["fold", *_count_heads(lesions), *(["share"] if lesions else [])]
    groups = [("", len(heads)), *((name, len(values)) for name, values in shown.items())]
    what = f"Pairs by fold and {_listed(shown)}" if shown else "Patients and pairs by fold"
    return Table(what, [*heads, *(head for _, head, _ in columns)], rows, groups if shown else (), total=True)


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _range(values: pd.Series[float], digits: int = 0) -> list[str]:
    return [number(values.min(), digits), number(values.median(), digits), number(values.max(), digits)]


def size_table(cases: pd.DataFrame) -> Table:
    """Sizes of the source images and of the written ones."""
    rows = []
    for title, prefix in (("LE, source", "image_"), ("DES, source", "label_"), ("LE and DES, written", "")):
        known = cases[[f"{prefix}width", f"{prefix}height"]].dropna()
        if len(known):
            counts = known.astype(int).value_counts().sort_index().sort_values(ascending=False, kind="stable")
            most = f"{counts.index[0][0]} \N{MULTIPLICATION SIGN} {counts.index[0][1]} ({number(counts.iloc[0])})"
            rows.append([title, number(len(counts)), most, *_range(known.iloc[:, 0]), *_range(known.iloc[:, 1])])
    heads = ["images", "sizes", "most frequent (pairs)", *_RANGE * 2]
    return Table("Width and height in pixels", heads, rows, [("", 3), ("width", 3), ("height", 3)])


def overlap_table(cases: pd.DataFrame) -> Table:
    """Overlap of the breasts before and after, and the fitted scale and shift of the registered pairs."""
    fitted = cases[cases["registered"]]
    lines = (
        ("overlap before", cases["overlap_before"], 3),
        ("overlap after", cases["overlap_after"], 3),
        ("fitted scale", fitted["scale"], 4),
        ("shift right, pixels of LE", fitted["shift_x"], 1),
        ("shift down, pixels of LE", fitted["shift_y"], 1),
    )
    rows = [
        [title, number(values.count()), *_range(values, digits)] for title, values, digits in lines if values.count()
    ]
    return Table("Overlap and fit", ["measure", "pairs", *_RANGE], rows)


def lowest_table(cases: pd.DataFrame) -> Table:
    """The pairs whose breasts overlap least."""
    lowest = cases.dropna(subset="overlap_after").sort_values(["overlap_after", "name"], kind="stable").head(LOWEST)
    rows = [
        [case["name"], number(case["overlap_before"], 3), number(case["overlap_after"], 3), "yes" if done else "no"]
        for (_, case), done in zip(lowest.iterrows(), lowest["registered"], strict=True)
    ]
    return Table("Lowest overlap", ["case", "before", "after", "registered"], rows)


def mask_table(cases: pd.DataFrame) -> Table:
    """Lesion regions and sizes, for the masks drawn on LE and on DES."""
    in_mm = bool(cases["pixel_mm"].notna().any())
    rows = []
    for title, mask in (("drawn on LE", "mask"), ("drawn on DES", "label_mask")):
        part = cases[cases[f"{mask}_pixels"] > 0]
        if len(part):
            area = _range(part[f"{mask}_pixels"] * part["pixel_mm"] ** 2) if in_mm else []
            cells = [number(len(part)), number(part[f"{mask}_regions"].sum()), *area]
            rows.append([title, *cells, *_range(part[f"{mask}_percent"], 2)])
    sizes = [*(["area in mm\N{SUPERSCRIPT TWO}"] if in_mm else []), "per cent of the breast"]
    heads = ["mask", "pairs", "lesion regions", *_RANGE * len(sizes)]
    return Table("Size of the lesions of a pair", heads, rows, [("", 3), *((size, 3) for size in sizes)])


def reason_table(left_out: pd.DataFrame, caption: str) -> Table:
    """How often each reason occurs; reasons that differ in numbers only count as one."""
    remedies = bool(left_out["remedy"].any())
    rows = []
    for group, part in left_out.groupby(left_out["reason"].map(lambda text: _ANY_NUMBER.sub("…", text))):
        reason = part["reason"].iloc[0] if part["reason"].nunique() == 1 else str(group)
        rows.append((len(part), reason, part["remedy" if remedies else "file"].iloc[0]))
    rows.sort(key=lambda row: (-row[0], row[1]))
    heads = ["reason", "count", "what to do" if remedies else "for example"]
    return Table(caption, heads, [[reason, number(count), last] for count, reason, last in rows], texts=(0, 2))


def left_out_table(left_out: pd.DataFrame) -> Table:
    """The list of what was left out."""
    columns = ["name", "file", "reason", "remedy"]
    rows = left_out[columns].head(MOST_ROWS).astype(str).to_numpy().tolist()
    more = f": the first {MOST_ROWS} of {number(len(left_out))}, all are in excluded.csv"
    caption = "Left out" + (more if len(left_out) > MOST_ROWS else "")
    return Table(caption, ["case", "file", "reason", "what to do"], rows, texts=range(4))
