"""LE/DES pairs that lie in folders, one file an image, matched by file name."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import pandas as pd
from pydicom.misc import is_dicom

from bundle.reader import SUFFIXES, file_suffix
from scripts.prepare import pipeline
from scripts.prepare.options import add_options
from scripts.prepare.sources import DicomImageFile, DicomInPlace, FileImage, FileMask
from scripts.prepare.view import ImageSource, LeftOut, View

SUMMARY = "pairs of LE and DES images in folders, matched by file name; without --size they stay where they are"
EXAMPLE = r"""  python scripts/prepare_data.py pairs --image-dir my/LE --label-dir my/DES --mask-dir my/mask \
      --pattern '(?P<patient>P\d+)_(?P<laterality>L|R)_(?P<view>CC|MLO)' --output data/my"""
_FIELDS = ("patient", "laterality", "view")
_SIDES: Mapping[str, Literal["L", "R"]] = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_ROLES = {"image": "image_dir", "label": "label_dir", "mask": "mask_dir", "label_mask": "label_mask_dir"}
_TITLES = {"image": "LE", "label": "DES", "mask": "mask", "label_mask": "mask of the DES"}
_FEW = 20


class _Identity(NamedTuple):
    patient: str
    laterality: Literal["L", "R"]
    view: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source to its subcommand."""
    files = parser.add_argument_group("files")
    files.add_argument("--image-dir", required=True, type=Path, metavar="DIR", help="low-energy (LE) images")
    files.add_argument("--label-dir", required=True, type=Path, metavar="DIR", help="subtracted (DES) images")
    files.add_argument("--mask-dir", type=Path, metavar="DIR", help="lesion masks drawn on the LE images")
    files.add_argument("--label-mask-dir", type=Path, metavar="DIR", help="lesion masks drawn on the DES images")
    files.add_argument("--ignore", metavar="REGEX", help="part of the file names that differs between LE and DES")
    names = parser.add_argument_group("patient, laterality (L or R) and view: from the names or from a table")
    names.add_argument("--pattern", metavar="REGEX", help="whole name, with groups patient, laterality and view")
    names.add_argument("--table", type=Path, metavar="CSV", help="one row a pair")
    for field in ("name", *_FIELDS):
        names.add_argument(f"--{field}-column", default=field, metavar="COLUMN", help=f"default: {field}")
    text = "kept as `info` of the case; label, density and vendor also serve the folds and the data card"
    names.add_argument("--info-columns", nargs="+", default=[], metavar="COLUMN", help=text)
    names.add_argument(
        "--exclude-below",
        nargs=2,
        action="append",
        default=[],
        metavar=("COLUMN", "VALUE"),
        help="leave out pairs with less than VALUE, or nothing, in COLUMN; may be repeated",
    )
    windows = parser.add_argument_group("intensities")
    for role in ("image", "label"):
        text = "in stored pixel values; default: that of DICOM headers, the full range for 8-bit files, else none"
        windows.add_argument(f"--{role}-window", nargs=2, type=float, metavar=("CENTRE", "WIDTH"), help=text)
    grid = parser.add_argument_group("LE and DES onto one grid (with --size)")
    text = "register images of equal size too; default: they lie on one grid, only others are registered"
    grid.add_argument("--register", action="store_true", help=text)
    add_options(parser, in_place=True)


def run(options: argparse.Namespace) -> int:
    """Make the dataset folder the options describe; return the exit status."""
    for role in ("image", "label"):
        window = getattr(options, f"{role}_window")
        if window is not None and not window[1] > 0:
            raise ValueError(f"--{role}-window has the width {window[1]:g}, expected more than 0.")
    if options.register and options.size is None:
        raise ValueError("--register needs --size (such as 512 or native): images that stay cannot be moved.")
    ignore = None if options.ignore is None else _compiled("--ignore", options.ignore)
    files = {role: _files(getattr(options, option), ignore) for role, option in _ROLES.items()}
    table = None if options.table is None else _read_table(options)
    left_out = _unmatched(files, table)
    paired = sorted(files["image"].keys() & files["label"].keys())
    if table is not None:
        paired = [name for name in paired if name in table.index]
    below = _excluded(paired, table, options.exclude_below)
    left_out += [LeftOut(name, _shown(files["image"][name]), reason, _LIMIT) for name, reason in below.items()]
    identities, unnamed = _identities([name for name in paired if name not in below], files, table, options)
    left_out += unnamed
    views = [_view(name, identity, files, table, options) for name, identity in identities.items()]
    return pipeline.import_views(views, left_out, options)


