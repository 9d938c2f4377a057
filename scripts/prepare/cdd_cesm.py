"""CDD-CESM as downloaded from The Cancer Imaging Archive: folders of JPEG files, a csv of regions and an xlsx.

Khaled et al., Scientific Data 9 (2022), doi 10.1038/s41597-022-01238-0; data doi 10.7937/29kw-ae92.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.prepare import pipeline
from scripts.prepare.annotations import Annotation, ImageName, case_info, read_table
from scripts.prepare.options import add_options
from scripts.prepare.regions import Regions, Shape, read_regions
from scripts.prepare.sources import FileImage
from scripts.prepare.view import LeftOut, View

SUMMARY = "CDD-CESM as downloaded: image folders, csv of hand-drawn regions, xlsx with labels"
EXAMPLE = r"""  python scripts/prepare_data.py cdd-cesm "PKG - CDD-CESM" --output data/cdd-cesm --size 512"""
DESCRIPTION = "CDD-CESM (doi 10.7937/29kw-ae92, CC BY 4.0): 8-bit JPEG images, DES registered to LE by scale and shift"
_FEW = 20
_SUFFIXES = (".jpg", ".jpeg")
_DOWNLOAD = "It is part of the download of CDD-CESM (doi 10.7937/29kw-ae92)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source to its subcommand."""
    files = parser.add_argument_group("files")
    text = "folder of the download; image folders, csv and xlsx are searched in it"
    files.add_argument("archive", type=Path, metavar="ARCHIVE", help=text)
    text = "csv of the hand-drawn regions, if it lies elsewhere"
    files.add_argument("--annotations", type=Path, metavar="CSV", help=text)
    files.add_argument("--table", type=Path, metavar="XLSX", help="table of labels and findings, if it lies elsewhere")
    add_options(parser)


def run(options: argparse.Namespace) -> int:
    """Make the dataset; return the exit status."""
    views, left_out = read_archive(options.archive, options.annotations, options.table)
    return pipeline.import_views(views, left_out, options, description=DESCRIPTION)


def read_archive(
    archive: Path, annotations: Path | None = None, table: Path | None = None
) -> tuple[list[View], list[LeftOut]]:
    """The pairs of the archive with their masks and labels, and what of it is no pair.

    Args:
        archive: folder of the download.
        annotations: the csv; None searches it in the archive.
        table: the xlsx; None searches it in the archive.

    Raises:
        ValueError: folders, csv or xlsx are missing, ambiguous or not what their names say.
    """
    if not archive.is_dir():
        raise ValueError(f"{archive} is not a folder. Give the folder of the unpacked download.")
    folders = {title: _the_folder(archive, start) for title, start in _FOLDERS.items()}
    csv = annotations or _the_file(archive, "csv", "--annotations", lambda name: "handdrawnseg" in name)
    xlsx = table or _the_file(archive, "xlsx", "--table", lambda name: name.startswith("radiologymanualannotations"))
    regions = read_regions(csv)
    rows, broken_rows = read_table(xlsx)
    shapes, broken_regions = _by_image(regions.shapes, csv)
    images, broken_images = _images(archive, folders)
    known = _Archive(archive, images, rows, {name: Regions(str(name), csv, found) for name, found in shapes.items()})
    views, unpaired = _views(known, {name for name, files in images.items() if len(files) > 1})
    left_out = [*broken_images, *unpaired, *broken_rows, *regions.broken, *broken_regions]
    return views, left_out + list(_absent(known, xlsx))


_FOLDERS = {"LE": "Low energy", "DES": "Subtracted"}
"""Which images -> how the name of their folder starts."""


@dataclass(frozen=True)
class _Archive:
    """All that is in an archive, by image; more than one file of an image is an error."""

    root: Path
    images: Mapping[ImageName, list[Path]]
    rows: Mapping[ImageName, Annotation]
    regions: Mapping[ImageName, Regions]

    def file(self, name: ImageName) -> FileImage:
        """The image; reports name it by its place in the archive."""
        path = self.images[name][0]
        return FileImage(path, shown=path.relative_to(self.root).as_posix())


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _hidden(name: str) -> bool:
    """What systems and spreadsheets leave behind: ``._P1.jpg``, ``__MACOSX``, ``~$Radiology.xlsx``."""
    return name.startswith((".", "~$", "__MACOSX"))


