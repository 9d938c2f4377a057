"""Convolutions that are quick on every device: the device's own on a GPU, matrix products on the CPU where they win.

On the CPU, in 32 bits and channels-last memory, the library's direct convolutions lose most of the time of a training
step in three places, and here these are done otherwise:

- 3x3 kernels, nine tenths of the generator's work: ``bundle.winograd`` needs a quarter of the multiplications;
- gradients of kernels (up to ten times slower than the convolution itself): one matrix product of the windows;
- convolutions from or to one channel: one matrix product, then a sum of shifted images.

State, names and results are those of ``torch.nn``, up to rounding. Weights kept in 16 bits (``make weights``) are
computed with in the 32 bits of the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor, nn
from torch.nn import functional

from bundle.transforms.items import plain
from bundle.winograd import (
    winograd,
    winograd_grad_input,
    winograd_grad_weight,
    winograd_gradient,
    winograd_transformed,
)

__all__ = ["Convolution", "TransposedConvolution", "convolve"]

WINOGRAD_CHANNELS = 128
"""From here on the maps of ``bundle.winograd`` cost less than the multiplications that they save."""
WINDOW_NUMBERS = 1 << 20
"""Numbers in one piece of the windows of an image."""


class Convolution(nn.Conv2d):
    """``torch.nn.Conv2d`` with one stride and one zero padding for both axes, without dilation and groups.

    Shapes: ``(B, C, W, H)`` to ``(B, D, w, h)`` with ``w = (W + 2 padding - kernel) // stride + 1``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x``."""
        weight, bias = _in_precision_of(x, self.weight, self.bias)
        if torch.jit.is_scripting():
            return functional.conv2d(x, weight, bias, self.stride, self.padding)
        return convolve(x, weight, bias, self.stride[0], int(self.padding[0]))


