"""The L1-trained reference: a plain supervised step, and the same workflow around it as every other training has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bundle.networks import ResnetGenerator
from bundle.paired_trainer import PairedTrainer
from tests.conftest import in_memory
from tests.workflow import equal_networks, networks, train_options, workflow


def make_trainer(learning_rate: float = 1e-2) -> PairedTrainer:
    torch.manual_seed(0)
    network = in_memory(ResnetGenerator(width=4, blocks=1).double())
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    return PairedTrainer("cpu", 1, [], network, optimizer, torch.nn.L1Loss())


def test_a_step_is_one_step_down_the_mean_absolute_error(batch: dict[str, torch.Tensor]) -> None:
    trainer, reference = make_trainer(), make_trainer().network
    output = trainer._iteration(trainer, batch)[0]
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-2)
    pred = reference(batch["image"])
    loss = (pred - batch["label"]).abs().mean()
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(output["loss"], loss.detach())
    torch.testing.assert_close(output["pred"], pred.detach())
    for ours, expected in zip(trainer.network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)


def test_lesion_masks_do_not_matter(batch: dict[str, torch.Tensor]) -> None:
    with_masks, without = make_trainer(), make_trainer()
    losses = [with_masks._iteration(with_masks, batch)[0]["loss"]]
    losses.append(without._iteration(without, {key: batch[key] for key in ("image", "label")})[0]["loss"])
    assert losses[0] == losses[1]


def test_images_of_different_shape_are_refused(batch: dict[str, torch.Tensor]) -> None:
    trainer = make_trainer()
    with pytest.raises(ValueError, match="they must agree"):
        trainer._iteration(trainer, batch | {"label": batch["label"][..., :16]})


def test_the_overlay_trains_one_network_and_resumes_exactly(tiny_dataset: Path, tmp_path: Path) -> None:
    options = {"warmup_epochs": 0, "max_epochs": 2}
    workflow("train.json", "l1.yaml", **train_options(tiny_dataset, tmp_path / "once", **options)).run()
    for epochs in (1, 2):
        parts = train_options(tiny_dataset, tmp_path / "parts", **options | {"max_epochs": epochs, "resume": True})
        workflow("train.json", "l1.yaml", **parts).run()
    assert list(networks(tmp_path / "once")) == ["network"]
    assert equal_networks(tmp_path / "once", tmp_path / "parts")
    assert json.loads((tmp_path / "once" / "run.json").read_text())["status"] == "completed"
    weights = torch.load(tmp_path / "once" / "model.pt", weights_only=True)
    assert weights.keys() == networks(tmp_path / "once")["network"].keys()
