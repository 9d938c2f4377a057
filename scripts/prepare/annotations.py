"""The table of CDD-CESM: what its radiologists say of each image, and how its images are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import openpyxl
import pandas as pd

from bundle.limits import require_bounded_zip
from scripts.prepare.view import LeftOut

__all__ = ["Annotation", "ImageName", "case_info", "read_table"]

SHEET = "all"
_MAX_BYTES, _MAX_ROWS, _MAX_COLUMNS = 2**26, 100_000, 100
"""The official table has less than 1 MB unpacked, 2006 rows and 12 columns."""
LABELS = ("normal", "benign", "malignant")
_NAME = re.compile(
    r"P(?P<patient>\d+)_(?P<side>[LR])_(?P<kind>DM|CM)_(?P<view>CC|MLO)(?:_?(?P<repeat>[2-9]))?", re.IGNORECASE
)
_COLUMNS = {
    "image_name": "Image_name",
    "age": "Age",
    "density": "Breast density (ACR)",
    "birads": "BIRADS",
    "findings": "Findings",
    "tags": "Tags",
    "machine": "Machine",
    "pathology": "Pathology Classification/ Follow up",
}
"""Name here -> head of the column in the table."""
_REPEATED = {"patient": "Patient_ID", "side": "Side", "kind": "Type", "view": "View"}
"""What the name of the image says too; compared where the table has the column."""


@dataclass(frozen=True, order=True)
class ImageName:
    """The name of one image of CDD-CESM in its parts."""

    patient: int
    laterality: Literal["L", "R"]
    view: str
    repeat: int
    subtracted: bool

    @classmethod
    def parse(cls, text: str) -> ImageName | None:
        """The parts of a name such as ``P281_L_DM_MLO2`` (without suffix; blanks around it do not matter)."""
        match = _NAME.fullmatch(text.strip())
        if match is None:
            return None
        side: Literal["L", "R"] = "L" if match["side"].upper() == "L" else "R"
        repeat = int(match["repeat"] or 1)
        return cls(int(match["patient"]), side, match["view"].upper(), repeat, match["kind"].upper() == "CM")

    @property
    def case(self) -> str:
        """Name of the view, the same for both images of a pair: ``P281_L_MLO_2``."""
        return f"P{self.patient}_{self.laterality}_{self.view}{self._repeat}"

    @property
    def _repeat(self) -> str:
        return f"_{self.repeat}" if self.repeat > 1 else ""

    def __str__(self) -> str:
        """The official name, with repeats always spelled ``_2``."""
        return f"P{self.patient}_{self.laterality}_{'CM' if self.subtracted else 'DM'}_{self.view}{self._repeat}"


@dataclass(frozen=True)
class Annotation:
    """One row of the table, blanks removed; empty where the table says nothing (also ``_``)."""

    label: str
    pathology: str
    birads: tuple[str, ...]
    density: str
    findings: tuple[str, ...]
    tags: tuple[str, ...]
    age: str
    machine: str


def read_table(path: Path) -> tuple[dict[ImageName, Annotation], list[LeftOut]]:
    """Read the official xlsx.

    Returns:
        The annotation of each image, and one line for every row that cannot be used.

    Raises:
        ValueError: not an xlsx, or the sheet or a column is missing.
    """
    table = _sheet(path)
    annotations: dict[ImageName, Annotation] = {}
    broken: list[LeftOut] = []
    contradicted: set[ImageName] = set()
    for number, row in enumerate(table.to_dict("records"), 2):  # as the spreadsheet counts, the head being row 1
        cells = {str(key): " ".join(str(value).split()) for key, value in row.items()}
        if not any(cells.values()):
            continue
        try:
            name, annotation = _annotation(cells)
        except ValueError as error:
            broken.append(_broken(path, number, cells["image_name"], str(error)))
            continue
        if annotations.setdefault(name, annotation) != annotation:
            contradicted.add(name)
            broken.append(_broken(path, number, str(name), "another row says something else of the same image"))
    return {name: found for name, found in annotations.items() if name not in contradicted}, broken


def _broken(path: Path, number: int, name: str, reason: str) -> LeftOut:
    return LeftOut(name or "-", path.name, f"row {number}: {reason}", "Correct the row; the image is left out")


def case_info(image: Annotation, label: Annotation) -> dict[str, Any]:
    """What a datalist keeps of a pair; the subtracted image's words only where they differ from the LE image's."""
    info: dict[str, Any] = {
        "label": image.label,
        "pathology": image.pathology,
        "birads": ", ".join(image.birads),
        "density": image.density or label.density,
        "findings": list(image.findings),
        "tags": list(image.tags),
        "age": int(image.age) if image.age.isdigit() else image.age,
        "machine": image.machine,
        "vendor": f"machine {image.machine}" if image.machine else "",
    }
    others: dict[str, Any] = {"label": label.label, "birads": ", ".join(label.birads)}
    others |= {"findings": list(label.findings), "tags": list(label.tags)}
    info |= {f"{key}_des": value for key, value in others.items() if value != info[key]}
    return {key: value for key, value in info.items() if value not in ("", [])}


def _sheet(path: Path) -> pd.DataFrame:
    """The sheet with the columns we need, renamed, all cells as text."""
    try:
        require_bounded_zip(path, _MAX_BYTES)
        sheets, rows = _cells(path)
    except OSError:
        raise
    except Exception as error:  # openpyxl raises whatever the damaged part happens to cause
        raise ValueError(f"{path} cannot be read as xlsx ({error}). Download it again.") from error
    if rows is None:
        raise ValueError(f"{path} has no sheet {SHEET!r}; it has: {', '.join(sheets)}. Give the official table.")
    head, *below = rows or [()]
    columns = [place for place, name in enumerate(head) if name]
    table = pd.DataFrame([[row[place] for place in columns] for row in below], columns=[head[i] for i in columns])
    heads = {_plain(str(head)): head for head in table.columns}
    missing = [head for head in _COLUMNS.values() if _plain(head) not in heads]
    if missing:
        found = ", ".join(str(head) for head in table.columns)
        raise ValueError(f"{path}, sheet {SHEET!r}, has no column {', '.join(missing)}; it has: {found}.")
    wanted = {**_COLUMNS, **{key: head for key, head in _REPEATED.items() if _plain(head) in heads}}
    return table[[heads[_plain(head)] for head in wanted.values()]].set_axis(list(wanted), axis="columns")


def _cells(path: Path) -> tuple[list[str], list[tuple[str, ...]] | None]:
    """The names of the sheets, and the cells of the one sought as text, row by row; None if there is none.

    pandas makes room for as many rows and columns as a single cell far out claims there are.
    """
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        sheets = [str(name) for name in book.sheetnames]
        chosen = next((name for name in sheets if name.strip().lower() == SHEET), None)
        if chosen is None:
            return sheets, None
        rows: list[tuple[str, ...]] = []
        for values in book[chosen].iter_rows(max_col=_MAX_COLUMNS, values_only=True):
            if len(rows) == _MAX_ROWS:
                raise ValueError(f"more than {_MAX_ROWS} rows")
            rows.append(tuple(map(_text, values)))
        return sheets, rows
    finally:
        book.close()


def _text(value: object) -> str:
    """A cell as text, whole numbers without a point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _plain(head: str) -> str:
    return "".join(letter for letter in head.lower() if letter.isalnum())


