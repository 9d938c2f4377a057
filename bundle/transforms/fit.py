"""An image on the grid of the network, and a prediction back on the grid of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.transform import MapTransform
from monai.utils.enums import TraceKeys
from torch import Tensor
from torch.nn import functional

from bundle.transforms.items import Item, Keys, modes, plain, with_pixels

__all__ = ["FitSquared", "chest_wall_side", "resized"]

#: What the generator takes: it halves the image twice, and its normalisation needs some pixels left.
_SIZE_STEP, _MIN_SIZE = 4, 16


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


def _padding(size: tuple[int, int], padded: tuple[int, int], side: str) -> tuple[int, int]:
    """Zeros to add at the left and at the top, so that padding is away from ``side`` and half above, half below."""
    return (padded[0] - size[0] if side == "right" else 0), (padded[1] - size[1]) // 2


def resized(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """(C, W, H) -> (C, *size). Pixel centres are kept; ``bilinear`` averages when it shrinks, else ``nearest``."""
    if tuple(pixels.shape[1:]) == size:
        return pixels
    kwargs: dict[str, Any] = {"antialias": True, "align_corners": False} if mode == "bilinear" else {}
    method = "bilinear" if mode == "bilinear" else "nearest-exact"
    return functional.interpolate(pixels[None], size=size, mode=method, **kwargs)[0]


def _padded_size(width: int, height: int, spatial_size: int | Literal["native"]) -> tuple[int, int]:
    """A square, or for ``native`` the next size that the generator takes."""
    if spatial_size != "native":
        return max(width, height), max(width, height)
    return _next_size(width), _next_size(height)


def _next_size(length: int) -> int:
    return max(_MIN_SIZE, -(-length // _SIZE_STEP) * _SIZE_STEP)


class FitSquared(MapTransform, InvertibleTransform):
    """Pad an image with zeros to a square, away from the chest wall, and resize it to ``spatial_size`` pixels a side.

    A tall image of a right breast gets its zeros at the left, of a left breast at the right (see ``chest_wall_side``;
    the side comes from ``data["laterality"]``, else from the pixels of the first key). A wide image gets them half
    above and half below. Then (1, n, n) becomes (1, S, S): bilinear with anti-aliasing, or nearest for masks.
    ``"native"`` resizes nothing: (1, W, H) is padded, on the same sides, to the next multiples of 4.

    The inverse (``monai.transforms.Invertd(keys="pred", orig_keys="image", nearest_interp=False)``) resizes back and
    cuts the padding off: the prediction has the shape and the affine of the source image.

    Args:
        keys: images of one item, (1, W, H) each; ``MetaTensor`` where the inverse is needed. The first one decides
            the side when there is no laterality. Sizes may differ between keys; the side never does.
        spatial_size: S, in pixels: a multiple of 4, at least 16, since the generator halves the image twice; or
            ``"native"``, which gives images of one batch one size only if the sources have.
        mode: ``"bilinear"`` or ``"nearest"``, one or one per key.
        allow_missing_keys: pass over keys the item lacks.

    Raises:
        ValueError: bad ``mode`` or ``spatial_size``, or an image that is not (1, W, H).
    """

    def __init__(
        self,
        keys: Keys,
        spatial_size: int | Literal["native"],
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mode = modes(self.keys, mode)
        whole = isinstance(spatial_size, int) and spatial_size >= _MIN_SIZE and spatial_size % _SIZE_STEP == 0
        if not whole and spatial_size != "native":
            raise ValueError(
                f"spatial_size is {spatial_size!r}, expected 'native' or a multiple of {_SIZE_STEP} that is at least "
                f"{_MIN_SIZE}, because the generator halves the image twice. Correct image_size in the config."
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
            side = side or chest_wall_side(plain(image), item.get("laterality"))
            item[key] = self._fit(image, mode, side)
        return item

    def _fit(self, image: Tensor, mode: str, side: str) -> Tensor:
        width, height = image.shape[1:]
        padded_size = _padded_size(width, height, self.spatial_size)
        left, top = _padding((width, height), padded_size, side)
        right, bottom = padded_size[0] - width - left, padded_size[1] - height - top
        padded = functional.pad(plain(image).to(torch.float32), (top, bottom, left, right))
        size = padded_size if self.spatial_size == "native" else (self.spatial_size, self.spatial_size)
        fitted: Tensor = with_pixels(image, resized(padded, size, mode))
        if isinstance(fitted, MetaTensor):
            extra = {"mode": mode, "left": left, "top": top, "padded": padded_size, "affine": fitted.affine.tolist()}
            grid = _grid(padded_size, size, (left, top))
            self.push_transform(fitted, orig_size=(width, height), affine=grid, extra_info=extra)  # type: ignore[no-untyped-call]
        return fitted

    def inverse(self, data: Mapping[Any, Any]) -> Item:
        """A copy of the item ``data`` with its ``keys`` back on their source grids."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._unfit(item[key])
        return item

    def _unfit(self, fitted: MetaTensor) -> MetaTensor:
        image: MetaTensor = with_pixels(fitted, plain(fitted).to(torch.float32))
        applied = self.pop_transform(image)
        extra, (width, height) = applied[TraceKeys.EXTRA_INFO], (int(n) for n in applied[TraceKeys.ORIG_SIZE])
        left, top, size = int(extra["left"]), int(extra["top"]), tuple(int(n) for n in extra["padded"])
        padded = resized(plain(image), (size[0], size[1]), extra["mode"])
        source: MetaTensor = with_pixels(image, padded[:, left : left + width, top : top + height].contiguous())
        source.affine = torch.as_tensor(extra["affine"], dtype=torch.float64)
        return source


def _grid(padded: tuple[int, int], fitted: tuple[int, int], before: tuple[int, int]) -> Tensor:
    """The (3, 3) matrix from pixel positions of the fitted image to those of the source."""
    grid = torch.eye(3, dtype=torch.float64)
    for axis in range(2):
        step = padded[axis] / fitted[axis]
        grid[axis, axis], grid[axis, 2] = step, (step - 1) / 2 - before[axis]
    return grid