def _walk(archive: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder with the names of the folders and files in it; folders that are links are named, not entered."""
    for folder, inner, files in os.walk(archive):
        inner[:] = sorted(name for name in inner if not _hidden(name))
        yield Path(folder), list(inner), sorted(name for name in files if not _hidden(name))


def _the_folder(archive: Path, title: str) -> Path:
    start = _plain(f"{title} images")
    found = [folder / name for folder, inner, _ in _walk(archive) for name in inner if _plain(name).startswith(start)]
    if len(found) != 1:
        what = f"{len(found) or 'no'} folder{'s' if found else ''} {title + ' images of CDD-CESM'!r}"
        where = f": {', '.join(str(one) for one in found)}" if found else ""
        raise ValueError(f"{archive} has {what}, expected one{where}. Give the folder in which both image folders lie.")
    return found[0]


def _the_file(archive: Path, suffix: str, option: str, fits: Callable[[str], bool]) -> Path:
    found = [
        folder / name
        for folder, _, files in _walk(archive)
        for name in files
        if Path(name).suffix.lower() == f".{suffix}" and fits(_plain(Path(name).stem))
    ]
    if len(found) != 1:
        kind = {"csv": "hand-drawn regions", "xlsx": "radiology annotations"}[suffix]
        where = f": {', '.join(str(one) for one in found)}" if found else ""
        remedy = f"{_DOWNLOAD}. Put it into the folder, or give it with {option}."
        raise ValueError(f"{archive} has {len(found) or 'no'} {suffix} of the {kind}, expected one{where}. {remedy}")
    return found[0]


def _images(archive: Path, folders: Mapping[str, Path]) -> tuple[dict[ImageName, list[Path]], list[LeftOut]]:
    """The files of each image, and one line for every file that is none."""
    images: defaultdict[ImageName, list[Path]] = defaultdict(list)
    left_out = []
    for title, folder in folders.items():
        for path in sorted(folder.iterdir()):
            file = path.relative_to(archive).as_posix()
            if _hidden(path.name) or path.name.lower() in ("thumbs.db", "desktop.ini"):
                continue
            if path.suffix.strip().lower() not in _SUFFIXES or not path.is_file():
                left_out.append(LeftOut("-", file, "not a JPEG file", needed=False))
                continue
            name = ImageName.parse(path.stem)
            if name is None:
                expected = "P1_L_DM_MLO.jpg" if title == "LE" else "P1_L_CM_MLO.jpg"
                left_out.append(LeftOut("-", file, f"the name is not one such as {expected}", "Correct the name"))
            elif name.subtracted != (title == "DES"):
                reason = f"a {'CM' if name.subtracted else 'DM'} image in the folder of the {title} images"
                left_out.append(LeftOut(name.case, file, reason, "Move it to the other folder, or correct the name"))
            else:
                images[name].append(path)
    return dict(images), left_out


def _by_image(
    shapes: Mapping[str, tuple[Shape, ...]], csv: Path
) -> tuple[dict[ImageName, tuple[Shape, ...]], list[LeftOut]]:
    """The regions by the parsed name of their image; names that are none are reported."""
    found: dict[ImageName, tuple[Shape, ...]] = {}
    left_out = []
    for text, regions in shapes.items():
        name = ImageName.parse(text)
        if name is None:
            reason = f"the image is called {text!r}, expected a name such as P1_L_DM_MLO.jpg"
            left_out.append(LeftOut("-", csv.name, reason, "Correct the rows: their regions are used in no mask"))
        else:
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *regions)))
    return found, left_out


def _views(known: _Archive, ambiguous: Iterable[ImageName]) -> tuple[list[View], list[LeftOut]]:
    """A view for each LE and DES that belong together, and why the other images are in none."""
    doubled = set(ambiguous)
    views, left_out = [], []
    for image in sorted({replace(name, subtracted=False) for name in known.images}):
        label = replace(image, subtracted=True)
        found = [name for name in (image, label) if name in known.images]
        file = known.images[found[0]][0].relative_to(known.root).as_posix()
        if len(found) < 2:
            missing = "subtracted (DES) image" if found[0] == image else "low-energy (LE) image"
            remedy = "Add the file, if the download is not complete"
            left_out.append(LeftOut(image.case, file, f"no {missing} of this view", remedy))
        elif doubled & {image, label}:
            twice = next(name for name in found if name in doubled)
            names = " and ".join(repr(path.name) for path in known.images[twice])
            left_out.append(LeftOut(image.case, file, f"several files of one image: {names}", "Leave the right one"))
        elif lacking := [name for name in found if name not in known.rows]:
            reason = f"no usable row in the table for {' and '.join(map(str, lacking))}"
            left_out.append(LeftOut(image.case, file, reason, "Use the complete table of the download, or add the row"))
        else:
            views.append(_view(known, image, label))
    return views, left_out


def _view(known: _Archive, image: ImageName, label: ImageName) -> View:
    return View(
        name=image.case,
        patient_id=f"P{image.patient}",
        laterality=image.laterality,
        view=image.view,
        image=known.file(image),
        label=known.file(label),
        mask=known.regions.get(image),
        label_mask=known.regions.get(label),
        info=case_info(known.rows[image], known.rows[label]),
    )


def _absent(known: _Archive, xlsx: Path) -> Iterator[LeftOut]:
    """Views that table or csv speak of and of which there is no image: one line each, or one for many."""
    present = {name.case for name in known.images}
    absent = [name for name in sorted({*known.rows, *known.regions}) if name.case not in present]
    cases = list(dict.fromkeys(name.case for name in absent))
    remedy = "Nothing, if you chose a part of the download; else complete it"
    if len(cases) <= _FEW:
        for case in cases:
            yield LeftOut(case, xlsx.name, "listed there, but there is no image of it", remedy)
    else:
        listed = len({*known.rows, *known.regions})
        reason = (
            f"{len(absent)} of the {listed} images listed there are absent ({len(cases)} views, such as {cases[0]})"
        )
        yield LeftOut("-", xlsx.name, reason, remedy)