def _view(
    name: str,
    identity: _Identity,
    files: Mapping[str, Mapping[str, Path]],
    table: pd.DataFrame | None,
    options: argparse.Namespace,
) -> View:
    info = {} if table is None else {column: str(table.at[name, column]) for column in options.info_columns}
    image, label = (_image(files[role][name], role, options) for role in ("image", "label"))
    mask, label_mask = (_mask(files[role].get(name)) for role in ("mask", "label_mask"))
    return View(
        name,
        identity.patient,
        identity.laterality,
        identity.view,
        image,
        label,
        mask,
        label_mask,
        info,
        same_grid=not options.register,
    )


def _shown(path: Path) -> str:
    """How reports name a file: what lies above the folder given is nobody's business."""
    return f"{path.parent.resolve().name}/{path.name}"


def _mask(path: Path | None) -> FileMask | None:
    return None if path is None else FileMask(path, _shown(path))


def _image(path: Path, role: str, options: argparse.Namespace) -> ImageSource:
    given = getattr(options, f"{role}_window")
    window = None if given is None else cast(tuple[float, float], tuple(given))
    if SUFFIXES[file_suffix(path)] != "pydicom":
        return FileImage(path, window, _shown(path))
    kind = DicomInPlace if options.size is None else DicomImageFile
    return kind(path, window, _shown(path))


def _stem(file: Path) -> str:
    suffix = file_suffix(file)
    return file.name.strip()[: -len(suffix)].strip() if suffix else file.name.strip()


def _files(folder: Path | None, ignore: re.Pattern[str] | None) -> dict[str, Path]:
    """Name -> image file of a folder; hidden files and files of other kinds are passed over."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Give the folder that holds the images.")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name.startswith(".") or file_suffix(file) not in SUFFIXES:
            continue
        if not file_suffix(file) and not is_dicom(file):  # README, LICENSE
            continue
        name = ignore.sub("", _stem(file)) if ignore else _stem(file)
        if name in found:
            raise ValueError(f"{found[name]} and {file} are both called {name!r}. Leave one of them.")
        found[name] = file
    if not found:
        raise ValueError(f"{folder} holds no image. Known kinds: {' '.join(suffix for suffix in SUFFIXES if suffix)}.")
    return found


def _cells(path: Path) -> pd.DataFrame:
    """The cells of a csv; pandas alone would shift the columns of rows that are too long, and fill up short ones."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            head = [cell.strip() for cell in next(reader, [])]
            read = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}. {_AS_CSV}") from error
    rows = [(line, row) for line, row in read if any(cell.strip() for cell in row)]
    ragged = [f"line {line} has {len(row)} cells" for line, row in rows if len(row) != len(head)]
    repeated = [name for name in head if name and head.count(name) > 1]
    if not any(head) or ragged or repeated:
        found = "it is empty"
        if repeated:
            found = f"several columns are called {repeated[0]!r}"
        elif ragged:
            found = f"{ragged[0]}, the first line {len(head)}"
        raise ValueError(f"{path} cannot be read as a table: {found}. {_AS_CSV}")
    return pd.DataFrame([row for _, row in rows], columns=head, dtype=str)


_AS_CSV = "Save it as CSV UTF-8, comma separated."


def _read_table(options: argparse.Namespace) -> pd.DataFrame:
    """The csv with its rows named by the file names, all cells as text."""
    table = _cells(options.table)
    wanted = [options.name_column, *options.info_columns, *(column for column, _ in options.exclude_below)]
    if options.pattern is None:
        wanted += [getattr(options, f"{field}_column") for field in _FIELDS]
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        found = f"{', '.join(missing)}; it has: {', '.join(table.columns)}"
        raise ValueError(f"{options.table} has no column {found}. {_AS_CSV}")
    table = pd.DataFrame(table.apply(lambda column: column.str.strip())).set_index(options.name_column, drop=False)
    repeated = sorted(set(table.index[table.index.duplicated()]))
    if repeated:
        raise ValueError(f"{options.table} names {', '.join(repeated[:_FEW])} more than once. Leave one row for each.")
    return table


