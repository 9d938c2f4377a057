"""A federation's client trains in rounds as one training does, and exchanges what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from bundle.federated import CESMAlgo, Exchange, served_weights
from bundle.networks import ResnetGenerator
from bundle.weights import load_weights
from tests.conftest import ROOT, TINY
from tests.workflow import equal_networks, networks, workflow

# All that goes on from epoch to epoch is on.
STATEFUL: dict[str, Any] = {"pool_size": 5, "decay": 0.5, "max_epochs": 4, "augmentation_prob": 0.9, "patience": 0}
NETWORKS = ("network", "generator_ba", "discriminator_a", "discriminator_b")


def options(dataset: Path, output: Path, **others: Any) -> dict[str, Any]:
    return {**TINY, **STATEFUL, "dataset_dir": str(dataset), "output_dir": str(output), "device": "cpu", **others}


def site(dataset: Path, output: Path, exchange: Exchange = "all", name: str = "site", **others: Any) -> CESMAlgo:
    epochs, diff = others.pop("local_epochs", 2), others.pop("send_weight_diff", False)
    algo = CESMAlgo(
        str(ROOT), exchange, local_epochs=epochs, send_weight_diff=diff, train_kwargs=options(dataset, output, **others)
    )
    algo.initialize({ExtraItems.CLIENT_NAME: name})
    return algo


def weights(algo: MonaiAlgo) -> dict[str, Tensor]:
    found: dict[str, Tensor] = algo.get_weights().weights
    return found


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rounds(algo: CESMAlgo, number: int = 2) -> None:
    """One client and no averaging: what it sends comes back."""
    for _ in range(number):
        received = ExchangeObject(weights=weights(algo))
        algo.evaluate(received)
        algo.train(received)


@pytest.fixture(scope="module")
def uninterrupted(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted")
    others = {"bundle_root": str(ROOT), "model_path": str(output / "model.pt")}
    workflow("train.json", **options(tiny_dataset, output), **others).run()
    return output


@pytest.mark.parametrize("exchange", ["generator", "all"])
def test_two_rounds_of_one_site_are_one_training_of_twice_the_epochs_bit_for_bit(
    tiny_dataset: Path, tmp_path: Path, uninterrupted: Path, exchange: Exchange
) -> None:
    rounds(site(tiny_dataset, tmp_path, exchange))
    assert equal_networks(uninterrupted, tmp_path)
    saved = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (uninterrupted, tmp_path)]
    assert saved[0]["epoch"] == saved[1]["epoch"] == 4
    assert saved[0]["objects"] == saved[1]["objects"]
