"""The lists of CESM@UCBM: tab-separated rows of pairs with their windows, one file for each section of a fold."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from scripts.prepare.view import LeftOut

__all__ = [
    "COLUMNS",
    "Leak",
    "Lists",
    "Row",
    "leaks",
    "natural_key",
    "published_sections",
    "read_lists",
    "require_each_once",
]

COLUMNS = ("id", "img_x", "img_y", "r_l", "wc_x", "ww_x", "wc_y", "ww_y")
PARTS = ("train", "val", "test")
_LIST_NAME = re.compile(r"fold(\d+)_(train|val|test)\.txt", re.IGNORECASE)
_ID = re.compile(r"(?P<patient>P\d+)_(?P<number>\d+)_(?P<side>[LR])(?P<view>[A-Z]+)", re.IGNORECASE)
_NAMES = "img_x and img_y name the low-energy and the recombined image of the id: correct the row"
_WINDOW_REMEDY = "Give centre and width (above 0) of the window in stored pixel values"
_FEW = 20

Window = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One pair of a list.

    Attributes:
        id: patient, number of the image, side and view, as ``P96_76_RMLO``.
        place: list and line.
        image: path of the low-energy image as published.
        label: path of the recombined image as published.
    """

    id: str
    place: str
    patient: str
    laterality: Literal["L", "R"]
    view: str
    image: PureWindowsPath
    label: PureWindowsPath
    image_window: Window
    label_window: Window


@dataclass
class Lists:
    """All lists of a folder.

    Attributes:
        rows: the pairs that can be used, by id.
        left_out: the rows that cannot, with reasons.
        sections: fold and part (train, val, test) -> patient of each id that is listed there.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    sections: dict[tuple[int, str], dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Leak:
    """Two sections and the patients that are in both."""

    first: str
    second: str
    patients: tuple[str, ...]


class _BadRowError(ValueError):
    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


def natural_key(name: str) -> list[tuple[str, int]]:
    """Sorts numbers as numbers: P2 before P10."""
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def read_lists(path: Path) -> Lists:
    """Read one list, or the lists ``foldK_train.txt``, ``foldK_val.txt`` and ``foldK_test.txt`` of a folder.

    Raises:
        ValueError: no list there, or a file that is none.
    """
    lists, places = Lists(), defaultdict[str, dict[tuple[str, ...], str]](dict)
    files = {path: None} if path.is_file() else _section_files(path)
    for file, section in files.items():
        listed = lists.sections.setdefault(section, {}) if section else {}
        for place, cells in _cells(file):
            if match := _ID.fullmatch(cells[0]):
                listed[cells[0]] = match["patient"].upper()
            if cells not in places[cells[0]]:
                places[cells[0]][cells] = place
                _add(lists, cells, place)
    if not places:
        raise ValueError(f"{path}: no row in any list. Give the lists of CESM@UCBM.")
    for name, written in places.items():
        if len(written) > 1 and name:
            lists.rows.pop(name, None)
            reason = f"different rows of one id in {', '.join(written.values())}"
            lists.left_out.append(LeftOut(name, next(iter(written.values())), reason, "Give one row in all lists"))
    return lists


def _add(lists: Lists, cells: tuple[str, ...], place: str) -> None:
    try:
        row = _row(cells, place)
    except _BadRowError as error:
        lists.left_out.append(LeftOut(cells[0] or "-", place, error.reason, error.remedy))
    else:
        lists.rows[row.id] = row


def _section_files(folder: Path) -> dict[Path, tuple[int, str] | None]:
    """The lists of a folder in the order of folds and parts."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such file or folder. Give a list of CESM@UCBM, or the folder of its lists.")
    found: dict[tuple[int, str], Path] = {}
    for file in sorted(folder.iterdir()):
        match = _LIST_NAME.fullmatch(file.name)
        if match and file.is_file():
            key = (int(match[1]), match[2].lower())
            if key in found:
                raise ValueError(f"{found[key]} and {file} are lists of one section. Leave one of them.")
            found[key] = file
    if not found:
        raise ValueError(
            f"{folder} holds no list: expected foldK_train.txt, foldK_val.txt, foldK_test.txt, K = 0, 1 ..."
        )
    return {found[key]: key for key in sorted(found, key=lambda key: (key[0], PARTS.index(key[1])))}


