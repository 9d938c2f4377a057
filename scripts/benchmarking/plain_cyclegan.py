"""The reference of the benchmark: CycleGAN and its pipeline as a textbook writes them, on the same weights.

One call of a network for each of its six images, one for each image that a discriminator judges, `nn.InstanceNorm2d`,
contiguous memory, Adam as it comes, losses as separate terms that are read back for the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PlainStep", "plain_discriminator", "plain_generator"]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        self.conv_block = nn.Sequential(*half, nn.ReLU(True), *again)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv_block(x)
        return x + residual


def plain_generator(weights: Mapping[str, Tensor], width: int, blocks: int) -> nn.Module:
    """The ResNet generator of stock layers with the weights of `bundle.networks.ResnetGenerator`."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(1, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True)]
    for channels in (width, 2 * width):
        down = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        layers += [down, nn.InstanceNorm2d(2 * channels), nn.ReLU(True)]
    layers += [_Residual(4 * width) for _ in range(blocks)]
    for channels in (4 * width, 2 * width):
        up = nn.ConvTranspose2d(channels, channels // 2, 3, stride=2, padding=1, output_padding=1)
        layers += [up, nn.InstanceNorm2d(channels // 2), nn.ReLU(True)]
    network = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 1, 7), nn.Sigmoid())
    return _filled(network, weights)


def plain_discriminator(weights: Mapping[str, Tensor], width: int) -> nn.Module:
    """The 70x70 PatchGAN of stock layers with the weights of `bundle.networks.PatchGAN`."""
    sizes = [(1, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 1)]
    layers: list[nn.Module] = []
    for before, after, stride in sizes:
        layers += [nn.Conv2d(before, after, 4, stride, 1)]
        layers += [nn.InstanceNorm2d(after)] if before > 1 else []
        layers += [nn.LeakyReLU(0.2, True)]
    return _filled(nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1)), weights)


def _filled(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Give the layers the weights of the same architecture, in the order of both."""
    own = network.state_dict()
    if [tuple(tensor.shape) for tensor in own.values()] != [tuple(tensor.shape) for tensor in weights.values()]:
        raise RuntimeError("the reference and the bundle's network differ in architecture")
    network.load_state_dict(dict(zip(own, (t.detach().clone() for t in weights.values()), strict=True)))
    return network


class PlainStep:
    """One optimisation step: generators, then discriminators.

    Args:
        generators: LE -> DES and DES -> LE.
        discriminators: of LE and of DES.
        gamma: weight of the lesion terms.
        amp: under bfloat16 autocast.
    """

    def __init__(
        self, generators: Iterable[nn.Module], discriminators: Iterable[nn.Module], gamma: float, amp: bool = False
    ) -> None:
        self.to_des, self.to_le = generators
        self.judge_le, self.judge_des = discriminators
        self.gamma, self.amp = gamma, amp
        self.optimizer = torch.optim.Adam(
            chain(self.to_des.parameters(), self.to_le.parameters()), lr=1e-5, betas=(0.5, 0.999), weight_decay=1e-5
        )
        self.judges_optimizer = torch.optim.Adam(
            chain(self.judge_le.parameters(), self.judge_des.parameters()),
            lr=1e-5,
            betas=(0.5, 0.999),
            weight_decay=1e-5,
        )
        self.random = np.random.default_rng(0)
        self.history: dict[str, list[Tensor]] = {"le": [], "des": []}

    def __call__(self, le: Tensor, des: Tensor, mask: Tensor) -> dict[str, float]:
        """Update all networks with one batch; the losses by name."""
        self._judges_learn(False)
        self.optimizer.zero_grad()
        with torch.autocast(le.device.type, torch.bfloat16, enabled=self.amp):
            fake_des, fake_le = self.to_des(le), self.to_le(des)
            again_le, again_des = self.to_le(fake_des), self.to_des(fake_le)
            same_des, same_le = self.to_des(des), self.to_le(le)
            terms = {
                "G_AB": _least_squares(self.judge_des(fake_des), 1.0),
                "G_BA": _least_squares(self.judge_le(fake_le), 1.0),
            }
            for name, weight, pairs in (
                ("cycle", 10.0, ((again_le, le), (again_des, des))),
                ("idt", 5.0, ((same_le, le), (same_des, des))),
            ):
                for domain, (made, real) in zip("AB", pairs, strict=True):
                    terms[f"{name}_{domain}"] = weight * functional.l1_loss(made, real)
                    lesion = functional.l1_loss(made * mask, real * mask)
                    terms[f"lesion_{name}_{domain}"] = self.gamma * lesion
            loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        self.optimizer.step()
        self._judges_learn(True)
        self.judges_optimizer.zero_grad()
        for name, judge, real, fake in (
            ("D_A", self.judge_le, le, self._remembered("le", fake_le)),
            ("D_B", self.judge_des, des, self._remembered("des", fake_des)),
        ):
            with torch.autocast(le.device.type, torch.bfloat16, enabled=self.amp):
                both = _least_squares(judge(real), 1.0) + _least_squares(judge(fake), 0.0)
                terms[name] = both / 2
            terms[name].backward()
        self.judges_optimizer.step()
        return {name: term.item() for name, term in terms.items()}

    def _judges_learn(self, learn: bool) -> None:
        for judge in (self.judge_le, self.judge_des):
            judge.requires_grad_(learn)

    def _remembered(self, domain: str, fakes: Tensor, size: int = 50) -> Tensor:
        history, shown = self.history[domain], []
        for fake in fakes.detach():
            place, kept = int(self.random.integers(size)), len(history)
            if kept < size:
                history.append(fake)
            elif self.random.random() < 0.5:
                shown.append(history[place])
                history[place] = fake
                continue
            shown.append(fake)
        return torch.stack(shown)


def _least_squares(logits: Tensor, target: float) -> Tensor:
    return functional.mse_loss(logits, torch.full_like(logits, target))
