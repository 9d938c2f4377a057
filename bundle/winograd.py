"""3x3 convolutions on the CPU with a quarter of the multiplications: Winograd's F(4x4, 3x3) as matrix products.

An image is cut into tiles of 6x6 pixels, 4 apart. A linear map (``B^T d B``) takes each tile, and another one
(``G w G^T``) each kernel, to 36 numbers, whose products are those of 4x4 pixels of the result in other coordinates
(``A^T m A`` leads back): 36 multiplications instead of 144. All three maps are applied to whole rows of tiles, one axis
after the other, so that what is left is one batched matrix product over the channels. The gradients are the adjoint
maps. In 32 bits the rounding error is about three times that of the direct sum.

Tensors are ``(W, H, C)`` per image, in channels-last memory; W and H are what a picture calls height and width.

Source: Lavin and Gray 2016 (arXiv 1509.09308), section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "winograd",
    "winograd_grad_input",
    "winograd_grad_weight",
    "winograd_gradient",
    "winograd_transformed",
]

TILE, REACH = 4, 6
"""Pixels of the result that one tile gives, and of the image that it takes, along one axis."""
CACHED_NUMBERS = 1 << 17
"""Numbers in each of the slices on which the maps work: they stay in a core's cache."""

Slices = Sequence[Tensor]


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve ``x``, ``(B, C, W + 2, H + 2)``, with ``weight``, ``(D, C, 3, 3)``: ``(B, D, W, H)``, channels last."""
    width, height = x.shape[2] - 2, x.shape[3] - 2
    products = torch.bmm(winograd_transformed(x), _of_weight(weight).transpose(1, 2))
    if bias is not None:
        products[REACH + 1] += bias  # A^T takes this coordinate to every pixel of the tile, with the factor 1
    pixels = _to_pixels(products, x.shape[0], _tiles(width), _tiles(height))
    return pixels[:, :width, :height].permute(0, 3, 1, 2)


def winograd_transformed(x: Tensor) -> Tensor:
    """The tiles of ``x``, ``(B, C, W + 2, H + 2)``, in Winograd's coordinates: ``(36, tiles, C)``."""
    image = x.permute(0, 2, 3, 1)
    count, (rows, columns) = len(image), (_tiles(n - 2) for n in image.shape[1:3])
    beyond = [n * TILE + 2 - size for n, size in zip((rows, columns), image.shape[1:3], strict=True)]
    if any(beyond):
        image = functional.pad(image, (0, 0, 0, beyond[1], 0, beyond[0]))
    channels = image.shape[3]
    tiles = image.new_empty(REACH, REACH, count, rows, columns, channels)
    for one, first, last in _pieces(count, rows, columns * TILE * channels):
        strip = image[one, first * TILE : last * TILE + 2]
        half = strip.new_empty(REACH, last - first, *strip.shape[1:])
        _b_transposed([strip[i : i + (last - first) * TILE - 3 : TILE] for i in range(REACH)], half)
        _b_transposed(
            [half[:, :, i : i + columns * TILE - 3 : TILE] for i in range(REACH)], tiles[:, :, one, first:last]
        )
    return tiles.view(REACH * REACH, count * rows * columns, channels)


def winograd_gradient(gradient: Tensor) -> Tensor:
    """The adjoint of the map back to pixels: ``(B, D, W, H)`` to ``(36, tiles, D)``."""
    image = gradient.permute(0, 2, 3, 1)
    count, (rows, columns) = len(image), (_tiles(n) for n in image.shape[1:3])
    beyond = [n * TILE - size for n, size in zip((rows, columns), image.shape[1:3], strict=True)]
    if any(beyond):
        image = functional.pad(image, (0, 0, 0, beyond[1], 0, beyond[0]))
    channels = image.shape[3]
    blocks = image.unflatten(2, (columns, TILE)).unflatten(1, (rows, TILE))
    tiles = image.new_empty(REACH, REACH, count, rows, columns, channels)
    for one, first, last in _pieces(count, rows, columns * TILE * channels):
        strip = blocks[one, first:last]
        half = strip.new_empty(REACH, last - first, columns, TILE, channels)
        _a([strip[:, i] for i in range(TILE)], half)
        _a([half[:, :, :, i] for i in range(TILE)], tiles[:, :, one, first:last])
    return tiles.view(REACH * REACH, count * rows * columns, channels)


