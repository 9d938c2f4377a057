"""Regions drawn by hand, from the csv export of the VGG Image Annotator (VIA), and the masks they make."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_fill_holes

from bundle.reader import ImageFileError
from scripts.prepare.view import LeftOut

__all__ = ["RegionFile", "Regions", "Shape", "read_regions"]

POINT_RADIUS = 25.0
"""Pixels; the authors of CDD-CESM draw a point so (get_segmented_image in omar-mohamed/CDD-CESM-Dataset)."""
LARGEST_COORDINATE = 100_000.0
"""No detector has so many pixels a side: what is beyond is a slip of the keyboard, and too much to draw."""
_COLUMNS = ("filename", "region_count", "region_shape_attributes")
_OUTLINES = ("polygon", "polyline")
_ROUND = ("ellipse", "circle", "point")
_KEEP_OTHERS = "Correct the row; the other regions of the image are used"


@dataclass(frozen=True)
class Shape:
    """One region in pixels of its image: (0, 0) is the middle of the first pixel, x to the right, y downwards.

    Attributes:
        kind: ``polygon`` or ``polyline`` (both closed and filled), ``ellipse``, ``circle`` or ``point`` (a disc).
        x, y: the corners, or the centre.
        radii: along x and y, of the round kinds.
        angle: of an ellipse, in radians from x towards y.
    """

    kind: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    radii: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The region on an image of this (H, W), with its outline; what is outside the image is cut off."""
        canvas = Image.new("L", (shape[1], shape[0]))
        draw = ImageDraw.Draw(canvas)
        if self.kind in _ROUND and self.angle == 0.0:
            (x,), (y,), (along_x, along_y) = self.x, self.y, self.radii
            draw.ellipse((x - along_x, y - along_y, x + along_x, y + along_y), fill=1, outline=1)
        else:
            draw.polygon(self._corners(), fill=1, outline=1)
        region = np.array(canvas, dtype=bool)
        if self.kind in _OUTLINES:  # where a hand crosses its own line, the drawing's even-odd rule leaves holes
            box = tuple(slice(max(0, int(min(axis))), max(0, int(max(axis)) + 1)) for axis in (self.y, self.x))
            region[box] = binary_fill_holes(region[box])
        return region

    def _corners(self) -> list[tuple[float, float]]:
        if self.kind in _OUTLINES:
            return list(zip(self.x, self.y, strict=True))
        turns = np.linspace(0.0, 2.0 * np.pi, 360, endpoint=False)
        along_x, along_y = self.radii[0] * np.cos(turns), self.radii[1] * np.sin(turns)
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        x, y = self.x[0] + along_x * cosine - along_y * sine, self.y[0] + along_x * sine + along_y * cosine
        return list(zip(x.tolist(), y.tolist(), strict=True))


