"""The readers of NRRD and MetaImage files, which are those of all image files."""

from __future__ import annotations

from pathlib import Path

from bundle.reader import ImageFileError
from scripts.fuzzing.attempts import Attempts, Readers
from scripts.fuzzing.read_images import read_image_files
from scripts.prepare.conversion import Settings
from scripts.prepare.records import fingerprint
from scripts.prepare.sources import FileImage
from scripts.prepare.view import View

__all__ = ["READERS"]


def _read(folder: Path, attempt: Attempts) -> None:
    for path in sorted(folder.glob("a.[nm]*")):
        image = FileImage(path)
        view = View("a", "P1", "L", "CC", image, image)
        fingerprint(view, Settings(folder.parent / "out"))
    read_image_files(folder, attempt)


READERS = Readers(_read, (ImageFileError,))
