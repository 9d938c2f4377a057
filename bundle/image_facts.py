"""What the data check needs to know of one image file, found in one pass over its pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bundle.facts_cache import FactsCache, ImageFacts
from bundle.memory_order import in_rows
from bundle.reader import ImageFileError, read_pixels
from bundle.threads import thread_pool

__all__ = ["ImageFacts", "image_facts", "pixel_digest", "read_facts"]

_WHOLE = (np.uint8, np.uint16, np.int32, np.int64)


def image_facts(path: str | Path) -> ImageFacts:
    """Decode the file at ``path`` once and describe it.

    Raises:
        ImageFileError: as ``bundle.reader.read_pixels``.
    """
    pixels = read_pixels(path)
    if pixels.size == 0:
        raise ImageFileError(path, f"holds no pixel (shape {pixels.shape})", "Write the image again from its source")
    finite = pixels.dtype.kind in "biu" or bool(np.isfinite(pixels).all())
    low, high = (float(pixels.min()), float(pixels.max())) if finite else (0.0, 0.0)
    return ImageFacts(
        shape=(pixels.shape[0], pixels.shape[1]),
        low=low,
        high=high,
        finite=finite,
        binary=finite and low >= 0 and not bool(((pixels != 0) & (pixels != high)).any()),
        centroid=_centroid(pixels, low) if finite and low < high else 0.0,
        digest=pixel_digest(pixels),
    )


def pixel_digest(pixels: NDArray[Any]) -> str:
    """A text that is equal for equal grey values in equal shape, whatever number type a file format gives them.

    Args:
        pixels: (W, H) grey values.
    """
    plain = _plain(pixels)
    digest = hashlib.blake2b(in_rows(plain).data, digest_size=16)
    digest.update(f"{plain.shape}{plain.dtype.name}".encode())
    return digest.hexdigest()


def _plain(pixels: NDArray[Any]) -> NDArray[Any]:
    """The values in the smallest type that holds them: whole numbers as such, others in double precision."""
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all() or (pixels != np.rint(pixels)).any() or np.abs(pixels).max(initial=0) > 2**53:
            return pixels.astype(np.float64) + 0.0  # no negative zero
    elif pixels.dtype.kind not in "biu":
        return pixels
    low, high = int(pixels.min(initial=0)), int(pixels.max(initial=0))
    fitting = (kind for kind in _WHOLE if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return pixels.astype(next(fitting, pixels.dtype), copy=False)


def _centroid(pixels: NDArray[Any], low: float) -> float:
    columns = pixels.mean(axis=1, dtype=np.float64) - low
    return float((columns * np.linspace(-1.0, 1.0, len(columns))).sum() / columns.sum())


def _facts_or_error(path: Path) -> ImageFacts | ImageFileError:
    try:
        return image_facts(path)
    except ImageFileError as error:
        return error


def read_facts(
    paths: Iterable[Path], progress: bool = True, root: Path | None = None
) -> dict[Path, ImageFacts | ImageFileError]:
    """The facts of every file, each read once, or the error that kept it from being read.

    Args:
        paths: files; repeated ones are read once.
        progress: show a bar, on a terminal and when it takes longer than a second.
        root: the dataset folder to which the files belong: what is kept of it (``bundle.facts_cache``) is used and
            renewed. Default: every file is read.
    """
    unique: Collection[Path] = list(dict.fromkeys(paths))
    kept = FactsCache(root) if root is not None else None
    known: dict[Path, ImageFacts] = kept.known(unique) if kept is not None else {}
    unread = [path for path in unique if path not in known]
    if not unread:
        return {path: known[path] for path in unique}
    with thread_pool(min(16, os.cpu_count() or 1)) as pool:
        read = pool.map(_facts_or_error, unread)
        bar = tqdm(read, total=len(unread), desc="Checking files", unit="file", delay=1, disable=not progress or None)
        found = known | dict(zip(unread, bar, strict=True))
    if kept is not None:
        kept.keep(found)
    return {path: found[path] for path in unique}
