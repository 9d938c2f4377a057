"""One view becomes one case: both images and the masks on one grid, as 16-bit PNG files or where they lie."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.files import json_text
from bundle.preflight import MIN_SIDE
from bundle.reader import ImageFileError
from scripts.prepare.datalist import path_in
from scripts.prepare.direction import require_same
from scripts.prepare.facts import cut_lesions, digest, histogram, mask_facts
from scripts.prepare.geometry import (
    Alignment,
    align,
    common_field,
    mask_onto_grid,
    onto_grid,
    silhouette,
    target_shape,
    within,
)
from scripts.prepare.registration import ALIGNED_OVERLAP
from scripts.prepare.sources import report_name
from scripts.prepare.stored import EIGHT_BIT_WINDOW, storing
from scripts.prepare.view import LeftOut, MaskSource, Pixels, View

__all__ = ["FOLDERS", "Case", "RefusedError", "Settings", "converted"]

FOLDERS = {"image": "LE", "label": "DES", "mask": "mask", "label_mask": "label_mask"}
"""Key of a case -> folder of its files."""
_TITLES = {"image": "LE", "label": "DES", "mask": "mask", "label_mask": "mask of the DES"}
_OUTSIDE = "Check that LE and DES show one view and that the mask is that of its image; else leave the view out"
_LONGEST = 300
_UNEXPECTED = "Export the file again; if it is right, report this with its format"


@dataclass(frozen=True)
class Settings:
    """What all cases of a data set share.

    Attributes:
        folder: the dataset folder.
        size: longer side in pixels of the images to be written; None for that of the source.
        in_place: describe the images where they lie, write none.
        min_overlap: smallest overlap of the breasts in LE and DES, 0 to 1.
    """

    folder: Path
    size: int | None = 512
    in_place: bool = False
    min_overlap: float = 0.9


@dataclass
class Case:
    """One finished case: its entry in the datalist, its facts, and the pixels to be written by key of the entry."""

    entry: dict[str, Any]
    facts: dict[str, Any]
    pixels: dict[str, NDArray[Any]] = field(default_factory=dict)


class RefusedError(ValueError):
    """A view that cannot become a case."""

    def __init__(self, left_out: LeftOut) -> None:
        super().__init__(left_out.reason)
        self.left_out = left_out


@dataclass(frozen=True)
class _Image:
    """One decoded image, upright; ``source`` is how it was decoded."""

    values: NDArray[Any]
    source: Pixels


@dataclass(frozen=True)
class _Read:
    """What was decoded of a view, upright, and the seconds that took."""

    images: dict[str, _Image]
    masks: dict[str, NDArray[np.bool_]]
    seconds: float


@dataclass(frozen=True)
class _Grid:
    """LE, DES and masks on one grid, with the windows in the units of these values."""

    values: dict[str, NDArray[Any]]
    masks: dict[str, NDArray[np.bool_]]
    windows: dict[str, list[float] | None]
    breast: NDArray[np.bool_]
    alignment: Alignment
    pixel_mm: float | None
    crop: tuple[int, int] = (0, 0)
    """Columns and rows of the upright LE that were cut off on the left and on top."""


@contextmanager
def _named(view: View, key: str) -> Iterator[None]:
    """Whatever goes wrong with an image or a mask becomes a refusal that names its file as reports may."""
    source = getattr(view, key)
    try:
        yield
    except RefusedError:
        raise
    except ImageFileError as error:
        found, remedy = error.problem, error.remedy
    except Exception as error:  # the decoders raise whatever they like
        found, remedy = f"{type(error).__name__}: {' '.join(str(error).split())}", _UNEXPECTED
    else:
        return
    for path in (getattr(source, "path", None), *getattr(source, "paths", ())):
        found = found if path is None else found.replace(str(path), report_name(source))
    raise RefusedError(LeftOut(view.name, report_name(source), f"{_TITLES[key]}: {found[:_LONGEST]}", remedy))


def converted(view: View, settings: Settings) -> tuple[Case, float]:
    """Bring a view onto one grid; return the case and the seconds that decoding took.

    Raises:
        RefusedError: an image or a mask cannot be used, or the two images show different parts of the breast.
    """
    read = _read(view)
    with _named(view, "label"):
        case = _described(view, read, settings) if settings.in_place else _resampled(view, read, settings)
    return case, read.seconds


def _read(view: View) -> _Read:
    start = time.perf_counter()
    images: dict[str, _Image] = {}
    masks: dict[str, NDArray[np.bool_]] = {}
    for key in ("image", "label"):
        with _named(view, key):
            pixels = getattr(view, key).read()
            _require_usable(getattr(view, key).path, pixels.values)
            images[key] = _Image(_upright(pixels.values, pixels), pixels)
    for key, partner in (("mask", "image"), ("label_mask", "label")):
        if getattr(view, key) is not None:
            with _named(view, key):
                masks[key] = _read_mask(getattr(view, key), images[partner].source, _TITLES[partner])
    seconds = time.perf_counter() - start
    with _named(view, "label"):
        label, image = (images[key].source.direction for key in ("label", "image"))
        require_same(view.label.path, label, image, "its LE image")
        if np.array_equal(images["image"].values, images["label"].values):
            raise ImageFileError(view.label.path, "holds the same pixels as the LE", "Give the subtracted image as DES")
    return _Read(images, _with_lesion(masks), seconds)


def _read_mask(source: MaskSource, image: Pixels, title: str) -> NDArray[np.bool_]:
    height, width = image.values.shape
    mask = np.asarray(source.read((height, width)))
    if mask.shape != image.values.shape:
        raise ValueError(f"a mask of shape {mask.shape} for an image of shape {image.values.shape}")
    if image.direction is not None and source.paths:
        require_same(source.paths[0], getattr(source, "direction", None), image.direction, f"its {title} image")
    return _upright(mask.astype(np.bool_), image)


def _require_usable(path: Path, values: NDArray[Any]) -> None:
    if values.ndim != 2 or min(values.shape) < MIN_SIDE:
        shape = "x".join(str(side) for side in values.shape[::-1])
        raise ImageFileError(path, f"{shape} pixels, expected at least {MIN_SIDE} a side", "Export it again")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageFileError(path, "holds NaN or infinite values", "Replace them (background: 0)")
    if values.min() == values.max():
        raise ImageFileError(path, f"every pixel is {values.min():g}, an empty image", "Export it again")


def _upright(values: NDArray[Any], pixels: Pixels) -> NDArray[Any]:
    rows = slice(None, None, -1 if pixels.upside_down else 1)
    columns = slice(None, None, -1 if pixels.mirrored else 1)
    return np.ascontiguousarray(values[rows, columns])


def _require_overlap(view: View, overlap: float, settings: Settings) -> None:
    if overlap < settings.min_overlap:
        problem = f"the breasts in LE and DES overlap by {overlap:.3f}, expected at least {settings.min_overlap:g}"
        remedy = "Check that both show one view and are framed alike; --min-overlap sets the limit"
        raise ImageFileError(view.label.path, problem, remedy)


def _resampled(view: View, read: _Read, settings: Settings) -> Case:
    """The case with images and masks resampled onto one grid over the field that both images show, to be written."""
    image, label = (read.images[key].values for key in ("image", "label"))
    alignment = align(image, label, view.laterality, 0.0 if view.same_grid else ALIGNED_OVERLAP)
    _require_overlap(view, alignment.overlap_after, settings)
    rows, columns = field = common_field(_shape(image), _shape(label), alignment)
    images, masks, moved = _in_common_field(read, alignment, field)
    shape = _shape(images["image"])
    target = target_shape(shape, settings.size)
    maps = {"image": None, "label": moved, "mask": None, "label_mask": moved}
    ways = {key: storing(one.source.values) for key, one in read.images.items()}
    values = {key: ways[key].values(onto_grid(one, maps[key], shape, target)) for key, one in images.items()}
    masks = {key: mask_onto_grid(mask, maps[key], shape, target) for key, mask in masks.items()}
    lost = _lost(view, read, masks, {"mask": field, "label_mask": within(field, alignment)})
    windows = {key: ways[key].window(one.source.window) for key, one in read.images.items()}
    millimetres = read.images["image"].source.pixel_mm
    pixel_mm = None if millimetres is None else round(millimetres * max(shape) / max(target), 6)
    crop = columns.start, rows.start
    grid = _Grid(values, masks, windows, silhouette(values["image"]), alignment, pixel_mm, crop)
    paths = {key: f"{FOLDERS[key]}/{view.name}.png" for key in (*values, *masks)}
    info: dict[str, Any] = {f"{key}_rescale": back for key, way in ways.items() if (back := way.back()) is not None}
    info |= dict(zip(("crop_left", "crop_top"), crop, strict=True)) if any(crop) else {}
    info |= _notes(view, read, lost)
    return Case(_entry(view, paths, grid, info), _facts(view, read, grid), {**values, **masks})


def _in_common_field(
    read: _Read, alignment: Alignment, field: tuple[slice, slice]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]], Alignment]:
    """Images and masks with the LE cut to the field that the DES shows too, and how the DES lies on what is left."""
    rows, columns = field
    image, label = (read.images[key].values for key in ("image", "label"))
    masks = {key: mask[rows, columns] if key == "mask" else mask for key, mask in read.masks.items()}
    moved = replace(alignment, shift_x=alignment.shift_x - columns.start, shift_y=alignment.shift_y - rows.start)
    return {"image": image[field], "label": label}, masks, moved


def _lost(
    view: View,
    read: _Read,
    masks: Mapping[str, NDArray[np.bool_]],
    fields: Mapping[str, tuple[slice, slice]],
) -> list[str]:
    """What of the lesions lies where only one of the two images shows the breast, in words.

    Raises:
        RefusedError: all that was drawn on an image lies there: the case would count as one without that lesion.
    """
    notes = []
    for key, mask in read.masks.items():
        if mask.any() and not masks[key].any():
            with _named(view, key):
                raise ImageFileError("", "the lesion lies outside what LE and DES both show", _OUTSIDE)
        notes += [f"{_TITLES[key]}: {note}" for note in cut_lesions(mask, fields[key])]
    return notes


def _notes(view: View, read: _Read, more: Sequence[str] = ()) -> dict[str, list[str]]:
    """All that was guessed or lost on the way, as ``notes``: by the importer, while reading, and ``more``."""
    given = view.info.get("notes", [])
    notes = [given] if isinstance(given, str) else list(given)
    notes += [f"{_TITLES[key]}: {note}" for key, one in read.images.items() for note in one.source.notes]
    notes += more
    return {"notes": notes} if notes else {}


def _with_lesion(masks: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    """The masks if there is a lesion pixel, else none: a datalist says that by naming no mask."""
    return masks if any(mask.any() for mask in masks.values()) else {}


def _shape(values: NDArray[Any]) -> tuple[int, int]:
    height, width = values.shape
    return height, width


def _described(view: View, read: _Read, settings: Settings) -> Case:
    """The case with images and masks as they lie in their files."""
    image, label = (read.images[key] for key in ("image", "label"))
    if image.values.shape != label.values.shape:
        sizes = " and ".join("x".join(str(side) for side in one.values.shape[::-1]) for one in (image, label))
        remedy = "Give --size (such as 512 or native): both are then brought onto one grid"
        raise ImageFileError(view.label.path, f"LE and DES of different sizes: {sizes} pixels", remedy)
    if any(one.source.mirrored or one.source.upside_down for one in read.images.values()):
        raise ImageFileError(view.label.path, "LE or DES is not upright", "Give --size: upright images are written")
    breasts = [silhouette(one.values) for one in (image, label)]
    union = int((breasts[0] | breasts[1]).sum())
    overlap = float((breasts[0] & breasts[1]).sum() / union) if union else 0.0
    _require_overlap(view, overlap, settings)
    values = {key: one.values for key, one in read.images.items()}
    windows = {key: _window_in_place(one.source) for key, one in read.images.items()}
    alignment = Alignment(1.0, 0.0, 0.0, overlap, overlap, registered=False)
    grid = _Grid(values, read.masks, windows, breasts[0], alignment, image.source.pixel_mm)
    entry = _entry(view, _paths_in_place(view, read, settings.folder), grid, _notes(view, read))
    return Case(entry, _facts(view, read, grid))


def _window_in_place(source: Pixels) -> list[float] | None:
    if source.window is None:
        return list(EIGHT_BIT_WINDOW) if source.values.dtype == np.uint8 else None
    return list(source.window)


def _paths_in_place(view: View, read: _Read, folder: Path) -> dict[str, str]:
    paths = {"image": view.image.path, "label": view.label.path}
    for key in read.masks:
        files = getattr(view, key).paths
        if len(files) != 1:
            raise ImageFileError(view.label.path, f"its mask is not one file but {len(files)}", "Give --size")
        paths[key] = files[0]
    return {key: path_in(folder, path) for key, path in paths.items()}


def _entry(view: View, paths: Mapping[str, str], grid: _Grid, info: Mapping[str, Any]) -> dict[str, Any]:
    """The case in the datalist, but for the fold."""
    entry: dict[str, Any] = {**paths, "patient_id": view.patient_id, "laterality": view.laterality, "view": view.view}
    entry |= {f"{key}_window": window for key, window in grid.windows.items() if window is not None}
    info = {**view.info, **({} if grid.pixel_mm is None else {"pixel_mm": grid.pixel_mm}), **info}
    if info:
        entry["info"] = json.loads(json_text(json.loads(json.dumps(info, default=_plain))))
    return entry


def _plain(value: Any) -> Any:
    """What JSON knows in place of what pandas, openpyxl and pydicom give."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def _facts(view: View, read: _Read, grid: _Grid) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": view.name, "patient_id": view.patient_id}
    facts |= {"laterality": view.laterality, "view": view.view}
    facts |= {key: str(view.info.get(key, "")) for key in ("label", "density", "vendor")}
    for key, one in read.images.items():
        facts[f"{key}_width"], facts[f"{key}_height"] = one.values.shape[::-1]
    facts["width"], facts["height"] = grid.values["image"].shape[::-1]
    facts["pixel_mm"] = grid.pixel_mm
    facts |= _alignment_facts(grid.alignment)
    facts["crop_left"], facts["crop_top"] = grid.crop
    for key in ("mask", "label_mask"):
        facts |= mask_facts(key, grid.masks.get(key), grid.breast)
    facts |= {f"{key}_window": window for key, window in grid.windows.items()}
    facts |= {f"{key}_histogram": histogram(grid.values[key], grid.breast, grid.windows[key]) for key in grid.values}
    return facts | {f"{key}_digest": digest(one.values) for key, one in read.images.items()}


def _alignment_facts(alignment: Alignment) -> dict[str, Any]:
    numbers = ("scale", "shift_x", "shift_y", "overlap_before", "overlap_after")
    digits = {"scale": 5, "shift_x": 2, "shift_y": 2}
    rounded = {key: round(float(getattr(alignment, key)), digits.get(key, 4)) for key in numbers}
    return {"registered": bool(alignment.registered), **rounded}
