"""The pull of a term is what a small step along it does to the errors, and the table counts cases and patients."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bundle.losses import GeneratorObjective
from bundle.networks import PatchGAN, ResnetGenerator
from scripts import term_gradients
from scripts.explaining.source import Case
from scripts.explaining.term_gradients import case_pulls
from tests.report_study import write_json


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made = {name: ResnetGenerator(width=4, blocks=1) for name in ("network", "generator_ba")}
    judges = {name: PatchGAN(width=4, layers=2) for name in ("discriminator_a", "discriminator_b")}
    return {name: network.double() for name, network in (made | judges).items()}


def case() -> Case:
    torch.manual_seed(1)
    image, label = torch.rand(2, 1, 1, 32, 32, dtype=torch.float64) * 0.8 + 0.1
    mask = torch.zeros_like(image)
    mask[..., 12:20, 10:20] = 1
    return Case(image, label, mask, image > 0.05, mask)


def lesion_error(network: nn.Module, one: Case) -> Tensor:
    virtual: Tensor = network(one.image)
    return (virtual - one.label).abs()[one.mask > 0.5].mean()


def by_name(made: dict[str, nn.Module], objective: GeneratorObjective, one: Case) -> dict[str, dict[str, Any]]:
    return {str(row["terms"]): row for row in case_pulls(made, objective, one)}


def test_the_cosine_is_what_a_small_step_along_the_term_does_to_the_error() -> None:
    made, one = networks(), case()
    cosine = by_name(made, GeneratorObjective(), one)["identity"]["lesion_mae"]
    weights = list(made["network"].parameters())
    term = torch.autograd.grad((made["network"](one.label) - one.label).abs().mean(), weights)
    before = lesion_error(made["network"], one)
    steepest = torch.cat([part.flatten() for part in torch.autograd.grad(before, weights)]).norm()
    length, step = torch.cat([part.flatten() for part in term]).norm(), 1e-6
    with torch.no_grad():
        for weight, direction in zip(weights, term, strict=True):
            weight.sub_(step * direction / length)
        change = lesion_error(made["network"], one) - before
    assert float(change / (-step * steepest)) == pytest.approx(cosine, abs=1e-3)


def test_a_term_that_is_a_goal_itself_pulls_straight_towards_it() -> None:
    one = case()
    made = networks()
    whole = by_name(made, GeneratorObjective(gamma=0), Case(one.image, one.label, one.mask, one.mask > -1, one.mask))
    assert whole["paired"]["breast_mae"] == pytest.approx(1)
    assert abs(whole["cycle"]["breast_mae"]) < 0.99
    assert "lesion" not in whole
    assert whole["all"]["length"] == 1
    assert math.isnan(whole["paired"]["length"])


def test_without_a_lesion_there_is_nothing_to_pull_towards() -> None:
    one = case()
    none = torch.zeros_like(one.mask)
    found = by_name(networks(), GeneratorObjective(), Case(one.image, one.label, none, one.breast, none))
    assert math.isnan(found["cycle"]["lesion_mae"])
    assert math.isfinite(found["cycle"]["breast_mae"])


@pytest.fixture
def run(tiny_dataset: Path, tmp_path: Path) -> Path:
    """A trained CycleGAN, as far as its records go."""
    made, folder = networks(), tmp_path / "run"
    generator = {"_target_": "bundle.networks.ResnetGenerator", "width": 4, "blocks": 1}
    judge = {"_target_": "bundle.networks.PatchGAN", "width": 4, "layers": 2}
    values = {"network_def": generator, "discriminator_a_def": judge, "image_size": 32, "fold": 0}
    settings = {"image_size": 32, "fold": 0}
    write_json(folder / "run.json", {"config": values | {"dataset_dir": str(tiny_dataset)}, "settings": settings})
    torch.save({name: network.float().state_dict() for name, network in made.items()}, folder / "best_networks.pt")
    return folder


def test_the_command_prints_a_row_for_each_group_of_terms(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert term_gradients.main([str(run), "--cases", "3", "--quiet", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 cases of ")
    rows = [line.split(" | ")[0].strip("| ") for line in printed.splitlines()[4:]]
    assert rows == ["adversarial", "cycle", "identity", "lesion", "all", "paired"]
    assert "nan" not in printed


def test_a_training_without_discriminators_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"network": networks()["network"].float().state_dict()}, run / "best_networks.pt")
    assert term_gradients.main([str(run), "--quiet", "--device", "cpu"]) == 2
    assert "Give the output folder of a training with generators and discriminators" in capsys.readouterr().err
