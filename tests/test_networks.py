"""The generator is the published CycleGAN ResNet and the discriminator the 70x70 PatchGAN."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from bundle.networks import InstanceNorm, PatchGAN, ResnetGenerator, normal_init, published_state_dict


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class PublishedBlock(nn.Module):
    """The residual block as the CycleGAN paper's appendix describes it, with torch's own norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm = nn.InstanceNorm2d
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), norm(channels), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), norm(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.conv_block(x)
        return x + residual


class Published(nn.Module):
    """c7s1-w, d2w, d4w, R4w x blocks, u2w, uw, c7s1-3 of the appendix, in the order of published checkpoints."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        norm, w = nn.InstanceNorm2d, width
        up = partial(nn.ConvTranspose2d, kernel_size=3, stride=2, padding=1, output_padding=1)
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(3, w, 7), norm(w), nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1), norm(2 * w), nn.ReLU(),
            nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1), norm(4 * w), nn.ReLU(),
            *[PublishedBlock(4 * w) for _ in range(blocks)],
            up(4 * w, 2 * w), norm(2 * w), nn.ReLU(),
            up(2 * w, w), norm(w), nn.ReLU(),
            nn.ReflectionPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        translated: torch.Tensor = self.model(x)
        return translated


def test_a_published_checkpoint_loads_and_gives_the_same_image() -> None:
    published = Published(width=6, blocks=3).double()
    checkpoint = {f"module.{name}": tensor for name, tensor in published.state_dict().items()}
    checkpoint |= {"module.model.2.running_mean": torch.zeros(6), "module.model.2.num_batches_tracked": torch.tensor(1)}
    ours = ResnetGenerator(3, 3, width=6, blocks=3, output_range="tanh").double()
    ours.load_state_dict(published_state_dict(checkpoint))
    x = torch.rand(2, 3, 32, 24, dtype=torch.float64) * 2 - 1
    for inputs in (x, x.clone().requires_grad_()):
        torch.testing.assert_close(ours(inputs), published(x), atol=1e-10, rtol=1e-10)


def test_default_sizes_are_those_of_the_literature() -> None:
    assert parameters(ResnetGenerator()) == 11_365_633
    assert parameters(PatchGAN()) == pytest.approx(2.76e6, rel=0.005)


def test_output_keeps_the_size_and_its_range() -> None:
    x = 50 * torch.randn(1, 1, 20, 36)
    unit, signed = ResnetGenerator(width=4, blocks=1), ResnetGenerator(width=4, blocks=1, output_range="tanh")
    for module in (unit, signed):
        last = module.model[-2]
        assert isinstance(last, nn.Conv2d)
        nn.init.normal_(last.weight, std=50)
    assert unit(x).shape == x.shape
    assert unit(x).min() >= 0
    assert unit(x).max() <= 1
    assert -1 <= signed(x).min() < -0.5


def test_norm_equals_torchs_instance_norm_with_its_gradient() -> None:
    x = torch.randn(3, 5, 7, 9, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 5, 7, 9, dtype=torch.float64)
    gradients = [torch.autograd.grad((norm(x) * weight).sum(), x)[0] for norm in (InstanceNorm(), nn.InstanceNorm2d(5))]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=0)


def test_norm_keeps_channels_last_memory_in_training() -> None:
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    assert InstanceNorm()(x).is_contiguous(memory_format=torch.channels_last)


def test_a_batch_gives_the_same_images_as_its_members_one_by_one() -> None:
    module = ResnetGenerator(width=4, blocks=2).double()
    x = torch.rand(3, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(module(x), torch.cat([module(i) for i in x.split(1)]), atol=1e-12, rtol=0)


def test_a_patch_logit_sees_70_pixels() -> None:
    module = PatchGAN(width=4)
    for child in module.modules():
        if isinstance(child, nn.Module) and child.__class__ is InstanceNorm:
            child.forward = lambda x: x  # type: ignore[method-assign]  # the norm sees the whole image
    x = torch.rand(1, 1, 192, 192, requires_grad=True)
    logits = module(x)
    assert logits.shape == (1, 1, 22, 22)
    (seen,) = torch.autograd.grad(logits[0, 0, 11, 11], x)
    assert (seen[0, 0].abs().sum(0) > 0).sum() == 70


def test_weights_are_drawn_from_normal_0_02_and_biases_are_zero() -> None:
    module = ResnetGenerator(width=32, blocks=2)
    normal_init(module)
    weights = torch.cat([p.detach().flatten() for n, p in module.named_parameters() if n.endswith("weight")])
    assert weights.std() == pytest.approx(0.02, rel=0.02)
    assert all((p == 0).all() for n, p in module.named_parameters() if n.endswith("bias"))


def test_checkpointing_changes_neither_output_nor_gradient() -> None:
    plain = ResnetGenerator(width=4, blocks=2)
    saving = ResnetGenerator(width=4, blocks=2, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 16, 16)
    for module in (plain, saving):
        module(x).square().mean().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


def test_the_images_of_monais_loaders_train_the_generator_like_plain_ones() -> None:
    network = ResnetGenerator(width=4, blocks=1)
    image = torch.rand(2, 1, 16, 16)
    gradients = []
    for x in (image, MetaTensor(image)):
        network.zero_grad()
        network(x).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(list(network.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_generator_can_be_scripted() -> None:
    module = ResnetGenerator(width=4, blocks=1).eval()
    x = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(torch.jit.script(module)(x), module(x))


@pytest.mark.parametrize("option", [{"output_range": "relu"}, {"width": 0}, {"blocks": -1}])
def test_an_impossible_generator_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        ResnetGenerator(**option)


def test_weights_of_another_network_are_refused_even_where_a_server_asks_for_what_fits() -> None:
    generator = ResnetGenerator(width=4, blocks=1)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    checkpoint = {"networks": before, "epoch": 3}
    with pytest.raises(RuntimeError, match=r"they hold networks, epoch.*raw state dict"):
        generator.load_state_dict(checkpoint, strict=False)
    generator.load_state_dict(ResnetGenerator(width=4, blocks=1).state_dict(), strict=False)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
