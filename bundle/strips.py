"""Whole mammograms through the generator in bounded memory: the same image as ``network(image)``, without seams.

Tiles would be normalised by their own mean and variance and differ in brightness. Here every layer sees the whole
image, but in strips of rows: a strip is computed from those rows of the layer before that its windows reach, and these
from the layer before that, back to a map that is kept in memory. A feature map as high as the image (64 channels in the
served network) is never kept: its mean and variance are gathered from all its strips, which are then computed anew for
the next layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.nn import functional

from bundle.convolution import convolve
from bundle.moments import channel_moments
from bundle.networks import InstanceNorm, ResnetBlock, ResnetGenerator
from bundle.transforms.items import plain

__all__ = ["StripInferer"]

POINTWISE: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: torch.relu,  # never in place: a strip may be a view of a kept map
    nn.Sigmoid: torch.sigmoid,
    nn.Tanh: torch.tanh,
}
SMALLEST_SIDE = 16  # of an image that the generator takes


class StripInferer(Inferer):
    """Gives what ``network(inputs)`` gives, up to rounding, in strips when the image is large.

    Images of up to ``max_pixels`` go through the network as they are. Larger ones go one by one through a
    :class:`~bundle.networks.ResnetGenerator` in strips of at most ``max_pixels`` pixels (and one row at least), under
    ``torch.no_grad``. What stays in memory are maps of half and quarter size, 48 numbers for each pixel of one image at
    width 64, where the network itself needs 128 and the batch multiplies them. Any other network, TorchScript included,
    is called as it is, whatever the size.

    Shapes: ``(B, C, W, H)`` to what the network makes of it. A ``MetaTensor`` keeps its metadata.

    Args:
        max_pixels: the largest image, and the largest strip, that is computed in one piece: ``W * H``.

    Raises:
        ValueError: if ``max_pixels`` is below 1.
    """

    def __init__(self, max_pixels: int = 512 * 512) -> None:
        super().__init__()
        if max_pixels < 1:
            raise ValueError(f"max_pixels is {max_pixels}; give the pixels (W * H) that fit in memory, such as 262144")
        self.max_pixels = max_pixels

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Translate ``inputs`` of shape ``(B, C, W, H)`` by ``network``; further arguments are the network's."""
        *_, height, columns = inputs.shape
        # An image that is too small for the generator is the generator's to refuse.
        small = height * columns <= self.max_pixels or min(height, columns) < SMALLEST_SIDE
        if small or args or kwargs or not isinstance(network, ResnetGenerator):
            return network(inputs, *args, **kwargs)
        strips = math.ceil(height / max(1, self.max_pixels // columns))
        with torch.no_grad():
            images = [_Strips(strips, image).through(network.model) for image in plain(inputs).split(1)]
        pixels = torch.cat(images)
        return MetaTensor(pixels).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else pixels


class _Map(NamedTuple):
    """A feature map of one image, known by its rows: ``rows(start, stop)`` is ``(1, C, stop - start, columns)``."""

    height: int
    rows: Callable[[int, int], Tensor]


class _Strips:
    """One image, ``(1, C, W, H)``, on its way through the layers, each map in ``count`` strips."""

    def __init__(self, count: int, image: Tensor) -> None:
        self.count = count
        self.height = image.shape[2]
        self.image = _Map(self.height, lambda start, stop: image[:, :, start:stop])

    def through(self, layers: Iterable[nn.Module]) -> Tensor:
        """The whole output of ``layers``."""
        return self._whole(self._sequence(layers, self.image))

    def _sequence(self, layers: Iterable[nn.Module], source: _Map) -> _Map:
        for layer in layers:
            source = self._layer(layer, source)
        return source

    def _layer(self, layer: nn.Module, source: _Map) -> _Map:
        if isinstance(layer, InstanceNorm):
            return self._normalised(source, layer.eps)
        if isinstance(layer, ResnetBlock):
            return self._residual(layer, source)
        if isinstance(layer, nn.ReflectionPad2d):
            return _reflected(source, layer)
        if isinstance(layer, nn.Conv2d):
            return _convolved(source, layer)
        if isinstance(layer, nn.ConvTranspose2d):
            return _upsampled(source, layer)
        if type(layer) in POINTWISE:
            function = POINTWISE[type(layer)]
            return _Map(source.height, lambda start, stop: function(source.rows(start, stop)))
        raise TypeError(f"a {type(layer).__name__} cannot be computed in strips; use SimpleInferer for this network")

    def _each(self, source: _Map) -> Iterator[tuple[int, Tensor]]:
        step = math.ceil(source.height / self.count)
        for start in range(0, source.height, step):
            yield start, source.rows(start, min(start + step, source.height))

    def _whole(self, source: _Map) -> Tensor:
        row = source.rows(0, 1)
        shape = (1, row.shape[1], source.height, row.shape[3])
        # Channels last: a strip of rows is one piece of memory.
        whole = torch.empty(shape, dtype=row.dtype, device=row.device, memory_format=torch.channels_last)
        for start, rows in self._each(source):
            whole[:, :, start : start + rows.shape[2]] = rows
        return whole

    def _kept(self, source: _Map) -> _Map:
        whole = self._whole(source)
        return _Map(source.height, lambda start, stop: whole[:, :, start:stop])

    def _residual(self, block: ResnetBlock, source: _Map) -> _Map:
        change = self._sequence(block.conv_block, source)
        return self._kept(_Map(source.height, lambda start, stop: source.rows(start, stop) + change.rows(start, stop)))

    def _normalised(self, source: _Map, eps: float) -> _Map:
        if source.height < self.height:
            source = self._kept(source)
        mean, variance = channel_moments(rows for _, rows in self._each(source))
        return _Map(
            source.height,
            lambda start, stop: functional.batch_norm(source.rows(start, stop), mean, variance, eps=eps),
        )


def _reflected(source: _Map, layer: nn.ReflectionPad2d) -> _Map:
    left, right, top, bottom = layer.padding

    def rows(start: int, stop: int) -> Tensor:
        above, below = max(0, top - start), max(0, stop - top - source.height)
        inside = source.rows(start - top + above, stop - top - below)
        return functional.pad(inside, (left, right, above, below), mode="reflect")

    return _Map(source.height + top + bottom, rows)


def _convolved(source: _Map, layer: nn.Conv2d) -> _Map:
    kernel, stride, (padding, beside) = layer.kernel_size[0], layer.stride[0], map(int, layer.padding)

    def rows(start: int, stop: int) -> Tensor:
        first, end = start * stride - padding, (stop - 1) * stride - padding + kernel
        above, below = max(0, -first), max(0, end - source.height)
        inside = source.rows(first + above, end - below)
        if above or below or beside:
            inside = functional.pad(inside, (beside, beside, above, below))
        return convolve(inside, layer.weight, layer.bias, stride)

    return _Map((source.height + 2 * padding - kernel) // stride + 1, rows)


def _upsampled(source: _Map, layer: nn.ConvTranspose2d) -> _Map:
    kernel, stride, (padding, beside) = layer.kernel_size[0], layer.stride[0], map(int, layer.padding)
    extra = layer.output_padding

    def rows(start: int, stop: int) -> Tensor:
        # Row r of the source adds to the rows r * stride - padding up to r * stride - padding + kernel - 1.
        first = max(0, -((kernel - 1 - padding - start) // stride))
        end = min(source.height, (stop - 1 + padding) // stride + 1)
        inside = source.rows(first, end)
        spread = functional.conv_transpose2d(inside, layer.weight, layer.bias, layer.stride, (0, beside), extra)
        return spread.narrow(2, start + padding - first * stride, stop - start)

    return _Map((source.height - 1) * stride - 2 * padding + kernel + extra[0], rows)
