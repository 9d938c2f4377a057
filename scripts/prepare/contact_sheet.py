"""Small pictures of pairs, LE beside DES with the lesions outlined, for the data card."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bundle.reader import read_pixels
from bundle.threads import thread_pool

__all__ = ["COLOURS", "MOST_PAIRS", "chosen_cases", "pair_picture", "pictures"]

MOST_PAIRS = 60
HEIGHT = 300
"""Height of a picture in pixels."""
COLOURS = {"mask": (255, 176, 0), "label_mask": (86, 180, 233)}
"""Outlines of the mask drawn on LE and of the one drawn on DES: told apart with every kind of colour vision."""
_GAP = 4
_LINE, _DASH = 2, 6
"""Width of an outline and length of a dash, in pixels."""
_ROUND = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
_QUALITY = 88
_LONGEST_REASON = 200


@dataclass(frozen=True)
class PairPicture:
    """A pair on the page: a data URI with its size in pixels, or why there is no picture."""

    uri: str
    width: int
    height: int
    problem: str = ""


def chosen_cases(cases: pd.DataFrame, most: int = MOST_PAIRS) -> dict[str, list[int]]:
    """Heading -> positions of the cases to show: those with the lowest overlap, with lesions, and from everywhere.

    A fifth of the places goes to the lowest overlap, up to three fifths to lesions, the rest is spread evenly.
    """
    overlap = cases["overlap_after"].reset_index(drop=True).dropna()
    count = min(most, len(cases))
    lowest = [int(position) for position in overlap.sort_values(kind="stable").index[: count // 5]]
    taken = set(lowest)
    left = [position for position in range(len(cases)) if position not in taken]
    lesions = [position for position in left if cases["lesion"].iloc[position]]
    room = count - len(lowest)
    lesions = _spread(lesions, room if len(cases) <= most else count * 3 // 5)
    taken |= set(lesions)
    rest = _spread([position for position in left if position not in taken], room - len(lesions))
    return {"Lowest overlap": lowest, "With lesions": lesions, "From the whole data set": rest}


def _spread(positions: Sequence[int], count: int) -> list[int]:
    if count >= len(positions):
        return list(positions)
    return [positions[int(place)] for place in (np.arange(count) + 0.5) * len(positions) / max(count, 1)]


def pictures(folder: Path, cases: Sequence[Mapping[str, Any]]) -> list[PairPicture]:
    """The pictures of these cases of a datalist in ``folder``; never an exception."""
    with thread_pool(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda case: _picture_or_box(folder, case), cases))


def _picture_or_box(folder: Path, case: Mapping[str, Any]) -> PairPicture:
    try:
        return pair_picture(folder, case)
    except Exception as error:  # whatever a decoder raises: the card must be written all the same
        reason = " ".join(str(error).split()) or type(error).__name__
        for key in (*COLOURS, "image", "label"):
            reason = reason.replace(str(folder / str(case.get(key))), str(case.get(key)))
        return PairPicture("", 0, 0, reason[:_LONGEST_REASON])


def pair_picture(folder: Path, case: Mapping[str, Any]) -> PairPicture:
    """LE and DES of one case side by side, in their windows, with the lesions outlined.

    A mask is drawn with a solid line on the image it was drawn on; where only one exists it is dashed on the other.

    Raises:
        ImageFileError: a file cannot be read.
    """
    masks = {key: read_pixels(folder / case[key]).T != 0 for key in COLOURS if key in case}
    panels = []
    for key, own in (("image", "mask"), ("label", "label_mask")):
        grey = _thumbnail(read_pixels(folder / case[key]).T, case.get(f"{key}_window"))
        drawn = own if own in masks else next(iter(masks), None)
        panels.append(grey if drawn is None else _outlined(grey, masks[drawn], COLOURS[drawn], dashed=drawn != own))
    sheet = Image.new("RGB", (sum(panel.width for panel in panels) + _GAP, HEIGHT), "white")
    sheet.paste(panels[0], (0, 0))
    sheet.paste(panels[1], (panels[0].width + _GAP, 0))
    file = BytesIO()
    sheet.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return PairPicture(uri, sheet.width, sheet.height)


def _thumbnail(values: NDArray[Any], window: Sequence[float] | None) -> Image.Image:
    """(H, W) values over their window, or from the smallest to the largest one, as a small RGB picture."""
    limits = (window[0] - window[1] / 2, window[0] + window[1] / 2) if window else (values.min(), values.max())
    low, high = map(float, limits)
    size = (max(1, round(HEIGHT * values.shape[1] / values.shape[0])), HEIGHT)
    step = max(1, values.shape[0] // (4 * HEIGHT))  # every pixel shown is still the mean of many
    some = np.nan_to_num(values[::step, ::step].astype(np.float32))
    grey = (((some - low) / (high - low or 1.0)).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS).convert("RGB")


def _outlined(picture: Image.Image, mask: NDArray[np.bool_], colour: tuple[int, int, int], dashed: bool) -> Image.Image:
    """Draw a line with a dark rim just outside the lesion, so that the lesion itself stays as it is."""
    box = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(picture.size, Image.Resampling.BOX)
    lesion = np.asarray(box) > 0  # a lesion of one pixel stays one
    drawn = np.ones_like(lesion)
    if dashed:
        drawn = np.add.outer(np.arange(picture.height), np.arange(picture.width)) // _DASH % 2 == 0
    line, rim = (ndimage.binary_dilation(lesion, _ROUND, iterations) for iterations in (_LINE, _LINE + 1))
    pixels = np.asarray(picture).copy()
    pixels[rim & ~line & drawn] //= 3
    pixels[line & ~lesion & drawn] = colour
    return Image.fromarray(pixels)
