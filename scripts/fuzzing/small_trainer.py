"""A training of the smallest networks, for the readers of its files and for making them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from bundle.checkpoint import TrainingCheckpoint
from bundle.losses import DiscriminatorObjective, GeneratorObjective
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.trainer import CycleGANTrainer

__all__ = ["NAMES", "checkpoint", "network_of", "saver", "trainer"]

NAMES = ("network", "generator_ba", "discriminator_a", "discriminator_b")


def network_of(name: str) -> nn.Module:
    """A generator or a discriminator with the same weights each time."""
    torch.manual_seed(NAMES.index(name))
    return PatchGAN(width=4, layers=1) if name.startswith("discriminator") else ResnetGenerator(width=4, blocks=1)


def trainer() -> CycleGANTrainer:
    """A trainer that has not begun, with image pools."""
    g_ab, g_ba, d_a, d_b = (network_of(name) for name in NAMES)
    of_g, of_d = (torch.optim.Adam([*a.parameters(), *b.parameters()]) for a, b in ((g_ab, g_ba), (d_a, d_b)))
    objectives = GeneratorObjective(), DiscriminatorObjective()
    return CycleGANTrainer("cpu", 1, [], g_ab, g_ba, d_a, d_b, of_g, of_d, *objectives, pool_size=2)


def saver(path: Path) -> TrainingCheckpoint:
    """The checkpoint of such a training, to be resumed."""
    return TrainingCheckpoint(path, resume=True, settings={"fold": 0, "data": "x"})


def checkpoint() -> bytes:
    """What such a training saves after a step."""
    made = trainer()
    for optimizer in made.optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.pt")
        saver(path).save(made)
        return path.read_bytes()
