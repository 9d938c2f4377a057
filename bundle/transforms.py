"""Transforms MONAI lacks: mammogram intensity scaling, the square fit, optional masks, one shared augmentation."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.transform import MapTransform, Randomizable
from monai.utils.enums import TraceKeys
from torch import Tensor
from torch.nn import functional

__all__ = ["EnsureMasksd", "FitSquared", "RandSharedAffined", "ScaleMammogramd", "chest_wall_side"]

Keys = str | Sequence[str]
Item = dict[Hashable, Any]

#: What the generator takes: it halves the image twice, and its normalisation needs some pixels left.
_SIZE_STEP, _MIN_SIZE = 4, 16


def _one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}. Correct it in the config.")


def _modes(keys: Sequence[Hashable], mode: str | Sequence[str]) -> tuple[str, ...]:
    modes: tuple[str, ...] = tuple(mode) if not isinstance(mode, str) else (mode,) * len(keys)
    if len(modes) != len(keys):
        raise ValueError(f"{len(modes)} modes for {len(keys)} keys. Give one mode, or one for each key.")
    for one in modes:
        _one_of("mode", one, ("bilinear", "nearest"))
    return modes


def _with_pixels(source: Any, pixels: Tensor) -> Any:
    """``pixels`` as the kind of tensor ``source`` is, with a copy of its metadata and its record of transforms."""
    if isinstance(source, MetaTensor):
        return MetaTensor(pixels, meta=dict(source.meta), applied_operations=list(source.applied_operations))
    return pixels


def _plain(value: Any) -> Tensor:
    return value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)


def _window_limits(window: Sequence[float], name: str) -> tuple[float, float]:
    """Lowest and highest pixel value of a window (centre, width)."""
    values = [float(value) for value in window]
    if len(values) != 2 or not all(map(math.isfinite, values)) or values[1] <= 0:
        raise ValueError(f"{name} is {window}, expected [centre, width > 0]. Correct it in the datalist or config.")
    return values[0] - values[1] / 2, values[0] + values[1] / 2


class ScaleMammogramd(MapTransform):
    """Scale stored pixel values ``v`` to [0, 1], float32.

    With a window of centre ``c`` and width ``w`` (stored pixel values), which is ``data[f"{key}_window"]`` where the
    item has one and else ``window``:

    - ``minmax``: ``v`` is clipped to ``[c - w/2, c + w/2]``, then ``(v - min v) / (max v - min v)`` per image. Without
      a window nothing is clipped. The relation between grey value and iodine differs from image to image.
    - ``window``: ``clip((v - (c - w/2)) / w, 0, 1)``: equal iodine is equally bright in all images of one window.
      Without a window this is ``minmax``, which the data check reports.

    A constant image gives zeros under ``minmax``. Shapes: any, kept.

    Args:
        keys: images to scale; a missing key is an error unless ``allow_missing_keys``.
        scaling: ``"minmax"`` or ``"window"``.
        window: (c, w) of the items that have no window of their own; None: they have none.
        allow_missing_keys: pass over keys the item lacks.

    Raises:
        ValueError: unknown ``scaling``, or a window that is not two finite numbers with a positive width.
    """

    def __init__(
        self,
        keys: Keys,
        scaling: Literal["minmax", "window"] = "minmax",
        window: Sequence[float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        _one_of("scaling", scaling, ("minmax", "window"))
        self.scaling = scaling
        self.limits = None if window is None else _window_limits(window, "window")

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` in [0, 1]."""
        item = dict(data)
        for key in self.key_iterator(item):
            pixels = _plain(item[key]).to(torch.float32)
            own = item.get(f"{key}_window")
            limits = self.limits if own is None else _window_limits(own, f"{key}_window")
            item[key] = _with_pixels(item[key], self._scaled(pixels, limits))
        return item

    def _scaled(self, pixels: Tensor, limits: tuple[float, float] | None) -> Tensor:
        if limits is not None:
            pixels = pixels.clamp(*limits)
        if limits is None or self.scaling == "minmax":
            low, high = torch.aminmax(pixels) if pixels.numel() else (pixels, pixels)
            limits = low.item(), high.item()
        if limits[1] <= limits[0]:
            return torch.zeros_like(pixels)
        return (pixels - limits[0]) / (limits[1] - limits[0])


def chest_wall_side(image: Tensor, laterality: str | None = None) -> Literal["left", "right"]:
    """The edge of the picture at which the chest wall lies.

    By convention a left breast (``L``) has it at the left edge and a right breast (``R``) at the right one. Without a
    laterality it is the side of the picture's grey-value centroid: the breast is thick and bright at the chest wall.

    Args:
        image: (..., W, H), background darkest.
        laterality: ``L``, ``R``, or anything else for unknown.
    """
    if laterality in ("L", "R"):
        return "left" if laterality == "L" else "right"
    columns = (image - image.amin()).double().flatten(0, -3).sum(dim=(0, 2))
    position = torch.arange(len(columns), dtype=torch.float64, device=columns.device) - (len(columns) - 1) / 2
    return "right" if float((columns * position).sum()) > 0 else "left"