class TransposedConvolution(nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d``, whose kernel gets its gradient from a matrix product on the CPU.

    Shapes: ``(B, C, W, H)`` to ``(B, D, w, h)`` with ``w = (W - 1) stride - 2 padding + kernel + output_padding``.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Spread ``x``; ``output_size`` is the base class's and not used."""
        weight, bias = _in_precision_of(x, self.weight, self.bias)
        if torch.jit.is_scripting():
            padding: list[int] = [int(self.padding[0]), int(self.padding[1])]
            return functional.conv_transpose2d(x, weight, bias, self.stride, padding, self.output_padding)
        return _spread(x, weight, bias, self.stride[0], int(self.padding[0]), self.output_padding[0])


def _in_precision_of(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if x.dtype != torch.float32 or weight.dtype != torch.float16:
        return weight, bias
    return weight.float(), bias.float() if bias is not None else None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """What ``torch.nn.functional.conv2d`` gives; metadata of MONAI's tensors are kept."""
    if _by_matrices(x):
        result: Tensor = _Convolve.apply(plain(x), weight, bias, stride, padding)  # type: ignore[no-untyped-call]
        return _with_meta(result, x)
    return functional.conv2d(x, weight, bias, stride, padding)


def _spread(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, output_padding: int) -> Tensor:
    sizes = (stride, padding, output_padding)
    if _by_matrices(x):
        result: Tensor = _Spread.apply(plain(x), weight, bias, *sizes)  # type: ignore[no-untyped-call]
        return _with_meta(result, x)
    return functional.conv_transpose2d(x, weight, bias, *sizes)


def _with_meta(result: Tensor, x: Tensor) -> Tensor:
    return MetaTensor(result).copy_meta_from(x) if isinstance(x, MetaTensor) else result


def _by_matrices(x: Tensor) -> bool:
    """Whether the image is computed here and now: a graph that is written for elsewhere keeps plain convolutions."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    written = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.compiler.is_exporting()
    return not written and not torch.is_autocast_enabled("cpu")


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        if _suits_winograd(weight, stride):
            return winograd(_padded(x, padding), weight, bias)
        if weight.shape[0] == 1 and stride == 1:
            return _to_one_channel(_padded(x, padding), weight, bias)
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (of_x, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad[:3]
        stride, padding = ctx.stride, ctx.padding
        grad_x = grad_weight = None
        if _suits_winograd(weight, stride):
            grad_x, grad_weight = _winograd_gradients(gradient, x, weight, padding, of_x, of_weight)
        else:
            if of_x:
                grad_x = _grad_input(gradient, x, weight, stride, padding)
            if of_weight:
                grad_weight = _grad_weight(gradient, x, weight.shape[2], stride, padding)
        grad_bias = gradient.sum(dim=(0, 2, 3)) if of_bias else None
        return grad_x, grad_weight, grad_bias, None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, output_padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv_transpose2d(x, weight, bias, stride, padding, output_padding)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (of_x, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad[:3]
        stride, padding = ctx.stride, ctx.padding
        grad_x = functional.conv2d(gradient, weight, None, stride, padding) if of_x else None
        # The adjoint of a convolution, so x and the gradient have changed places.
        grad_weight = _grad_weight(x, gradient, weight.shape[2], stride, padding) if of_weight else None
        grad_bias = gradient.sum(dim=(0, 2, 3)) if of_bias else None
        return grad_x, grad_weight, grad_bias, None, None, None


def _suits_winograd(weight: Tensor, stride: int) -> bool:
    return stride == 1 and weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= WINOGRAD_CHANNELS


def _padded(x: Tensor, padding: int) -> Tensor:
    x = functional.pad(x, (padding,) * 4) if padding else x
    return x.contiguous(memory_format=torch.channels_last)


def _winograd_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, padding: int, of_x: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    tiles = winograd_gradient(gradient.contiguous(memory_format=torch.channels_last))
    padded = _padded(x, padding)
    grad_weight = winograd_grad_weight(tiles, winograd_transformed(padded)) if of_weight else None
    if not of_x:
        return None, grad_weight
    grad_x = winograd_grad_input(tiles, weight, padded.shape)
    return grad_x[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]], grad_weight


def _to_one_channel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One product gives what each pixel adds to the k x k pixels around it; these are then added up."""
    kernel = weight.shape[2]
    width, height = (n - kernel + 1 for n in x.shape[2:])
    result = x.new_zeros(len(x), 1, width, height)
    taps = weight[0].flatten(1).t()
    step = max(1, WINDOW_NUMBERS // (taps.shape[0] * x.shape[3]))
    for image, total in zip(x.permute(0, 2, 3, 1), result[:, 0], strict=True):
        for first in range(0, len(image), step):
            rows = image[first : first + step]
            parts = torch.mm(taps, rows.flatten(0, 1).t()).view(kernel, kernel, *rows.shape[:2])
            for i in range(kernel):
                start, stop = max(0, first - i), min(width, first - i + len(rows))
                for j in range(kernel):
                    if start < stop:
                        total[start:stop] += parts[i, j, start + i - first : stop + i - first, j : j + height]
    return result if bias is None else result.add_(bias.view(1, 1, 1, 1))


def _grad_input(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    if weight.shape[1] > 1:
        sizes = ((stride,) * 2, (padding,) * 2, (1, 1), False, (0, 0), 1, (True, False, False))
        grad_x: Tensor = torch.ops.aten.convolution_backward(gradient, x, weight, None, *sizes)[0]
        return grad_x
    kernel, taps = weight.shape[2], weight.flatten(1).t()
    parts = [torch.mm(taps, one.permute(1, 2, 0).flatten(0, 1).t()) for one in gradient]
    return functional.fold(torch.stack(parts), x.shape[2:], kernel, padding=padding, stride=stride)


def _grad_weight(gradient: Tensor, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """``(D, C, k, k)``: the gradient of each pixel times the window of ``x`` that it comes from, as matrix products."""
    gradient, x = gradient.permute(0, 2, 3, 1), _padded(x, padding).permute(0, 2, 3, 1)
    if stride == 1 and gradient.shape[3] < x.shape[3]:  # the smaller of the two is cut into windows
        wide = functional.pad(gradient, (0, 0, kernel - 1, kernel - 1, kernel - 1, kernel - 1))
        products = _sum_over_windows(x, wide, kernel, 1)  # (C, k * k * D), with the kernel turned around
        return products.view(-1, kernel, kernel, gradient.shape[3]).flip(1, 2).permute(3, 0, 1, 2)
    products = _sum_over_windows(gradient, x, kernel, stride)
    return products.view(-1, kernel, kernel, x.shape[3]).permute(0, 3, 1, 2)


def _sum_over_windows(pixels: Tensor, image: Tensor, kernel: int, stride: int) -> Tensor:
    """Sum over all pixels of (numbers of a pixel) x (numbers of its window): ``(D, k * k * C)``."""
    total = pixels.new_zeros(pixels.shape[3], kernel * kernel * image.shape[3])
    for numbers, windows in _windows(pixels, image, kernel, stride):
        total.addmm_(numbers.t(), windows)
    return total


def _windows(pixels: Tensor, image: Tensor, kernel: int, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
    views = image.unfold(1, kernel, stride).unfold(2, kernel, stride).permute(0, 1, 2, 4, 5, 3)
    rows, columns = pixels.shape[1:3]
    numbers = kernel * kernel * image.shape[3]
    step = max(1, WINDOW_NUMBERS // (columns * numbers))
    for one in range(len(pixels)):
        for first in range(0, rows, step):
            part = pixels[one, first : first + step]
            window = views[one, first : first + step, :columns]
            yield part.reshape(-1, part.shape[-1]), window[: len(part)].reshape(-1, numbers)
