"""Read the elements of a DICOM file without believing how much it says it holds."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pydicom
from pydicom import Dataset

from bundle.limits import MAX_BYTES

__all__ = ["read_elements"]

_LARGE = 2**16
_STEP = 2**14


class _BoundedFile(io.BufferedReader):
    """A file from which no more is asked than it holds.

    pydicom asks for as many bytes as an element says it has, for which Python finds room first; and it reads to the end
    of a file only to inflate what it has read.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            content = super().read()
            _require_bounded(content)
            return content
        if size > _LARGE:
            here = self.tell()
            size = min(size, self.seek(0, io.SEEK_END) - here)
            self.seek(here)
        return super().read(max(0, size))


def _require_bounded(deflated: bytes) -> None:
    """Refuse a bomb before the whole of it is in memory."""
    inflate, found = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for start in range(0, len(deflated), _STEP):
        found += len(inflate.decompress(deflated[start : start + _STEP]))  # a byte stands for a thousand at most
        if found > MAX_BYTES:
            raise ValueError(f"it inflates to more than {MAX_BYTES} bytes")
        if inflate.eof:
            return


def read_elements(path: Path, *, stop_before_pixels: bool = False, force: bool = False) -> Dataset:
    """All elements of a file, or those before its pixels.

    Args:
        path: the file.
        stop_before_pixels: leave the pixels, and what follows them, unread.
        force: also without the preamble and the magic word.

    Raises:
        OSError: the file cannot be opened or read.
        ValueError: it is too large, or inflates to too much. pydicom raises other errors for damaged files.
    """
    with _BoundedFile(io.FileIO(path)) as file:
        if not stop_before_pixels and (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size} bytes, expected at most {MAX_BYTES}")
        return pydicom.dcmread(file, stop_before_pixels=stop_before_pixels, force=force)
