"""All that reads DICOM files of others."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from bundle.dicom import VirtualDESObjects, read_dicom
from bundle.image_facts import image_facts
from bundle.inference.sources import Sources
from bundle.reader import ImageFileError, MammogramReader, read_pixels
from scripts.fuzzing.attempts import Attempts, Readers
from scripts.prepare.dicom_archive import _Import
from scripts.prepare.dicom_pairing import MINUTES
from scripts.prepare.dicom_report import Report
from scripts.prepare.dicom_scan import archive_at, scan
from scripts.prepare.pseudonyms import Pseudonyms
from scripts.prepare.quiet_dicom import quiet
from scripts.prepare.segmentation import Drawing, LesionMask
from scripts.prepare.sources import DicomImageFile, DicomInPlace

__all__ = ["READERS"]


def _read(folder: Path, attempt: Attempts) -> None:
    for path in sorted(folder.iterdir()):
        attempt(lambda path=path: read_pixels(path))  # type: ignore[misc]
        attempt(lambda path=path: image_facts(path))  # type: ignore[misc]
        reader = MammogramReader(as_displayed=True)
        attempt(lambda path=path, reader=reader: reader.get_data(reader.read(path)))  # type: ignore[misc]
        attempt(lambda path=path: DicomInPlace(path).read())  # type: ignore[misc]
        attempt(lambda path=path: DicomImageFile(path).read())  # type: ignore[misc]
        attempt(lambda path=path: LesionMask((Drawing(path, path.name, (1,)),), "1.2.3").read((40, 36)), ValueError)  # type: ignore[misc]
        _derive(path, folder, attempt)
    sources = Sources(folder, folder.parent / "out")
    attempt(lambda: (sources.pending, sources.known), FileNotFoundError, counts=False)
    _import(folder)


def _derive(path: Path, folder: Path, attempt: Attempts) -> None:
    """A derived object of an image that can be read."""
    image = attempt(lambda: read_dicom(path))
    if image is None or image.values.size > 10**6:
        return
    weights = folder.parent / "tmp" / "weights.pt"
    weights.write_bytes(b"weights")
    pred = np.zeros(image.values.T.shape, dtype=np.float32)
    made = folder.parent / "out" / "made.dcm"
    # what is raised here becomes a line of the report, whatever it is
    attempt(lambda: VirtualDESObjects(weights).write(pred, path, made), Exception, counts=False)


def _import(folder: Path) -> None:
    """Scan, pair and read as preparation does; it reports what it cannot use and raises nothing."""
    archive = archive_at(folder)
    with quiet():
        found = scan(archive, workers=1, progress=False)
        report = Report(Pseudonyms(bytes(32)), archive)
        views = _Import(Pseudonyms(bytes(32)), report, MINUTES).views(found, None, None)
        for source in (one for view in views for one in (view.image, view.label)):
            with suppress(ImageFileError):
                source.read()


READERS = Readers(_read, (ImageFileError,))
