"""Pictures of cases for the report: read from the run, made small, as data URIs with the lesion as SVG path."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image

__all__ = ["CasePicture", "data_uri", "grey_uri", "outline", "read_picture", "window", "windowed"]

LARGEST_SIDE = 256
_QUALITY = 92
_FEW = 16
_BACKGROUND = 5
"""LE grey values up to here are no breast, as in `bundle.handlers.pictures`."""

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class CasePicture:
    """LE, real DES, virtual DES and lesion of one case, each (H, W), grey values 0 to 255 and lesion 0 or 255."""

    image: Grey
    label: Grey
    pred: Grey
    lesion: Grey


def read_picture(path: Path) -> CasePicture:
    """Read the four parts that stand side by side in a file of ``pictures/``, at most 256 pixels a side.

    Raises:
        ValueError: the file cannot be read, or its width is not that of four pictures.
    """
    try:
        with Image.open(path) as file:
            whole = np.asarray(file.convert("L"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a picture ({error}). Evaluate the run again.") from error
    if whole.shape[1] % 4:
        raise ValueError(f"{path}: width {whole.shape[1]}, expected that of four pictures. Evaluate the run again.")
    *greys, lesion = np.split(whole, 4, axis=1)
    image, label, pred = (_small(grey, Image.Resampling.BOX) for grey in greys)
    return CasePicture(image, label, pred, _small(lesion, Image.Resampling.NEAREST))


def _small(grey: Grey, how: Image.Resampling) -> Grey:
    scale = LARGEST_SIDE / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    return np.asarray(Image.fromarray(grey).resize((width, height), how))


def window(picture: CasePicture) -> tuple[float, float]:
    """Grey values shown black and white in both DES: percentiles 1 and 99 of the real DES inside the breast."""
    shown = picture.label[picture.image > _BACKGROUND]
    low, high = np.percentile(shown, (1, 99)) if shown.size else (0, 255)
    return round(float(low), 1), round(max(float(high), float(low) + 1), 1)


def grey_uri(grey: Grey) -> str:
    """The picture as JPEG, or, where it has so few grey values that it is small and exact then, as PNG."""
    file = BytesIO()
    kind = "png" if len(np.unique(grey)) <= _FEW else "jpeg"
    Image.fromarray(grey).save(file, kind, quality=_QUALITY, optimize=True)
    return data_uri(file.getvalue(), kind)


def windowed(grey: Grey, low: float, high: float) -> Grey:
    """Grey values stretched so that ``low`` is black and ``high`` white."""
    stretched: Grey = np.clip((grey.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    return stretched


def data_uri(content: bytes, kind: str) -> str:
    """An image file as text."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def outline(lesion: Grey) -> str:
    """The edge of the lesion as an SVG path in pixels, (0, 0) at the upper left corner; "" without a lesion."""
    if not lesion.any() or lesion.all():  # a mask over the whole image draws nothing
        return ""
    padded = np.pad((lesion > 127).astype(np.float32), 1)  # closes what touches the border
    lines = contour_generator(z=padded).lines(0.5)
    return "".join(_path(np.asarray(line)) for line in lines)


def _path(line: NDArray[np.float64]) -> str:
    """One closed line. A point between two on a straight line is left out."""
    step = np.diff(line, axis=0)
    turns = np.abs(step[1:, 0] * step[:-1, 1] - step[1:, 1] * step[:-1, 0]) > 1e-6
    corners = line[np.concatenate([[True], turns, [True]])]
    points = (f"{x - 0.5:g} {y - 0.5:g}" for x, y in corners)  # the border of one pixel, and pixel centres at 0.5
    return f"M{'L'.join(points)}Z"
