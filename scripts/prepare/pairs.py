"""Datalist of LE/DES pairs that lie in folders, one file an image, matched by file name."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from bundle.reader import SUFFIXES, file_suffix
from scripts.prepare.datalist import path_in, patient_folds, summary, write_checked

SUMMARY = "pairs of LE and DES images in folders, matched by file name; the images stay where they are"
EXAMPLE = r"""  python scripts/prepare_data.py pairs --image-dir my/LE --label-dir my/DES --mask-dir my/mask \
      --pattern '(?P<patient>P\d+)_(?P<laterality>L|R)_(?P<view>CC|MLO)' --output data/my"""
EIGHT_BIT_WINDOW = [127.5, 255.0]
"""The full range of 8-bit pixels: with it, label_scaling `window` keeps the grey values as they are."""
_FIELDS = ("patient", "laterality", "view")
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_ROLES = {"image": "image_dir", "label": "label_dir", "mask": "mask_dir", "label_mask": "label_mask_dir"}
_FEW = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source to its subcommand."""
    files = parser.add_argument_group("files")
    files.add_argument("--image-dir", required=True, type=Path, metavar="DIR", help="low-energy (LE) images")
    files.add_argument("--label-dir", required=True, type=Path, metavar="DIR", help="subtracted (DES) images")
    files.add_argument("--mask-dir", type=Path, metavar="DIR", help="lesion masks drawn on the LE images")
    files.add_argument("--label-mask-dir", type=Path, metavar="DIR", help="lesion masks drawn on the DES images")
    files.add_argument("--ignore", metavar="REGEX", help="part of the file names that differs between LE and DES")
    files.add_argument("--skip-unmatched", action="store_true", help="leave out files without partner, do not fail")
    files.add_argument("--output", required=True, type=Path, metavar="DATASET_DIR", help="folder for datalist.json")
    names = parser.add_argument_group("patient, laterality (L or R) and view: from the names or from a table")
    names.add_argument("--pattern", metavar="REGEX", help="whole name, with groups patient, laterality and view")
    names.add_argument("--table", type=Path, metavar="CSV", help="one row a pair")
    for field in ("name", *_FIELDS):
        names.add_argument(f"--{field}-column", default=field, metavar="COLUMN", help=f"default: {field}")
    names.add_argument("--info-columns", nargs="+", default=[], metavar="COLUMN", help="kept as `info` of the case")
    names.add_argument(
        "--exclude-below",
        nargs=2,
        action="append",
        default=[],
        metavar=("COLUMN", "VALUE"),
        help="leave out pairs with less than VALUE, or nothing, in COLUMN; may be repeated",
    )
    rest = parser.add_argument_group("intensities and folds")
    for role in ("image", "label"):
        text = "in stored pixel values; default: the full range for 8-bit files, else none"
        rest.add_argument(f"--{role}-window", nargs=2, type=float, metavar=("CENTRE", "WIDTH"), help=text)
    rest.add_argument("--folds", type=int, default=10, help="default: 10")
    rest.add_argument("--seed", type=int, default=0, help="seed of the folds; default: 0")
    rest.add_argument("--name", help="name of the dataset; default: that of the output folder")
    rest.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Make the datalist the options describe; return the exit status."""
    ignore = None if options.ignore is None else _compiled("--ignore", options.ignore)
    files = {role: _files(getattr(options, option), ignore) for role, option in _ROLES.items()}
    table = None if options.table is None else _read_table(options)
    problems = _unmatched(files, table)
    if options.skip_unmatched:
        _say(problems, "left out")
        problems = []
    paired = sorted(files["image"].keys() & files["label"].keys())
    if table is not None:
        paired = [name for name in paired if name in table.index]
    excluded = _excluded(paired, table, options.exclude_below)
    identities, unnamed = _identities([name for name in paired if name not in excluded], table, options)
    problems += unnamed
    if problems:
        _say(problems, "problem")
        remedy = "Rename or remove these files, correct --pattern or --table, or add --skip-unmatched."
        print(f"No datalist was written: {len(problems)} problems. {remedy}", file=sys.stderr)
        return 1
    if not identities:
        raise ValueError(f"no pair is left of {len(paired)}: check the folders and --exclude-below.")
    content = _datalist(identities, files, table, options)
    if not write_checked(options.output, content, progress=not options.quiet):
        return 1
    print(summary(content))
    if excluded:
        print(f"{len(excluded)} pairs left out by --exclude-below")
    print(f"written: {options.output / 'datalist.json'}")
    return 0


def _say(lines: list[str], heading: str) -> None:
    for line in lines:
        print(f"{heading}: {line}", file=sys.stderr)


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
        name = ignore.sub("", _stem(file)) if ignore else _stem(file)
        if name in found:
            raise ValueError(f"{found[name]} and {file} are both called {name!r}. Leave one of them.")
        found[name] = file
    if not found:
        raise ValueError(f"{folder} holds no image. Known kinds: {' '.join(suffix for suffix in SUFFIXES if suffix)}.")
    return found


def _read_table(options: argparse.Namespace) -> pd.DataFrame:
    """The csv with its rows named by the file names, all cells as text."""
    table: pd.DataFrame = pd.read_csv(options.table, dtype=str, keep_default_na=False).rename(columns=str.strip)
    wanted = [options.name_column, *options.info_columns, *(column for column, _ in options.exclude_below)]
    if options.pattern is None:
        wanted += [getattr(options, f"{field}_column") for field in _FIELDS]
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise ValueError(f"{options.table} has no column {', '.join(missing)}; it has: {', '.join(table.columns)}.")
    table = table.apply(lambda column: column.str.strip()).set_index(options.name_column, drop=False)
    repeated = sorted(set(table.index[table.index.duplicated()]))
    if repeated:
        raise ValueError(f"{options.table} names {', '.join(repeated[:_FEW])} more than once. Leave one row for each.")
    return table


def _unmatched(files: Mapping[str, Mapping[str, Path]], table: pd.DataFrame | None) -> list[str]:
    """One line for every file, and row of the table, that lacks its partner."""
    lines = []
    for role, partner in (("image", "label"), ("label", "image"), ("mask", "image"), ("label_mask", "label")):
        names = sorted(files[role].keys() - files[partner].keys())
        lines += [f"{files[role][name]}: no {partner} of that name" for name in names]
    if table is not None:
        paired = files["image"].keys() & files["label"].keys()
        lines += [f"{files['image'][name]}: no row in the table" for name in sorted(paired - set(table.index))]
        lines += [f"table row {name}: no pair of files" for name in sorted(set(table.index) - paired)]
    return lines


def _excluded(names: list[str], table: pd.DataFrame | None, limits: list[list[str]]) -> set[str]:
    """The names whose table cell is below a limit, or is not a number."""
    if table is None:
        if limits:
            raise ValueError("--exclude-below needs --table.")
        return set()
    excluded: set[str] = set()
    for column, limit in limits:
        values = pd.to_numeric(table.loc[names, column], errors="coerce")
        excluded |= {str(name) for name in values.index[~(values >= float(limit))]}
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
    names: list[str], table: pd.DataFrame | None, options: argparse.Namespace
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Name -> patient_id, laterality, view; and one line for every name that does not give them."""
    pattern = _pattern(options)
    identities, lines = {}, []
    for name in names:
        if pattern is not None:
            match = pattern.fullmatch(name)
            found = {field: match[field] or "" for field in _FIELDS} if match else None
        elif table is not None:
            found = {field: str(table.at[name, getattr(options, f"{field}_column")]) for field in _FIELDS}
        else:
            raise ValueError("patient, laterality and view are unknown. Give --pattern or --table.")
        side = _SIDES.get(found["laterality"].upper()) if found else None
        if found is None:
            lines.append(f"{name}: the name does not match --pattern {options.pattern}")
        elif side is None or not found["patient"] or not found["view"]:
            lines.append(f"{name}: found {found}, expected a patient, a laterality L or R, and a view")
        else:
            identities[name] = {"patient_id": found["patient"], "laterality": side, "view": found["view"].upper()}
    return identities, lines