@dataclass(frozen=True)
class Regions:
    """The regions of one image as a mask.

    Attributes:
        image: the name of the image in the csv.
        source: the csv, for messages.
        shapes: the regions; the mask is their union.
    """

    image: str
    source: Path
    shapes: tuple[Shape, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """None: the shapes are here already, so that a change of another image's row means no new mask."""
        return ()

    @property
    def report_name(self) -> str:
        """How reports name the file."""
        return self.source.name

    def read(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The union of the regions on the grid of the stored image, (H, W).

        Raises:
            ImageFileError: a region has no pixel inside the image.
        """
        mask = np.zeros(shape, dtype=bool)
        for number, one in enumerate(self.shapes, 1):
            region = one.mask(shape)
            if not region.any():
                where = f"x {min(one.x):g} to {max(one.x):g}, y {min(one.y):g} to {max(one.y):g}"
                problem = f"region {number} of {self.image} ({one.kind}, {where}) lies outside its image"
                problem += f" of {shape[1]}x{shape[0]} pixels"
                raise ImageFileError(self.source, problem, "Correct or remove the row; the file may be another image")
            mask |= region
        return mask


@dataclass(frozen=True)
class RegionFile:
    """What a csv of regions holds.

    Attributes:
        shapes: name of an image, stripped and without suffix -> its different regions in the order of the file.
        repeated: the regions of rows left out because their image has exactly the same region already.
        broken: one line for every row that cannot be used, and for every image of which rows are missing.
    """

    shapes: Mapping[str, tuple[Shape, ...]]
    repeated: tuple[Shape, ...]
    broken: tuple[LeftOut, ...]


def read_regions(path: Path) -> RegionFile:
    """Read the csv that VIA exports (``#filename, ..., region_count, region_id, region_shape_attributes, ...``).

    Raises:
        ValueError: not a csv with these columns.
    """
    shapes: defaultdict[str, list[Shape]] = defaultdict(list)
    broken: list[LeftOut] = []
    rows, promised = Counter[str](), dict[str, int]()
    repeated: list[Shape] = []
    for line, row in _rows(path):
        name = _stem(row["filename"])
        try:
            promised[name], shape = _region(row)
        except (ValueError, RecursionError) as error:
            rows[name] += 1
            broken.append(LeftOut(name or "-", path.name, f"line {line}: {error}", _KEEP_OTHERS))
            continue
        if shape is None:
            continue
        rows[name] += 1
        if shape in shapes[name]:
            repeated.append(shape)
        else:
            shapes[name].append(shape)
    broken += [
        LeftOut(name, path.name, f"{rows[name]} rows, but region_count says {count}", "Copy the csv again")
        for name, count in promised.items()
        if rows[name] != count
    ]
    return RegionFile({name: tuple(found) for name, found in shapes.items() if found}, tuple(repeated), tuple(broken))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and cells of every row, by column names without the ``#`` in front of the first."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            reader.fieldnames = [name.strip().lstrip("#") for name in reader.fieldnames or ()]
            missing = [column for column in _COLUMNS if column not in reader.fieldnames]
            if missing:
                found = ", ".join(reader.fieldnames)[:200] or "nothing"
                raise ValueError(f"{path} has no column {', '.join(missing)}; its head is: {found}. {_EXPECTED}")
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise ValueError(f"{path} is not a csv (line {reader.line_num}: {error}). {_EXPECTED}") from error


_EXPECTED = "Expected the csv of hand-drawn regions as downloaded"


def _region(row: Mapping[Any, Any]) -> tuple[int, Shape | None]:
    """How many regions the image of a row has, and the one of this row; None in the row of an image without any."""
    if None in row or None in row.values():
        raise ValueError("the row has not as many cells as the head")
    count, attributes = int(row["region_count"]), json.loads(row["region_shape_attributes"])
    return count, None if count == 0 and not attributes else _shape(attributes)


def _stem(name: str | None) -> str:
    """The name of an image without suffix; blanks may stand before and after the suffix."""
    text = (name or "").strip()
    stem, dot, suffix = text.rpartition(".")
    return stem.strip() if dot and suffix.lower() in ("jpg", "jpeg", "png") else text


def _shape(attributes: Any) -> Shape:
    """One region of the json in a row; ``ValueError`` says what is wrong with it."""
    kind = attributes.get("name") if isinstance(attributes, dict) else None
    if kind in _OUTLINES:
        x, y = (_numbers(attributes, f"all_points_{axis}") for axis in "xy")
        if len(x) != len(y) or len(x) < 3:
            raise ValueError(f"a {kind} of {len(x)} x and {len(y)} y, expected as many of both, and 3 at least")
        return Shape(kind, x, y)
    if kind not in _ROUND:
        raise ValueError(f"a region of kind {kind!r}, expected one of {', '.join((*_OUTLINES, *_ROUND))}")
    keys = {"ellipse": ("rx", "ry"), "circle": ("r", "r"), "point": ()}[kind]
    radii = [_number(attributes.get(key), key) for key in keys] or [POINT_RADIUS, POINT_RADIUS]
    if min(radii) <= 0:
        raise ValueError(f"a {kind} of radius {min(radii):g}, expected more than 0")
    x, y = ((_number(attributes.get(key), key),) for key in ("cx", "cy"))
    angle = _number(attributes.get("theta", 0), "theta") if kind == "ellipse" else 0.0
    return Shape(kind, x, y, (radii[0], radii[1]), angle)


def _numbers(attributes: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = attributes.get(key)
    if type(values) is not list:
        raise ValueError(f"{key} is {str(values)[:40]!r}, expected a list of numbers")
    return tuple(_number(value, key) for value in values)


def _number(value: Any, key: str) -> float:
    if type(value) not in (int, float) or not abs(value) < LARGEST_COORDINATE:  # NaN is not smaller either
        raise ValueError(f"{key} is {str(value)[:40]!r}, expected a number of pixels")
    return float(value)
