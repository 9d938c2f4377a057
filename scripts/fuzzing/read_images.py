"""All that reads image files of others, and the writer that takes their header for a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bundle.image_facts import image_facts
from bundle.image_writer import write_like_source
from bundle.inference.sources import Sources
from bundle.reader import SUFFIXES, ImageFileError, MammogramReader, file_suffix, read_pixels
from scripts.fuzzing.attempts import Attempts, Readers
from scripts.prepare.sources import FileImage, FileMask

__all__ = ["READERS", "read_image_files"]

_LARGEST_WRITTEN = 10**6


def read_image_files(folder: Path, attempt: Attempts) -> None:
    """Give each file to the readers of images and masks, and what can be read to the writer of results."""
    for path in sorted(folder.iterdir()):
        pixels = attempt(lambda path=path: read_pixels(path))  # type: ignore[misc]
        attempt(lambda path=path: image_facts(path))  # type: ignore[misc]
        reader = MammogramReader(as_displayed=True)
        attempt(lambda path=path, reader=reader: reader.get_data(reader.read(path)))  # type: ignore[misc]
        attempt(lambda path=path: FileImage(path).read())  # type: ignore[misc]
        shape = (12, 16) if pixels is None else pixels.T.shape
        attempt(lambda path=path, shape=shape: FileMask(path).read(shape))  # type: ignore[misc]
        if file_suffix(path) in SUFFIXES:
            attempt(lambda path=path: FileMask(path).direction, counts=False)  # type: ignore[misc]
        if pixels is not None and pixels.size < _LARGEST_WRITTEN:
            target = folder.parent / "out" / path.name
            pred = np.zeros(pixels.shape, dtype=np.float32)
            # what the writer raises becomes a line of the report, whatever it is
            attempt(lambda path=path, pred=pred, target=target: write_like_source(pred, path, target), Exception)  # type: ignore[misc]
    sources = Sources(folder, folder.parent / "out")
    attempt(lambda: (sources.pending, sources.known), FileNotFoundError, counts=False)


READERS = Readers(read_image_files, (ImageFileError,))