def _square_padding(width: int, height: int, side: str) -> tuple[int, int]:
    """Zeros to add at the left and at the top of (width, height) so that padding to a square is away from ``side``."""
    size = max(width, height)
    return (size - width if side == "right" else 0), (size - height) // 2


def _resize(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """(C, W, H) -> (C, *size). Pixel centres are kept; ``bilinear`` averages when it shrinks."""
    if tuple(pixels.shape[1:]) == size:
        return pixels
    kwargs: dict[str, Any] = {"antialias": True, "align_corners": False} if mode == "bilinear" else {}
    method = "bilinear" if mode == "bilinear" else "nearest-exact"
    return functional.interpolate(pixels[None], size=size, mode=method, **kwargs)[0]


class FitSquared(MapTransform, InvertibleTransform):
    """Pad an image with zeros to a square, away from the chest wall, and resize it to ``spatial_size`` pixels a side.

    A tall image of a right breast gets its zeros at the left, of a left breast at the right (see ``chest_wall_side``;
    the side comes from ``data["laterality"]``, else from the pixels of the first key). A wide image gets them half
    above and half below. Then (1, n, n) becomes (1, S, S): bilinear with anti-aliasing, or nearest for masks.

    The inverse (``monai.transforms.Invertd(keys="pred", orig_keys="image", nearest_interp=False)``) resizes back to
    n and cuts the padding off: the prediction has the shape and the affine of the source image.

    Args:
        keys: images of one item, (1, W, H) each; ``MetaTensor`` where the inverse is needed. The first one decides
            the side when there is no laterality. Sizes may differ between keys; the side never does.
        spatial_size: S, in pixels: a multiple of 4, at least 16, since the generator halves the image twice.
        mode: ``"bilinear"`` or ``"nearest"``, one or one per key.
        allow_missing_keys: pass over keys the item lacks.

    Raises:
        ValueError: bad ``mode`` or ``spatial_size``, or an image that is not (1, W, H).
    """

    def __init__(
        self,
        keys: Keys,
        spatial_size: int,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mode = _modes(self.keys, mode)
        if not isinstance(spatial_size, int) or spatial_size < _MIN_SIZE or spatial_size % _SIZE_STEP:
            raise ValueError(
                f"spatial_size is {spatial_size!r}, expected a multiple of {_SIZE_STEP} that is at least {_MIN_SIZE}, "
                "because the generator halves the image twice. Correct image_size in the config."
            )
        self.spatial_size = spatial_size

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` fitted to (1, S, S)."""
        item = dict(data)
        side: str | None = None
        for key, mode in self.key_iterator(item, self.mode):
            image = item[key]
            if image.ndim != 3 or image.numel() == 0:
                raise ValueError(f"{key} has shape {tuple(image.shape)}, expected (1, W, H). Load it channel first.")
            side = side or chest_wall_side(_plain(image), item.get("laterality"))
            item[key] = self._fit(image, mode, side)
        return item

    def _fit(self, image: Tensor, mode: str, side: str) -> Tensor:
        width, height = image.shape[1:]
        size = max(width, height)
        left, top = _square_padding(width, height, side)
        padded = functional.pad(_plain(image).to(torch.float32), (top, size - height - top, left, size - width - left))
        fitted: Tensor = _with_pixels(image, _resize(padded, (self.spatial_size,) * 2, mode))
        if isinstance(fitted, MetaTensor):
            extra = {"mode": mode, "left": left, "top": top, "affine": fitted.affine.tolist()}
            grid = self._grid(size, left, top)
            self.push_transform(fitted, orig_size=(width, height), affine=grid, extra_info=extra)  # type: ignore[no-untyped-call]
        return fitted

    def _grid(self, size: int, left: int, top: int) -> Tensor:
        """The (3, 3) matrix from pixel positions of the fitted image to those of the source."""
        step = size / self.spatial_size
        grid = torch.diag(torch.tensor([step, step, 1.0], dtype=torch.float64))
        grid[0, 2], grid[1, 2] = (step - 1) / 2 - left, (step - 1) / 2 - top
        return grid

    def inverse(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` back on their source grids."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._unfit(item[key])
        return item

    def _unfit(self, fitted: MetaTensor) -> MetaTensor:
        image: MetaTensor = _with_pixels(fitted, _plain(fitted).to(torch.float32))
        applied = self.pop_transform(image)
        extra, (width, height) = applied[TraceKeys.EXTRA_INFO], (int(n) for n in applied[TraceKeys.ORIG_SIZE])
        left, top, size = int(extra["left"]), int(extra["top"]), max(width, height)
        square = _resize(_plain(image), (size, size), extra["mode"])
        source: MetaTensor = _with_pixels(image, square[:, left : left + width, top : top + height].contiguous())
        source.affine = torch.as_tensor(extra["affine"], dtype=torch.float64)
        return source


class EnsureMasksd(MapTransform):
    """Give every item a lesion mask for each of its images, {0, 1} float32.

    The first key is the mask drawn on the LE image, the second the one drawn on the DES image. A case with one of
    them uses it for both; a case with none gets zeros of the shape of ``data[like]``. Values > 0 count as lesion.

    Args:
        keys: the two mask keys.
        like: the image whose shape an absent mask takes.
    """

    def __init__(self, keys: Keys = ("mask", "label_mask"), like: str = "image") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.like = like

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with all mask keys present."""
        item = dict(data)
        given = {key: item[key] for key in self.keys if item.get(key) is not None}
        image = item[self.like]  # zeros carry its metadata: masks of one batch must all be of one kind
        spare = next(iter(given.values())) if given else _with_pixels(image, torch.zeros_like(_plain(image)))
        for key in self.keys:
            source = given.get(key, spare)
            item[key] = _with_pixels(source, (_plain(source) > 0).to(torch.float32))
        return item


class RandSharedAffined(Randomizable, MapTransform):
    """Random rotation, shift, zoom and flip, drawn once and applied alike to all images and masks of an item.

    Each of the four is drawn by itself with probability ``prob``; together they form one affine map, so the pixels
    are interpolated once. What comes from outside the picture is 0. An item for which nothing is drawn is returned
    as it is. ``laterality`` is left alone: it names the breast, not the side of the augmented picture.

    The map from output to input positions, with both axes in [-1, 1] around the picture's middle, is
    ``p_in = F R(angle) p_out / zoom - t``: content is first shifted by ``t``, then zoomed, rotated and flipped.

    Args:
        keys: the images, (1, S, S) each and all of one shape.
        mode: ``"bilinear"`` or ``"nearest"``, one or one per key (masks: nearest).
        prob: probability of each of rotation, shift, zoom and flip.
        rotate: largest angle, in degrees, drawn uniformly from both signs.
        shift: largest shift along each axis, as a share of the picture's side.
        zoom: the zoom factor is drawn uniformly from ``[1 - zoom, 1 + zoom]``.
        flip: whether pictures may be mirrored left to right.

    Raises:
        ValueError: a parameter out of its range, or images of different shapes in one item.

    Source of the ranges: the CycleGAN code of Rofena et al. (github.com/cosbidev/VCE_CESM).
    """

    def __init__(
        self,
        keys: Keys,
        mode: str | Sequence[str] = "bilinear",
        prob: float = 0.3,
        rotate: float = 15.0,
        shift: float = 0.1,
        zoom: float = 0.1,
        flip: bool = True,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.mode = _modes(self.keys, mode)
        for name, value, limit in (
            ("prob", prob, 1),
            ("rotate", rotate, 180),
            ("shift", shift, 1),
            ("zoom", zoom, 0.9),
        ):
            if not 0 <= value <= limit:
                raise ValueError(f"{name} is {value}, expected a number from 0 to {limit}. Correct it in the config.")
        self.prob, self.rotate, self.shift, self.zoom, self.flip = prob, rotate, shift, zoom, flip

    def randomize(self, data: Any = None) -> None:
        """Draw one map: ``theta``, the (2, 3) matrix above in (x, y) order, or None where nothing was drawn.

        As many numbers are drawn whatever comes out, so one component's probability leaves the others' values alone.
        """
        self.theta: Tensor | None = None
        chosen = self.R.uniform(size=4) < self.prob
        angle, shift_x, shift_y, zoom = self.R.uniform(-1.0, 1.0, size=4)
        if not (chosen[:3].any() or (chosen[3] and self.flip)):
            return
        angle = math.radians(self.rotate * angle) if chosen[0] else 0.0
        shift = 2 * self.shift * np.array([shift_x, shift_y]) * chosen[1]
        factor = 1 + self.zoom * zoom if chosen[2] else 1.0
        mirror = -1.0 if chosen[3] and self.flip else 1.0
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        self.theta = torch.tensor([[mirror * cos, -mirror * sin, -shift[0]], [sin, cos, -shift[1]]]).float()

    def __call__(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` moved by one random map."""
        item = dict(data)
        self.randomize()
        if self.theta is None:
            return item
        shapes = {tuple(item[key].shape) for key in self.key_iterator(item)}
        if len(shapes) != 1:
            raise ValueError(f"images of shapes {sorted(shapes)} in one item, expected one shape. Fit them first.")
        grid = self._grid(self.theta, *shapes.pop()[-2:])
        for mode in dict.fromkeys(self.mode):
            keys = [key for key, one in self.key_iterator(item, self.mode) if one == mode]
            images = torch.cat([_plain(item[key]).to(torch.float32) for key in keys])  # (K, W, H)
            if mode == "bilinear" or images.any():  # a case without a lesion has nothing to move
                images = functional.grid_sample(images[None], grid.to(images.device), mode=mode, align_corners=False)[0]
            for key, pixels in zip(keys, images.tensor_split(len(keys)), strict=True):
                item[key] = _with_pixels(item[key], pixels)
        return item

    @staticmethod
    def _grid(theta: Tensor, width: int, height: int) -> Tensor:
        """Sampling positions (1, W, H, 2). Torch calls the last axis x, here it is y, hence the exchange of axes."""
        return functional.affine_grid(theta.flip(0)[:, [1, 0, 2]][None], [1, 1, width, height], align_corners=False)
