"""The L1-trained reference: a plain supervised step, and the same workflow around it as every other training has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bundle.losses import DiscriminatorObjective, LeastSquaresLoss, PairedObjective
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.paired_trainer import PairedTrainer
from bundle.terms import PairedLesionL1
from tests.conftest import in_memory
from tests.workflow import equal_networks, networks, train_options, workflow


def make_trainer(learning_rate: float = 1e-2) -> PairedTrainer:
    torch.manual_seed(0)
    network = in_memory(ResnetGenerator(width=4, blocks=1).double())
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    return PairedTrainer("cpu", 1, [], network, optimizer, PairedObjective())


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


def test_with_a_lesion_term_they_do(batch: dict[str, torch.Tensor]) -> None:
    trainer = make_trainer()
    trainer.loss_function = PairedObjective(terms=[PairedLesionL1(2.0, "image")])
    output = trainer._iteration(trainer, batch)[0]
    error = (output["pred"] - batch["label"]).abs()
    torch.testing.assert_close(output["paired_lesion"], 2 * (error * batch["label_mask"]).mean())
    torch.testing.assert_close(output["loss"], output["paired"] + output["paired_lesion"])


def make_pix2pix() -> PairedTrainer:
    torch.manual_seed(0)
    network, judge = in_memory(ResnetGenerator(width=4, blocks=1).double()), in_memory(PatchGAN(2, 4).double())
    optimizers = [torch.optim.SGD(one.parameters(), lr=1e-2) for one in (network, judge)]
    objectives = PairedObjective(100.0, adversarial=LeastSquaresLoss()), DiscriminatorObjective()
    return PairedTrainer("cpu", 1, [], network, optimizers[0], objectives[0], judge, optimizers[1], objectives[1])


def test_with_a_discriminator_it_is_pix2pix(batch: dict[str, torch.Tensor]) -> None:
    trainer, other = make_pix2pix(), make_pix2pix()
    output = trainer._iteration(trainer, batch)[0]
    network, judge = other.network, other.discriminator_b
    assert judge is not None
    x, y = batch["image"], batch["label"]
    fake = network(x)
    loss = 100 * (fake - y).abs().mean() + (judge(torch.cat((x, fake), 1)) - 1).square().mean()
    loss.backward()
    other.optimizer.step()
    judge.zero_grad()
    real, made = judge(torch.cat((x, y), 1)), judge(torch.cat((x, fake.detach()), 1))
    judged = 0.5 * ((real - 1).square().mean() + made.square().mean())
    judged.backward()
    other.discriminator_optimizer.step()
    torch.testing.assert_close(output["loss"], loss.detach())
    torch.testing.assert_close(output["D_B"], judged.detach())
    for ours, theirs in zip(trainer.networks.values(), other.networks.values(), strict=True):
        for one, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, expected)


def test_half_an_adversary_is_refused() -> None:
    trainer = make_trainer()
    with pytest.raises(ValueError, match="give all of them, or none"):
        PairedTrainer("cpu", 1, [], trainer.network, trainer.optimizer, PairedObjective(adversarial=LeastSquaresLoss()))


def test_images_of_different_shape_are_refused(batch: dict[str, torch.Tensor]) -> None:
    trainer = make_trainer()
    with pytest.raises(ValueError, match="they must agree"):
        trainer._iteration(trainer, batch | {"label": batch["label"][..., :16]})


@pytest.mark.parametrize(("overlay", "trained"), [("l1", ["network"]), ("pix2pix", ["network", "discriminator_b"])])
def test_the_overlay_trains_its_networks_and_resumes_exactly(
    tiny_dataset: Path, tmp_path: Path, overlay: str, trained: list[str]
) -> None:
    options = {"warmup_epochs": 0, "max_epochs": 2}
    workflow("train.json", f"{overlay}.yaml", **train_options(tiny_dataset, tmp_path / "once", **options)).run()
    for epochs in (1, 2):
        parts = train_options(tiny_dataset, tmp_path / "parts", **options | {"max_epochs": epochs, "resume": True})
        workflow("train.json", f"{overlay}.yaml", **parts).run()
    assert list(networks(tmp_path / "once")) == trained
    assert equal_networks(tmp_path / "once", tmp_path / "parts")
    assert json.loads((tmp_path / "once" / "run.json").read_text())["status"] == "completed"
    weights = torch.load(tmp_path / "once" / "model.pt", weights_only=True)
    assert weights.keys() == networks(tmp_path / "once")["network"].keys()
