"""CESM@UCBM as its authors publish it: 16-bit NRRD images, and lists with the windows of each pair."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from bundle.reader import SUFFIXES, file_suffix
from scripts.prepare import pipeline
from scripts.prepare.options import add_options
from scripts.prepare.sources import FileImage, FileMask
from scripts.prepare.ucbm_lists import (
    Leak,
    Lists,
    Row,
    leaks,
    natural_key,
    published_sections,
    read_lists,
    require_each_once,
)
from scripts.prepare.view import LeftOut, View

SUMMARY = "CESM@UCBM: NRRD images with the authors' lists of pairs, windows and folds"
EXAMPLE = r"""  python scripts/prepare_data.py cesm-ucbm CESM_UCBM/lists --images CESM_UCBM --output data/cesm-ucbm"""
DESCRIPTION = "CESM@UCBM: 16-bit images with the windows of the authors' lists"
_ROOT = "Dataset"
"""With this folder the published paths begin."""
_REFUSED = (
    "Nothing was written: on these folds a model would be tested on patients of its training. Leave out "
    "--published-folds, and new folds are drawn by patient; or give --allow-leak to keep them as they are."
)
_FEW = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source to its subcommand."""
    files = parser.add_argument_group("files")
    text = "folder of foldK_train.txt, foldK_val.txt, foldK_test.txt, or one list"
    files.add_argument("lists", type=Path, metavar="LISTS", help=text)
    text = "folder in which the paths of the lists begin; default: that of the lists"
    files.add_argument("--images", type=Path, metavar="DIR", help=text)
    text = "lesion masks drawn on the LE images, called as the id (P1_22_RCC.nrrd, P1_22_RCC_mask.png)"
    files.add_argument("--mask-dir", type=Path, metavar="DIR", help=text)
    files.add_argument("--label-mask-dir", type=Path, metavar="DIR", help="lesion masks drawn on the DES images")
    folds = parser.add_argument_group("the authors' folds")
    text = "keep the authors' folds, instead of drawing new ones by patient; refused where patients are in several"
    folds.add_argument("--published-folds", action="store_true", help=text)
    text = "keep them even so: a warning then goes with every training and evaluation"
    folds.add_argument("--allow-leak", action="store_true", help=text)
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Make the dataset; return the exit status."""
    if options.published_folds and options.folds is not None:
        raise ValueError("--folds and --published-folds exclude each other. Give one of them.")
    if options.allow_leak and not options.published_folds:
        raise ValueError(
            "--allow-leak is for --published-folds: new folds never share patients. Give both, or neither."
        )
    lists = read_lists(options.lists)
    folds: dict[str, int] = {}
    leaking: list[Leak] = []
    sections: dict[str, dict[str, str]] = {}
    if options.published_folds:
        sections = published_sections(lists)
        leaking = leaks(sections)
        if _report(leaking, lists) and not options.allow_leak:
            print(_REFUSED, file=sys.stderr)
            return 1
        require_each_once(lists, sections)
        folds = {name: fold for fold, listed in enumerate(sections.values()) for name in listed}
    elif _report(_within_folds(lists), lists):
        print("The authors' folds are not used: new ones are drawn by patient.", file=sys.stderr)
    images = _Images(options.images or (options.lists if options.lists.is_dir() else options.lists.parent))
    masks = {key: _Masks(getattr(options, f"{key}_dir"), lists.rows.values()) for key in ("mask", "label_mask")}
    views, left_out = _views(lists.rows.values(), images, masks, folds)
    if lists.rows and not images.found:
        print(images.nowhere(), file=sys.stderr)
        return 1
    for one in masks.values():
        left_out += one.unclaimed()
    top: dict[str, Any] = {"allow_leak": True} if leaking else {}
    if options.published_folds:
        top["num_folds"] = len(sections)  # also where no image of the last one was found
    return pipeline.import_views(views, [*lists.left_out, *left_out], options, description=DESCRIPTION, **top)


def _within_folds(lists: Lists) -> list[Leak]:
    """What the sections of each fold share; those of two folds are meant to overlap."""
    shared = []
    for number in sorted({fold for fold, _ in lists.sections}):
        shared += leaks({f"fold{fold} {part}": one for (fold, part), one in lists.sections.items() if fold == number})
    return shared


def _report(shared: Sequence[Leak], lists: Lists) -> bool:
    """Name all patients that sections share on the standard error; whether there are any."""
    leaking = sorted({patient for leak in shared for patient in leak.patients}, key=natural_key)
    everyone = {patient for listed in lists.sections.values() for patient in listed.values()}
    if leaking:
        print("The lists share patients between sections:", file=sys.stderr)
        for leak in shared:
            print(f"  {leak.first} - {leak.second}: {len(leak.patients)} patients", file=sys.stderr)
        print(f"{len(leaking)} of {len(everyone)} patients are in several: {', '.join(leaking)}", file=sys.stderr)
    return bool(leaking)


@dataclass
class _Images:
    """The folder of the images; names are compared without regard to case where there is one such file only."""

    folder: Path
    found: int = 0
    _missing: list[Path] = field(default_factory=list)
    _entries: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)

    def file(self, listed: PureWindowsPath) -> Path | None:
        """The file of a path in a list, with or without its leading ``Dataset``."""
        parts = listed.parts
        inner = parts[1:] if len(parts) > 1 and parts[0].lower() == _ROOT.lower() else parts
        for candidate in ((_ROOT, *inner), inner):
            path = self._follow(candidate)
            if path is not None and path.is_file():
                self.found += 1
                return path
        self._missing.append(self.folder.joinpath(*parts))
        return None

    def _follow(self, parts: Sequence[str]) -> Path | None:
        path = self.folder
        for part in parts:
            named = self._inside(path).get(part.lower(), [])
            exact = [one for one in named if one.name == part]
            if len(exact or named) != 1:
                return None
            path = (exact or named)[0]
        return path

    def _inside(self, folder: Path) -> dict[str, list[Path]]:
        """What lies in a folder by its name in lower case; read once."""
        if folder not in self._entries:
            entries = self._entries[folder] = {}
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                entries.setdefault(path.name.lower(), []).append(path)
        return self._entries[folder]

    def nowhere(self) -> str:
        """What to say when no image was found at all."""
        looked = "\n".join(f"  {path}" for path in self._missing[:_FEW])
        return (
            f"No image of the lists was found, nothing was written. Looked for {len(self._missing)} files in "
            f"{self.folder.resolve()}, with and without `{_ROOT}`, first\n{looked}\n"
            f"Give the folder that holds `{_ROOT}` (or `Low Energy` and `Recombined`) as --images."
        )


class _Masks:
    """The lesion masks of a folder, found by the id of the image or by the name of its file."""

    def __init__(self, folder: Path | None, rows: Iterable[Row]) -> None:
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{folder} is not a folder. Give the folder that holds the masks.")
        ids = {stem.lower(): row.id for row in rows for stem in (row.id, row.image.stem, row.label.stem)}
        self._files: dict[str, list[Path]] = {}
        self._others: list[Path] = []
        for file in sorted(folder.iterdir()) if folder is not None else ():
            if not file.is_file() or file.name.startswith(".") or file_suffix(file) not in SUFFIXES:
                continue
            stem = _stem(file).lower()
            name = ids.get(stem) or ids.get(stem.removesuffix("_mask"))
            if name is not None:
                self._files.setdefault(name, []).append(file)
            elif file_suffix(file):
                self._others.append(file)

    def of(self, name: str) -> list[Path]:
        return self._files.get(name, [])

    def unclaimed(self) -> list[LeftOut]:
        reason, remedy = "a mask of no pair in the lists", "Call it as the id in the list, or <id>_mask"
        return [LeftOut("-", _mask_name(file), reason, remedy) for file in self._others]


def _stem(file: Path) -> str:
    suffix = file_suffix(file)
    return file.name.strip()[: -len(suffix)].strip() if suffix else file.name.strip()


def _views(
    rows: Iterable[Row], images: _Images, masks: Mapping[str, _Masks], folds: Mapping[str, int]
) -> tuple[list[View], list[LeftOut]]:
    views, left_out = [], []
    for row in sorted(rows, key=lambda row: natural_key(row.id)):
        image, label = images.file(row.image), images.file(row.label)
        drawn = {key: one.of(row.id) for key, one in masks.items()}
        ambiguous = [file for files in drawn.values() if len(files) > 1 for file in files]
        if image is None or label is None:
            listed = row.image if image is None else row.label
            reason = f"no such file in {images.folder} ({row.place})"
            left_out.append(LeftOut(row.id, listed.as_posix(), reason, "Copy the image there, or take the row out"))
        elif ambiguous:
            reason = f"several masks of one image: {', '.join(file.name for file in ambiguous)}"
            left_out.append(LeftOut(row.id, _mask_name(ambiguous[0]), reason, "Leave one of them"))
        else:
            views.append(
                View(
                    row.id,
                    row.patient,
                    row.laterality,
                    row.view,
                    FileImage(image, row.image_window, row.image.as_posix()),
                    FileImage(label, row.label_window, row.label.as_posix()),
                    mask=_drawn(drawn["mask"]),
                    label_mask=_drawn(drawn["label_mask"]),
                    info={"id": row.id},
                    same_grid=True,
                    fold=folds.get(row.id),
                )
            )
    return views, left_out


def _drawn(files: Sequence[Path]) -> FileMask | None:
    return FileMask(files[0], _mask_name(files[0])) if files else None


def _mask_name(file: Path) -> str:
    """How reports name a mask: its folder and its name, without the place of the archive."""
    return f"{file.parent.name}/{file.name}"