def _cells(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """List and line, and the cells in the order of ``COLUMNS``, of every row that is not blank."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = _rows(file, csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        header = [cell.strip() for _, cells in islice(reader, 1) for cell in cells]
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise ValueError(
                f"{file} lacks the column {', '.join(missing)}: expected tab-separated columns {' '.join(COLUMNS)}."
            )
        for line, cells in reader:
            if any(cell.strip() for cell in cells):
                named = dict(zip(header, (cell.strip() for cell in cells), strict=False))
                yield f"{file.name}:{line}", tuple(named.get(column, "") for column in COLUMNS)


def _rows(file: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Number of the line and cells; a file that is no table has a name."""
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(
            f"{file} is no list (line {reader.line_num}: {error}). Give the lists of CESM@UCBM."
        ) from error


def _row(cells: tuple[str, ...], place: str) -> Row:
    cell = dict(zip(COLUMNS, cells, strict=True))
    match = _ID.fullmatch(cell["id"])
    if match is None:
        reason = f"the id is {cell['id']!r}, expected patient, number, side and view as P96_76_RMLO"
        raise _BadRowError(reason, "Correct the id")
    side: Literal["L", "R"] = "L" if match["side"].upper() == "L" else "R"
    if cell["r_l"].upper() != side:
        reason = f"r_l is {cell['r_l']!r}, but the id says {side}"
        raise _BadRowError(reason, "Look at the image, and correct r_l or the id")
    image, label = _file(cell, "img_x", "RECOMBINED"), _file(cell, "img_y", "LOW_ENERGY")
    if str(image).lower() == str(label).lower():
        raise _BadRowError(f"img_x and img_y are the same file {cell['img_x']}", _NAMES)
    return Row(
        id=cell["id"],
        place=place,
        patient=match["patient"].upper(),
        laterality=side,
        view=match["view"].upper(),
        image=image,
        label=label,
        image_window=_window(cell, "x"),
        label_window=_window(cell, "y"),
    )


def _file(cell: Mapping[str, str], column: str, other: str) -> PureWindowsPath:
    """The path in a column; both kinds of slashes are understood."""
    path = PureWindowsPath(cell[column])
    if not path.name:
        raise _BadRowError(f"{column} is empty", _NAMES)
    if path.anchor or ".." in path.parts:
        raise _BadRowError(f"{column} is {cell[column]}, expected a path within the archive", _NAMES)
    named = _ID.match(path.stem)
    if (named and named[0].upper() != cell["id"].upper()) or path.stem.upper().endswith(other):
        raise _BadRowError(f"{column} is {cell[column]}, another image", _NAMES)
    return path


def _window(cell: Mapping[str, str], axis: str) -> Window:
    texts = (cell[f"wc_{axis}"], cell[f"ww_{axis}"])
    try:
        centre, width = (float(text) for text in texts)
    except ValueError:
        centre, width = math.nan, math.nan
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        reason = f"wc_{axis} is {texts[0]!r} and ww_{axis} is {texts[1]!r}, expected a window"
        raise _BadRowError(reason, _WINDOW_REMEDY)
    return centre, width


def leaks(sections: Mapping[str, Mapping[str, str]]) -> list[Leak]:
    """The patients that each two of these sections share, where there are any."""
    patients = {name: set(listed.values()) for name, listed in sections.items()}
    shared = [
        Leak(one, other, tuple(sorted(patients[one] & patients[other], key=natural_key)))
        for one, other in combinations(patients, 2)
    ]
    return [leak for leak in shared if leak.patients]


def published_sections(lists: Lists) -> dict[str, dict[str, str]]:
    """Title -> patient by id of the sections that are the folds of the data set, in the order of these folds.

    The bundle tests on the cases of fold k and validates on those of fold k + 1: the test lists of a complete set
    are the folds. A single fold becomes three: its test list, its validation list, its training list.

    Raises:
        ValueError: the lists are neither.
    """
    folds = sorted({fold for fold, _ in lists.sections})
    if len(folds) == 1:
        wanted = [(folds[0], part) for part in ("test", "val", "train")]
    else:
        wanted = [(fold, "test") for fold in folds]
    absent = [f"fold{fold}_{part}.txt" for fold, part in wanted if (fold, part) not in lists.sections]
    if absent or len(wanted) < 3:
        lacking = f"without {', '.join(absent)}" if absent else f"of {len(folds)} folds"
        raise ValueError(
            f"--published-folds needs the lists of all folds, or train, val and test of one; these are {lacking}."
        )
    return {f"fold{fold} {part}": lists.sections[fold, part] for fold, part in wanted}


def require_each_once(lists: Lists, chosen: Mapping[str, Mapping[str, str]]) -> None:
    """Make sure that every listed image is in exactly one of the chosen sections.

    Raises:
        ValueError: an image is in none or in several.
    """
    where = defaultdict[str, list[str]](list)
    for listed in lists.sections.values():
        for name in listed:
            where[name] = [title for title, ids in chosen.items() if name in ids]
    wrong = [name for name in sorted(where, key=natural_key) if len(where[name]) != 1]
    if wrong:
        shown = [f"{name} ({', '.join(where[name]) or 'none'})" for name in wrong[:_FEW]]
        more = f" and {len(wrong) - _FEW} more" if len(wrong) > _FEW else ""
        raise ValueError(
            f"{len(wrong)} images are not in exactly one of {', '.join(chosen)}: {', '.join(shown)}{more}. "
            "Give the lists of all folds, or leave out --published-folds."
        )