def _is_8_bit(file: Path) -> bool:
    """Whether Pillow reads 8-bit samples; only the header is read."""
    if SUFFIXES[file_suffix(file)] != "pillow":
        return False
    try:
        with Image.open(file) as image:
            return image.mode in ("L", "LA", "P", "RGB", "RGBA")
    except OSError:
        return False  # the data check says what is wrong with it


def _datalist(
    identities: Mapping[str, Mapping[str, str]],
    files: Mapping[str, Mapping[str, Path]],
    table: pd.DataFrame | None,
    options: argparse.Namespace,
) -> dict[str, Any]:
    lesion = [name in files["mask"] or name in files["label_mask"] for name in identities]
    patients = [identity["patient_id"] for identity in identities.values()]
    folds = patient_folds(patients, lesion, options.folds, options.seed)
    cases = []
    for (name, identity), fold in zip(identities.items(), folds, strict=True):
        case: dict[str, Any] = {
            role: path_in(options.output, files[role][name]) for role in files if name in files[role]
        }
        case |= {**identity, "fold": fold}
        for role in ("image", "label"):
            window = getattr(options, f"{role}_window") or (EIGHT_BIT_WINDOW if _is_8_bit(files[role][name]) else None)
            if window is not None:
                case[f"{role}_window"] = window
        if table is not None and options.info_columns:
            case["info"] = {column: table.at[name, column] for column in options.info_columns}
        cases.append(case)
    return {
        "name": options.name or options.output.resolve().name,
        "synthetic": False,
        "num_folds": options.folds,
        "cases": cases,
    }
