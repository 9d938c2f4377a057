"""All that reads tables of others when data are prepared."""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.reader import ImageFileError
from scripts.fuzzing.attempts import Attempts, Readers
from scripts.prepare import pairs
from scripts.prepare.annotations import case_info, read_table
from scripts.prepare.cesm_ucbm import _Images
from scripts.prepare.regions import Regions, read_regions
from scripts.prepare.ucbm_lists import published_sections, read_lists, require_each_once

__all__ = ["READERS"]


def _read(folder: Path, attempt: Attempts) -> None:
    found = attempt(lambda: read_table(folder / "table.xlsx"))
    for annotation in {} if found is None else found[0].values():
        case_info(annotation, annotation)
    _draw(folder, attempt)
    for path in (folder, *folder.glob("*.txt")):
        _follow(path, attempt)
    parser = argparse.ArgumentParser()
    pairs.add_arguments(parser)
    table = str(folder / "pairs.csv")
    options = parser.parse_args(["--image-dir", "a", "--label-dir", "b", "--table", table, "--output", "c"])
    rows = attempt(lambda: pairs._read_table(options))  # noqa: SLF001 (read where images are, which are none here)
    if rows is not None:
        pairs._excluded(list(rows.index), rows, [["grade", "2"]] if "grade" in rows else [])  # noqa: SLF001


def _draw(folder: Path, attempt: Attempts) -> None:
    regions = attempt(lambda: read_regions(folder / "regions.csv"))
    for name, shapes in {} if regions is None else regions.shapes.items():
        drawn = Regions(name, folder / "regions.csv", shapes)
        attempt(lambda drawn=drawn: drawn.read((500, 300)))  # type: ignore[misc]


def _follow(path: Path, attempt: Attempts) -> None:
    """Look for the images that lists name, which must not lead out of their folder."""
    lists = attempt(lambda: read_lists(path))
    if lists is None:
        return
    images = _Images(path if path.is_dir() else path.parent)
    for row in lists.rows.values():
        for listed in (row.image, row.label):
            file = images.file(listed)
            if file is not None and not file.resolve().is_relative_to(images.folder.resolve()):
                raise RuntimeError(f"{listed} leads out of the folder, to {file}")
    if path.is_dir():
        sections = attempt(lambda: published_sections(lists), ValueError)
        attempt(lambda: require_each_once(lists, sections or {}), ValueError)


READERS = Readers(_read, (ValueError, ImageFileError))