_PARTNER = "Add what is missing, or correct the names (--ignore drops a part of them)"
_LIMIT = "Excluded by --exclude-below, as asked"


def _unmatched(files: Mapping[str, Mapping[str, Path]], table: pd.DataFrame | None) -> list[LeftOut]:
    """Every file, and row of the table, that lacks its partner."""
    left_out = []
    for role, partner in (("image", "label"), ("label", "image"), ("mask", "image"), ("label_mask", "label")):
        names = sorted(files[role].keys() - files[partner].keys())
        reason = f"{_TITLES[role]} without {_TITLES[partner]} of that name"
        left_out += [LeftOut(name, _shown(files[role][name]), reason, _PARTNER) for name in names]
    if table is not None:
        paired = files["image"].keys() & files["label"].keys()
        for name in sorted(paired - set(table.index)):
            left_out.append(LeftOut(name, _shown(files["image"][name]), "no row in the table", _PARTNER))
        for name in sorted(set(table.index) - paired):
            left_out.append(LeftOut(name, "-", "a row of the table without a pair of files", _PARTNER))
    return left_out


def _excluded(names: list[str], table: pd.DataFrame | None, limits: list[list[str]]) -> dict[str, str]:
    """Name -> reason, where a cell of the table is below a limit or is not a number."""
    if table is None:
        if limits:
            raise ValueError("--exclude-below needs --table.")
        return {}
    excluded: dict[str, str] = {}
    for column, text in limits:
        limit = pd.to_numeric(text, errors="coerce")
        if pd.isna(limit):
            raise ValueError(f"--exclude-below {column} {text}: {text!r} is not a number.")
        for name in names:
            cell = str(table.at[name, column])
            if not pd.to_numeric(cell, errors="coerce") >= limit:  # also where the cell is no number
                excluded.setdefault(name, f"{column} is {cell or 'empty'}, expected at least {text}")
    return excluded


def _compiled(option: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{option} {text!r} is not a regular expression: {error}. Quote it in the shell.") from error


def _pattern(options: argparse.Namespace) -> re.Pattern[str] | None:
    if options.pattern is None:
        return None
    pattern = _compiled("--pattern", options.pattern)
    lacking = [field for field in _FIELDS if field not in pattern.groupindex]
    if lacking:
        raise ValueError(f"--pattern lacks the named groups {', '.join(lacking)}: write (?P<{lacking[0]}>...).")
    return pattern


def _identities(
    names: list[str],
    files: Mapping[str, Mapping[str, Path]],
    table: pd.DataFrame | None,
    options: argparse.Namespace,
) -> tuple[dict[str, _Identity], list[LeftOut]]:
    """Name -> whose breast it shows; and every name that does not give that."""
    pattern = _pattern(options)
    if pattern is None and table is None:
        raise ValueError("patient, laterality and view are unknown. Give --pattern or --table.")
    identities: dict[str, _Identity] = {}
    left_out = []
    for name in names:
        found = _fields(name, pattern, table, options)
        side = _SIDES.get(found["laterality"].upper()) if found else None
        if found and side and found["patient"] and found["view"]:
            identities[name] = _Identity(found["patient"], side, found["view"].upper())
            continue
        file = _shown(files["image"][name])
        if found is None:
            reason = f"the name does not match --pattern {options.pattern}"
            left_out.append(LeftOut(name, file, reason, "Rename the files, or correct --pattern"))
        else:
            reason = f"found {found}, expected a patient, a laterality L or R, and a view"
            left_out.append(LeftOut(name, file, reason, "Rename the files, or correct --pattern or --table"))
    return identities, left_out


def _fields(
    name: str, pattern: re.Pattern[str] | None, table: pd.DataFrame | None, options: argparse.Namespace
) -> dict[str, str] | None:
    if pattern is not None:
        match = pattern.fullmatch(name)
        return {field: match[field] or "" for field in _FIELDS} if match else None
    return {field: str(cast(Any, table).at[name, getattr(options, f"{field}_column")]) for field in _FIELDS}
