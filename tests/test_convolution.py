"""The bundle's convolutions give what torch's give, forwards and backwards, whichever way they are computed."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from bundle.convolution import WINOGRAD_CHANNELS, Convolution, TransposedConvolution
from bundle.winograd import winograd

MANY = WINOGRAD_CHANNELS
# channels in and out, kernel, stride, padding
CONVOLUTIONS = [
    (3, 5, 3, 2, 1),
    (5, 3, 3, 1, 1),
    (6, 1, 7, 1, 0),
    (1, 6, 7, 1, 0),
    (1, 4, 4, 2, 1),
    (8, 1, 4, 1, 1),
    (MANY, MANY + 2, 3, 1, 0),
    (MANY, MANY, 3, 1, 1),
]


def image(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def with_gradients(layer: nn.Module, forward: type[nn.Module], x: Tensor) -> list[Tensor]:
    """The result, and the gradients of the input, the kernel and the bias."""
    x = x.clone().requires_grad_()
    result: Tensor = forward.forward(layer, x)
    onward = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(result)
    return [result, *torch.autograd.grad(result, [x, *layer.parameters()], onward)]


@pytest.mark.parametrize("size", [(20, 15), (9, 22)])
@pytest.mark.parametrize("sizes", CONVOLUTIONS)
def test_a_convolution_and_its_gradients_are_those_of_torch(
    sizes: tuple[int, int, int, int, int], size: tuple[int, int]
) -> None:
    layer, x = Convolution(*sizes).double(), image(2, sizes[0], *size)
    expected, found = with_gradients(layer, nn.Conv2d, x), with_gradients(layer, Convolution, x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_a_transposed_convolution_and_its_gradients_are_those_of_torch() -> None:
    layer, x = TransposedConvolution(6, 3, 3, 2, 1, output_padding=1).double(), image(2, 6, 9, 7)
    expected, found = with_gradients(layer, nn.ConvTranspose2d, x), with_gradients(layer, TransposedConvolution, x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_in_32_bits_no_more_than_a_digit_is_lost() -> None:
    """The direct sum is right to some 1e-6 of the values' spread."""
    layer, x = Convolution(MANY, MANY, 3), image(1, MANY, 34, 34)
    exact = with_gradients(layer.double(), nn.Conv2d, x)
    found = with_gradients(layer.float(), Convolution, x.float())
    for one, other in zip(found, exact, strict=True):
        assert (one.double() - other).norm() <= 5e-6 * other.norm()


def test_memory_format_and_pieces_do_not_change_the_result() -> None:
    layer = Convolution(MANY, MANY, 3).double()
    x = image(1, MANY, 70, 38)
    whole = layer(x)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), whole, rtol=0, atol=0)
    rows = torch.cat([layer(x[:, :, :34]), layer(x[:, :, 32:])], dim=2)  # the same tiles
    torch.testing.assert_close(rows, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (5, 3), (8, 13)])
def test_winograd_takes_every_size_of_image(size: tuple[int, int]) -> None:
    x, weight = image(2, 3, size[0] + 2, size[1] + 2), image(4, 3, 3, 3)
    torch.testing.assert_close(winograd(x, weight, None), nn.functional.conv2d(x, weight), rtol=1e-11, atol=1e-11)


def test_a_gradient_that_is_not_asked_for_is_not_computed() -> None:
    layer = Convolution(MANY, MANY, 3)
    layer.requires_grad_(False)
    x = image(1, MANY, 10, 10, dtype=torch.float32).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_autocast_and_graphs_written_for_elsewhere_keep_plain_convolutions() -> None:
    layer, x = Convolution(MANY, MANY, 3), image(1, MANY, 10, 10, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    exported = torch.export.export(nn.Sequential(layer), (x,))
    assert any("conv2d" in str(node.target) for node in exported.graph.nodes)
    assert "_convolution" in str(torch.jit.trace(layer, x, check_trace=False).graph)
    torch.testing.assert_close(torch.jit.script(layer)(x), layer(x), rtol=1e-4, atol=1e-4)


def test_metadata_of_an_image_stay_with_it() -> None:
    layer, x = Convolution(MANY, MANY, 3), image(1, MANY, 10, 10, dtype=torch.float32)
    result = layer(MetaTensor(x, meta={"laterality": "L"}))
    assert isinstance(result, MetaTensor)
    assert result.meta["laterality"] == "L"
    assert torch.equal(result.as_tensor(), layer(x))


@pytest.mark.parametrize("layer", [Convolution(2, 3, 3, padding=1), TransposedConvolution(2, 3, 3)])
def test_weights_kept_in_16_bits_are_computed_with_in_32(layer: nn.Module) -> None:
    layer.half()
    x = image(1, 2, 8, 9, dtype=torch.float32)
    result = layer(x)
    assert result.dtype == torch.float32
    torch.testing.assert_close(torch.jit.script(layer)(x), result)
    torch.testing.assert_close(layer.float()(x), result)