def winograd_grad_input(tiles: Tensor, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """The gradient of the convolution's input, of ``shape`` ``(B, C, W + 2, H + 2)``.

    Args:
        tiles: :func:`winograd_gradient` of the gradient of its result.
        weight: its kernel.
        shape: of its input.
    """
    count, _, width, height = shape
    products = torch.bmm(tiles, _of_weight(weight))
    pixels = _from_tiles(products, count, _tiles(width - 2), _tiles(height - 2))
    return pixels[:, :width, :height].permute(0, 3, 1, 2)


def winograd_grad_weight(tiles: Tensor, transformed: Tensor) -> Tensor:
    """The gradient of the kernel, ``(D, C, 3, 3)``.

    Args:
        tiles: :func:`winograd_gradient` of the gradient of the convolution's result.
        transformed: :func:`winograd_transformed` of its input.
    """
    products = torch.bmm(tiles.transpose(1, 2), transformed)
    coordinates = products.view(REACH, REACH, *products.shape[1:])
    return _g_adjoint(_g_adjoint(coordinates).transpose(0, 1)).permute(2, 3, 0, 1)


def _tiles(size: int) -> int:
    return -(-size // TILE)


def _pieces(count: int, rows: int, numbers: int) -> list[tuple[int, int, int]]:
    """Image, first and last row of tiles of each piece; ``numbers`` are those of one row of tiles in a slice."""
    step = max(1, CACHED_NUMBERS // numbers)
    return [(one, first, min(first + step, rows)) for one in range(count) for first in range(0, rows, step)]


def _of_weight(weight: Tensor) -> Tensor:
    """``(D, C, 3, 3)`` to ``(36, D, C)``."""
    half = weight.new_empty(REACH, 3, *weight.shape[:2])
    _g([weight[:, :, i].permute(2, 0, 1) for i in range(3)], half)
    coordinates = weight.new_empty(REACH, REACH, *weight.shape[:2])
    _g([half[:, i] for i in range(3)], coordinates)
    return coordinates.view(REACH * REACH, *weight.shape[:2])


def _to_pixels(products: Tensor, count: int, rows: int, columns: int) -> Tensor:
    channels = products.shape[2]
    tiles = products.view(REACH, REACH, count, rows, columns, channels)
    pixels = products.new_empty(count, rows, TILE, columns, TILE, channels)
    for one, first, last in _pieces(count, rows, columns * TILE * channels):
        half = products.new_empty(TILE, REACH, last - first, columns, channels)
        _a_transposed([tiles[i, :, one, first:last] for i in range(REACH)], half)
        strip = pixels[one, first:last]
        _a_transposed([half[:, i].permute(1, 2, 0, 3) for i in range(REACH)], [strip[:, i] for i in range(TILE)])
    return pixels.view(count, rows * TILE, columns * TILE, channels)


def _from_tiles(products: Tensor, count: int, rows: int, columns: int) -> Tensor:
    """Add up the overlapping tiles of an image's gradient."""
    channels = products.shape[2]
    tiles = products.view(REACH, REACH, count, rows, columns, channels)
    image = products.new_empty(count, rows * TILE + 2, columns * TILE + 2, channels)
    for one in range(count):
        carried: list[Tensor] = []
        for _, first, last in _pieces(1, rows, columns * TILE * channels):
            half = products.new_empty(REACH, last - first, columns * TILE + 2, channels)
            _b([tiles[i, :, one, first:last] for i in range(REACH)], half, axis=2, carried=[])
            strip = image[one, first * TILE : last * TILE + 2]
            carried = _b([half[i] for i in range(REACH)], strip, axis=0, carried=carried)
    return image


def _b_transposed(d: Slices, out: Slices | Tensor) -> None:
    """``B^T``: 6 pixels to 6 coordinates."""
    a, b = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    torch.add(a, b, out=out[1])
    torch.sub(a, b, out=out[2])
    torch.sub(d[4], d[2], out=a)
    torch.sub(d[3], d[1], out=b)
    torch.add(a, b, alpha=2, out=out[3])
    torch.sub(a, b, alpha=2, out=out[4])
    torch.sub(d[4], d[2], alpha=5, out=a)
    torch.add(a, d[0], alpha=4, out=out[0])
    torch.sub(d[5], d[3], alpha=5, out=a)
    torch.add(a, d[1], alpha=4, out=out[5])


def _b(v: Slices, out: Tensor, axis: int, carried: Slices) -> list[Tensor]:
    """``B``: 6 coordinates to 6 pixels, of which the last two are added to the next tile's first two.

    Args:
        v: the coordinates, with the tiles along ``axis``.
        out: the pixels, 4 a tile and 2 at the end along ``axis``.
        axis: of the tiles and pixels.
        carried: the last two pixels of the tile before the first.

    Returns:
        The last two pixels.
    """
    count = v[0].shape[axis]
    body = out.narrow(axis, 0, count * TILE).unflatten(axis, (count, TILE))
    pixels = [body.select(axis + 1, i) for i in range(TILE)]
    p, q, r, s = v[1] + v[2], v[1] - v[2], v[3] + v[4], v[3] - v[4]
    fourth, fifth = (p + r).add_(v[0]), v[5]
    torch.mul(v[0], 4, out=pixels[0])
    torch.mul(torch.sub(v[5], q).mul_(2).sub_(s), 2, out=pixels[1])
    torch.sub(torch.add(r, p, alpha=4).neg_(), v[0], alpha=5, out=pixels[2])
    torch.sub(q.add_(s, alpha=2), v[5], alpha=5, out=pixels[3])
    for pixel, before, over in zip(pixels, carried or (None, None), (fourth, fifth), strict=False):
        pixel.narrow(axis, 1, count - 1).add_(over.narrow(axis, 0, count - 1))
        if before is not None:
            pixel.narrow(axis, 0, 1).add_(before)
    last = [over.narrow(axis, count - 1, 1) for over in (fourth, fifth)]
    for i, pixel in enumerate(last):
        out.narrow(axis, count * TILE + i, 1).copy_(pixel)
    return last


def _a_transposed(m: Slices, out: Slices | Tensor) -> None:
    """``A^T``: 6 coordinates to 4 pixels."""
    p, q, r, s = m[1] + m[2], m[3] + m[4], m[1] - m[2], m[3] - m[4]
    torch.add(r, s, alpha=2, out=out[1])
    torch.add(p, q, alpha=4, out=out[2])
    torch.add(r.add_(s, alpha=8), m[5], out=out[3])
    torch.add(p.add_(q), m[0], out=out[0])


def _a(g: Slices, out: Slices | Tensor) -> None:
    """``A``: 4 pixels to 6 coordinates."""
    out[0].copy_(g[0])
    out[5].copy_(g[3])
    p, q = g[0] + g[2], g[1] + g[3]
    torch.add(p, q, out=out[1])
    torch.sub(p, q, out=out[2])
    torch.add(g[0], g[2], alpha=4, out=p)
    torch.add(g[1], g[3], alpha=4, out=q)
    torch.add(p, q, alpha=2, out=out[3])
    torch.sub(p, q, alpha=2, out=out[4])


def _g(w: Slices, out: Tensor) -> None:
    """``G``: 3 numbers of a kernel to 6 coordinates."""
    torch.mul(w[0], 1 / 4, out=out[0])
    out[5].copy_(w[2])
    both = w[0] + w[2]
    torch.add(both, w[1], out=out[1]).mul_(-1 / 6)
    torch.sub(both, w[1], out=out[2]).mul_(-1 / 6)
    torch.add(w[0], w[2], alpha=4, out=both)
    torch.add(both, w[1], alpha=2, out=out[3]).mul_(1 / 24)
    torch.sub(both, w[1], alpha=2, out=out[4]).mul_(1 / 24)


def _g_adjoint(u: Tensor) -> Tensor:
    """``G^T``: 6 coordinates to 3 numbers of a kernel."""
    p, q, r, s = u[1] + u[2], u[1] - u[2], u[3] + u[4], u[3] - u[4]
    first = (u[0] / 4).sub_(p, alpha=1 / 6).add_(r, alpha=1 / 24)
    second = s.mul_(1 / 12).sub_(q, alpha=1 / 6)
    third = (u[5] - p.div_(6)).add_(r, alpha=1 / 6)
    return torch.stack((first, second, third))
