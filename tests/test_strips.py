"""The strip inferer gives what the network gives, in less memory than one full-size feature map takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.data.utils import list_data_collate
from monai.inferers import Inferer
from monai.networks import convert_to_torchscript
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bundle.networks import ResnetGenerator
from bundle.strips import StripInferer

SIZES = [(64, 48), (48, 64), (132, 20), (20, 132), (65, 47), (30, 31), (16, 16)]


def generator(**options: Any) -> ResnetGenerator:
    """A small generator with weights that make an image of contrast (the initial ones leave it flat and grey)."""
    torch.manual_seed(0)
    network = ResnetGenerator(**{"width": 4, "blocks": 2} | options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.2)
    return network.eval()


def image(*shape: int) -> Tensor:
    """Noise on a ramp: no two strips have the same mean."""
    ramp = torch.linspace(0, 1, shape[2]).reshape(-1, 1)
    return 0.7 * ramp + 0.3 * torch.rand(shape, generator=torch.Generator().manual_seed(1))


def plainly(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = network(inputs)
    return output


class Memory(TorchDispatchMode):
    """Bytes of the largest tensor, and the most bytes alive at once, of what operations return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self._alive[reference.cdata] = reference, storage.nbytes()
                self.largest = max(self.largest, storage.nbytes())
        self._alive = {key: (ref, size) for key, (ref, size) in self._alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


@pytest.mark.parametrize("max_pixels", [1, 200, 700])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_strips_give_the_image_of_the_network(size: tuple[int, int], max_pixels: int) -> None:
    network, inputs = generator(), image(1, 1, *size)
    expected = plainly(network, inputs)
    assert expected.std() > 0.1
    torch.testing.assert_close(StripInferer(max_pixels)(inputs, network), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"output_range": "tanh"},
        {"in_channels": 2, "out_channels": 3},
        {"checkpointing": True},
        {"blocks": 0},
        {"blocks": 4},
    ],
    ids=str,
)
def test_strips_serve_every_generator(options: dict[str, Any]) -> None:
    network = generator(**options)
    inputs = image(1, options.get("in_channels", 1), 44, 36)
    torch.testing.assert_close(StripInferer(300)(inputs, network), plainly(network, inputs), atol=1e-5, rtol=0)


def test_the_image_does_not_depend_on_the_number_of_strips() -> None:
    network, inputs = generator(), image(1, 1, 60, 40).double()
    network.double()
    outputs = torch.cat([StripInferer(max_pixels)(inputs, network) for max_pixels in (1, 90, 333, 801, 2399, 2400)])
    assert (outputs - outputs[-1]).abs().max() < 1e-12


def test_each_image_of_a_batch_is_normalised_by_itself() -> None:
    network = generator()
    batch = torch.cat([image(1, 1, 40, 32), 0.2 * image(1, 1, 40, 32).flip(2), 3 + image(1, 1, 40, 32)])
    output = StripInferer(100)(batch, network)
    torch.testing.assert_close(output, plainly(network, batch), atol=1e-5, rtol=0)


def test_channels_last_memory_and_autocast_stay_as_in_the_network() -> None:
    network = generator()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = image(2, 1, 40, 32).to(memory_format=torch.channels_last)
    torch.testing.assert_close(StripInferer(400)(inputs, network), plainly(network, inputs), atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, output = plainly(network, inputs), StripInferer(400)(inputs, network)
    assert output.dtype == expected.dtype == torch.bfloat16
    assert (output - expected).abs().float().mean() < 0.02


def test_a_large_image_is_that_of_64_bit_sums() -> None:
    network, inputs = generator(blocks=0), image(1, 1, 512, 512)
    exact = plainly(network.double(), inputs.double())
    network.float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(StripInferer(65536)(inputs, network).double(), exact, atol=3e-5, rtol=0)


def test_less_memory_than_one_full_size_feature_map_is_alive() -> None:
    network, inputs = generator(width=16, blocks=1), image(1, 1, 512, 32)
    full_map = 16 * inputs.nbytes
    with Memory() as plain:
        plainly(network, inputs)
    with Memory() as strips:
        StripInferer(1024)(inputs, network)
    assert plain.largest >= full_map
    assert plain.peak > 2 * full_map
    assert strips.largest <= full_map / 2
    assert strips.peak < full_map


def test_the_neighbours_of_a_batch_take_no_memory() -> None:
    network, one = generator(width=8, blocks=1), image(1, 1, 512, 32)
    with Memory() as single:
        StripInferer(1024)(one, network)
    batch = one.repeat(2, 1, 1, 1)
    with Memory() as several:
        StripInferer(1024)(batch, network)
    assert several.peak - single.peak <= 3 * batch.nbytes  # the batch that comes, its images, the batch that goes


class Noticing(ResnetGenerator):
    """Counts how often it is called as a whole."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def test_an_image_of_up_to_max_pixels_goes_through_the_network_as_it_is() -> None:
    network, inputs = Noticing(width=4, blocks=1), image(2, 1, 24, 20)
    assert torch.equal(StripInferer(24 * 20)(inputs, network), network(inputs))
    assert network.calls == 2
    StripInferer(24 * 20 - 1)(inputs, network)
    assert network.calls == 2


def test_other_networks_are_called_as_they_are() -> None:
    network, inputs = generator(), image(1, 1, 24, 20)
    scripted = convert_to_torchscript(network)
    torch.testing.assert_close(StripInferer(50)(inputs, scripted), plainly(network, inputs))
    assert torch.equal(StripInferer(50)(inputs, lambda x, factor: factor * x, factor=3), 3 * inputs)


def test_metadata_is_that_of_the_input_as_after_the_network() -> None:
    network = generator()
    items = [MetaTensor(image(1, 1, 24, 20)[0], meta={"filename_or_obj": name}) for name in ("first.png", "second.png")]
    inputs = list_data_collate(items)
    expected, output = plainly(network, inputs), StripInferer(100)(inputs, network)
    assert isinstance(output, MetaTensor)
    assert isinstance(expected, MetaTensor)
    assert output.meta["filename_or_obj"] == expected.meta["filename_or_obj"] == ["first.png", "second.png"]
    assert output.is_batch is expected.is_batch is True
    torch.testing.assert_close(output.as_tensor(), expected.as_tensor(), atol=1e-5, rtol=0)


def test_the_input_is_not_changed_and_no_gradient_is_kept() -> None:
    inputs = image(1, 1, 40, 32).requires_grad_()
    before = inputs.detach().clone()
    output = StripInferer(100)(inputs, generator())
    assert not output.requires_grad
    assert torch.equal(inputs, before)


def test_an_image_too_small_for_the_network_is_refused_by_the_network() -> None:
    network, inputs = generator(), image(1, 1, 3, 400)
    with pytest.raises(RuntimeError, match="adding size"):
        network(inputs)
    with pytest.raises(RuntimeError, match="adding size"):
        StripInferer(10)(inputs, network)


def test_a_generator_with_an_unknown_layer_is_an_error() -> None:
    network = generator()
    network.model.append(nn.Dropout())
    with pytest.raises(TypeError, match="Dropout cannot be computed in strips"):
        StripInferer(10)(image(1, 1, 24, 20), network)


def test_strips_need_pixels() -> None:
    assert isinstance(StripInferer(), Inferer)
    with pytest.raises(ValueError, match="max_pixels is 0"):
        StripInferer(max_pixels=0)