def _annotation(cells: Mapping[str, str]) -> tuple[ImageName, Annotation]:
    """One row; ``ValueError`` says what is wrong with it."""
    name = ImageName.parse(re.sub(r"\.jpe?g$", "", cells["image_name"], flags=re.IGNORECASE))
    if name is None:
        raise ValueError(f"the name is {cells['image_name']!r}, expected one such as P1_L_DM_MLO or P1_L_CM_MLO")
    said = {"patient": str(name.patient), "side": name.laterality, "view": name.view}
    said["kind"] = "CESM" if name.subtracted else "DM"
    for key, value in said.items():
        found = cells.get(key, value).upper()
        if found != value and (key, found, value) != ("kind", "CM", "CESM"):
            raise ValueError(f"{_REPEATED[key]} is {found!r}, but the name {name} says {value!r}")
    label = cells["pathology"].lower()
    if label not in LABELS:
        raise ValueError(f"the pathology is {cells['pathology']!r}, expected one of {', '.join(LABELS)}")
    text = {key: "" if value == "_" else value for key, value in cells.items()}
    return name, Annotation(
        label=label,
        pathology=text["pathology"],
        birads=_parts(text["birads"], "$"),
        density=text["density"].upper(),
        findings=_parts(text["findings"], "$"),
        tags=_parts(text["tags"], ","),
        age=text["age"],
        machine=text["machine"],
    )


def _parts(text: str, separator: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(separator) if part.strip())
