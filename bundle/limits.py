"""How large an image may be: a false header, or a few bytes that stand for many, must not take all memory."""

from __future__ import annotations

import zipfile
from math import prod
from pathlib import Path

from bundle.image_file_error import ImageFileError

__all__ = ["MAX_BYTES", "MAX_PIXELS", "require_bounded", "require_bounded_zip"]

MAX_PIXELS = 2**27
"""Rows times columns times samples. No mammogram has more: film at 25 um has about 70 million."""
MAX_BYTES = 2**29
"""The largest object that is read or unpacked: twice what the largest image has with two bytes a sample."""


def require_bounded(path: str | Path, *sides: int) -> None:
    """Refuse an image by the sides that its header gives it, before there is room for its pixels.

    Args:
        path: the file, for the error.
        sides: rows, columns, samples, frames and what else is multiplied.

    Raises:
        ImageFileError: no pixel at all, or more than ``MAX_PIXELS`` values.
    """
    if any(side < 1 for side in sides) or prod(sides) > MAX_PIXELS:
        found = " x ".join(str(side) for side in sides)
        problem = f"its header says {found} values, expected at least one and at most {MAX_PIXELS}"
        remedy = "The file is damaged, or no mammogram: copy it again from its source, or leave it out"
        raise ImageFileError(path, problem, remedy)


def require_bounded_zip(path: str | Path, most: int = MAX_BYTES) -> None:
    """Refuse a zip archive by the sizes that its directory gives, which nothing that unpacks it goes beyond.

    Args:
        path: the archive.
        most: bytes that all its files may have together.

    Raises:
        ValueError: no zip archive, or larger ones.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (FileNotFoundError, PermissionError):
        raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no zip archive, or a damaged one ({error})") from error
    if size > most:
        raise ValueError(f"{path} unpacks to {size} bytes, expected at most {most}")
