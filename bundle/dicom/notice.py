"""A notice written into the pixels, for viewers that show no attributes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["NOTICE", "with_notice"]

NOTICE = "AI VIRTUAL DES\nSYNTHETIC - RESEARCH ONLY\nNOT FOR DIAGNOSIS"
_HEIGHT = 0.02
"""Height of a letter as a share of the image's height."""


def with_notice(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of ``pixels`` (H, W, in [0, 1]) with the notice in white on black, in the darkest of the four corners."""
    rows, columns = pixels.shape
    font = ImageFont.load_default(size=max(8.0, _HEIGHT * rows))
    _, _, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), NOTICE, font=font)
    margin = max(2, rows // 200)
    width, height = int(right) + 2 * margin, int(bottom) + 2 * margin
    box = Image.new("L", (width, height))
    ImageDraw.Draw(box).multiline_text((margin, margin), NOTICE, fill=255, font=font)
    fitted = box.resize((min(width, columns), min(height, rows)))
    stamp = np.asarray(fitted, dtype=np.float32) / 255
    corners = [
        (slice(0, stamp.shape[0]) if upper else slice(rows - stamp.shape[0], rows), side)
        for upper in (True, False)
        for side in (slice(0, stamp.shape[1]), slice(columns - stamp.shape[1], columns))
    ]
    marked = pixels.copy()
    marked[min(corners, key=lambda corner: float(pixels[corner].mean()))] = stamp
    return marked
