"""Inputs for the readers of tables: xlsx and csv of CDD-CESM, lists of CESM@UCBM, csv of image folders."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache

import openpyxl
from hypothesis import strategies as st

from scripts.fuzzing.mutations import NUMBERS, TEXTS, damaged
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_HEADS: tuple[str, ...] = (
    "Patient_ID",
    "Age",
    "Side",
    "Type",
    "Image_name",
    "View",
    "Breast density (ACR)",
    "BIRADS",
    "Findings",
    "Tags",
    "Machine",
)
_HEADS += ("Pathology Classification/ Follow up",)
_ROW = ("1", "50", "L", "DM", "P1_L_DM_MLO", "MLO", "c", "4", "mass", "a, b", "1", "Malignant")
_SHEET_HEAD = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'


def _sheet(rows: str) -> str:
    return f"{_SHEET_HEAD}<sheetData>{rows}</sheetData></worksheet>"


def _entities() -> str:
    """Nine entities, each ten times the one before."""
    more = "".join(f'<!ENTITY {name} "{f"&{of};" * 10}">' for of, name in zip("abcdefgh", "bcdefghi", strict=True))
    return f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{more}]><x>&i;</x>'


_SHEETS = (
    f'{_SHEET_HEAD}<dimension ref="A1:XFD1048576"/><sheetData/></worksheet>',
    _sheet('<row r="1"><c r="XFD1"><v>1</v></c></row><row r="1048576"><c r="A1048576"><v>1</v></c></row>'),
    _sheet('<row r="99999999"><c r="A99999999"><v>1</v></c></row>'),
    _sheet('<row r="1"><c r="A1" t="s"><v>99999999</v></c><c r="B1" t="d"><v>x</v></c></row>'),
    _entities(),
    '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
    "<x>" * 20_000,
    "",
)


@cache
def _xlsx() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None  # noqa: S101 (a new book has one)
    sheet.title = "all"
    sheet.append(_HEADS)
    sheet.append(_ROW)
    sheet.append([cell.replace("DM", "CM") for cell in _ROW])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


@cache
def _padding(megabytes: int) -> bytes:
    return b" " * (megabytes * 2**20)


@st.composite
def _changed_xlsx(draw: st.DrawFn) -> bytes:
    """The table with a part of another kind: cells of any kind, a sheet that claims to be huge, a bomb."""
    with zipfile.ZipFile(io.BytesIO(_xlsx())) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    name = draw(st.sampled_from(sorted(parts)))
    kind = draw(st.sampled_from(["sheet", "damaged", "gone", "cells", "bomb", "cells"]))
    if kind == "sheet":
        parts["xl/worksheets/sheet1.xml"] = draw(st.sampled_from(_SHEETS)).encode()
    elif kind == "damaged":
        parts[name] = draw(damaged(parts[name]))
    elif kind == "gone":
        parts.pop(name)
    elif kind == "bomb" and draw(st.integers(0, 5)) == 0:
        parts[name] = parts[name][:-12] + _padding(300) + parts[name][-12:]
    else:
        return draw(_cells())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as book:
        for part, content in parts.items():
            book.writestr(part, content)
    return out.getvalue()


@st.composite
def _cells(draw: st.DrawFn) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None  # noqa: S101 (a new book has one)
    sheet.title = draw(st.sampled_from(["all", "All ", "Sheet"]))
    sheet.append(_HEADS)
    known = [text for text in TEXTS + NUMBERS if text.isprintable() and not text.startswith("=")]
    values = st.one_of(
        st.sampled_from(known),
        st.none(),
        st.booleans(),
        st.integers(-5, 10**9),
        st.floats(allow_nan=False, allow_infinity=False),
    )
    for _ in range(draw(st.integers(0, 3))):
        row: list[object] = list(_ROW)
        row[draw(st.integers(0, len(row) - 1))] = draw(values)
        sheet.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


@st.composite
def _regions(draw: st.DrawFn) -> bytes:
    numbers = st.sampled_from([0, 1, -1, 5, 99_999, 10**9, 1e308, float("nan"), True, None, "1", [1], 10**400])
    lists = st.one_of(numbers, st.lists(numbers, max_size=4), st.just([1, 5, 9]), st.just([0, 99_999, 5] * 300))
    rows = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["polygon", "polyline", "ellipse", "circle", "point", "x", None]))
        shape = {"name": kind, "all_points_x": draw(lists), "all_points_y": draw(lists)}
        shape |= {key: draw(numbers) for key in ("cx", "cy", "rx", "ry", "r", "theta")}
        text = draw(st.sampled_from([json.dumps(shape), "[" * 50_000, "{}", "null", "x"]))
        name = draw(st.sampled_from(["P1_L_DM_MLO.jpg", "", "../x.jpg", *TEXTS]))
        rows.append(
            f'"{name}",{draw(st.sampled_from(["1", "0", "x", "", "9" * 5000]))},"{text.replace(chr(34), chr(34) * 2)}"'
        )
    return "\n".join(["#filename,region_count,region_shape_attributes", *rows]).encode("utf-8", "surrogatepass")


@st.composite
def _separated(draw: st.DrawFn, heads: tuple[str, ...], row: tuple[str, ...], sign: str) -> bytes:
    """A table of texts in which cells, rows or the head are hostile."""
    values = st.sampled_from(
        TEXTS + NUMBERS + ("x" * 200_000, '"', "\t", ",", "P1_1_LCC", "../../canary.txt", "C:\\a\\b.nrrd")
    )
    rows = [list(heads)]
    for _ in range(draw(st.integers(0, 4))):
        rows.append(list(row))
        for _ in range(draw(st.integers(0, 2))):
            rows[-1][draw(st.integers(0, len(row) - 1))] = draw(values)
    if draw(st.integers(0, 6)) == 0:
        rows[0][draw(st.integers(0, len(heads) - 1))] = draw(values)
    text = "\n".join(sign.join(cells) for cells in rows).encode(
        draw(st.sampled_from(["utf-8", "utf-16", "latin-1"])), "replace"
    )
    return draw(damaged(text)) if draw(st.integers(0, 4)) == 0 and len(text) < 2**16 else text


_LIST = ("id", "img_x", "img_y", "r_l", "wc_x", "ww_x", "wc_y", "ww_y")
_LISTED = ("P1_1_LCC", "Dataset/Low Energy/a.nrrd", "Dataset/Recombined/b.nrrd", "L", "100", "50", "100", "50")


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """One table of each kind, of which one or all are hostile."""
    content = draw(_changed_xlsx())
    xlsx = draw(damaged(content)) if draw(st.integers(0, 4)) == 0 and len(content) < 2**16 else content
    lists = {
        f"fold{fold}_{part}.txt": draw(_separated(_LIST, _LISTED, "\t")) for fold, part in ((0, "train"), (0, "test"))
    }
    pairs = draw(_separated(("name", "patient", "laterality", "view", "grade"), ("a", "P1", "L", "CC", "3"), ","))
    return Input({"table.xlsx": xlsx, "regions.csv": draw(_regions()), "pairs.csv": pairs, **lists})
