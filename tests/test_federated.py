"""A federation's client trains in rounds as one training does, and exchanges what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, ModelType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from bundle.federated import CESMAlgo, Exchange, served_weights
from bundle.networks import ResnetGenerator
from bundle.weights import load_weights
from tests.conftest import ROOT, TINY
from tests.workflow import equal_networks, workflow

# All that goes on from epoch to epoch is on.
STATEFUL: dict[str, Any] = {"pool_size": 5, "decay": 0.5, "max_epochs": 4, "augmentation_prob": 0.9, "patience": 0}
OTHERS = ("generator_ba", "discriminator_a", "discriminator_b")


@pytest.fixture(scope="module", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Drawing takes more time than these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bundle.handlers.panels.Panels._draw", lambda _: None)
        patch.setattr("bundle.handlers.curves.Curves._draw", lambda _: None)
        yield


def options(dataset: Path, output: Path, **others: Any) -> dict[str, Any]:
    return {**TINY, **STATEFUL, "dataset_dir": str(dataset), "output_dir": str(output), "device": "cpu", **others}


def site(dataset: Path, output: Path, exchange: Exchange = "all", diff: bool = False, **others: Any) -> CESMAlgo:
    own = options(dataset, output, **others)
    algo = CESMAlgo(str(ROOT), exchange, local_epochs=2, send_weight_diff=diff, train_kwargs=own)
    algo.initialize({ExtraItems.CLIENT_NAME: output.name})
    return algo


def stock(dataset: Path, output: Path) -> MonaiAlgo:
    """MONAI's client as it comes."""
    own = options(dataset, output, model_path=str(output / "model.pt"))
    algo = MonaiAlgo(
        str(ROOT), 2, send_weight_diff=False, train_kwargs=own, eval_kwargs=own,
        config_evaluate_filename="configs/train.json",
    )  # fmt: skip
    algo.initialize({ExtraItems.CLIENT_NAME: output.name})
    return algo


MAKERS: dict[str, Callable[[Path, Path], MonaiAlgo]] = {
    "MonaiAlgo": stock,
    "generator": lambda dataset, output: site(dataset, output, "generator"),
    "all": lambda dataset, output: site(dataset, output, "all"),
}


def weights(algo: MonaiAlgo) -> dict[str, Tensor]:
    """What a site sends; in a federation they pass through a file or a network, so a copy."""
    return {name: tensor.clone() for name, tensor in algo.get_weights().weights.items()}


def train(algo: MonaiAlgo, received: dict[str, Tensor]) -> dict[str, Tensor]:
    """One round of a site."""
    algo.train(ExchangeObject(weights=received))
    return weights(algo)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted")
    others = {"bundle_root": str(ROOT), "model_path": str(output / "model.pt")}
    workflow("train.json", **options(tiny_dataset, output), **others).run()
    return output


@pytest.mark.parametrize("client", MAKERS)
def test_two_rounds_of_one_site_are_one_training_of_twice_the_epochs_bit_for_bit(
    tiny_dataset: Path, tmp_path: Path, uninterrupted: Path, client: str
) -> None:
    algo = MAKERS[client](tiny_dataset, tmp_path)
    for _ in range(2):
        received = weights(algo)
        algo.evaluate(ExchangeObject(weights=received))
        train(algo, received)
    assert equal_networks(uninterrupted, tmp_path)
    saved = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (uninterrupted, tmp_path)]
    assert saved[0]["epoch"] == saved[1]["epoch"] == 4
    assert saved[0]["objects"] == saved[1]["objects"]  # schedules, best validation and its epoch
    pools = [content["ranks"][0]["pools"] for content in saved]
    assert all(torch.equal(pools[0][name]["rng"], pools[1][name]["rng"]) for name in "AB")
    assert all(torch.equal(a, b) for name in "AB" for a, b in zip(*(p[name]["images"] for p in pools), strict=True))
    history = [(folder / "history.csv").read_text() for folder in (uninterrupted, tmp_path)]
    assert history[0] == history[1]


def test_a_site_that_is_started_anew_between_rounds_goes_on_bit_for_bit(
    tiny_dataset: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    first = site(tiny_dataset, tmp_path)
    sent = train(first, weights(first))
    train(site(tiny_dataset, tmp_path, resume=True), sent)
    assert equal_networks(uninterrupted, tmp_path)


@pytest.mark.parametrize("exchange", ["generator", "all"])
def test_two_sites_go_on_from_the_average_of_what_they_sent(
    tiny_dataset: Path, tmp_path: Path, exchange: Exchange
) -> None:
    sites = [site(tiny_dataset, tmp_path / str(fold), exchange, fold=fold) for fold in (0, 1)]
    start = weights(sites[0])
    assert equal(start, weights(sites[1]))
    one, other = (train(algo, start) for algo in sites)
    assert not equal(one, other)
    average = {name: (one[name] + other[name]) / 2 for name in one}
    begun: list[dict[str, dict[str, Tensor]]] = []

    def remember(trainer: Any) -> None:
        copy = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in trainer.networks.items()}
        begun.append(copy)

    for algo in sites:
        algo.trainer.add_event_handler(Events.STARTED, remember)
        train(algo, average)
    assert all(equal(networks["network"], served_weights(average)) for networks in begun)
    assert all(equal(begun[0][name], begun[1][name]) == (exchange == "all") for name in OTHERS)


@pytest.mark.parametrize("exchange", ["generator", "all"])
def test_the_served_generator_is_taken_out_of_what_is_exchanged(
    tiny_dataset: Path, tmp_path: Path, exchange: Exchange
) -> None:
    algo = site(tiny_dataset, tmp_path, exchange)
    sent = weights(algo)
    assert {name.split(".")[0] for name in sent if exchange == "all"} <= {"network", *OTHERS}
    torch.save(served_weights({name: tensor.numpy() for name, tensor in sent.items()}), tmp_path / "served.pt")
    network = load_weights(ResnetGenerator(width=4, blocks=1), tmp_path / "served.pt")
    assert equal(dict(network.state_dict()), dict(algo.trainer.networks["network"].state_dict()))


@pytest.mark.parametrize("exchange", ["generator", "all"])
def test_received_weights_are_judged_on_the_validation_cases_and_leave_the_training_alone(
    tiny_dataset: Path, tmp_path: Path, exchange: Exchange
) -> None:
    algo = site(tiny_dataset, tmp_path, exchange)
    before = weights(algo)
    judged = []
    for factor in (1.0, 0.5, 1.0):
        received = ExchangeObject(weights={name: factor * tensor for name, tensor in before.items()})
        judged.append(algo.evaluate(received).metrics["mae"])
    assert judged[0] == judged[2] != judged[1]
    validation = algo.train_workflow.parser.get_parsed_content("validate#evaluator")
    validation.run()
    assert validation.state.metrics["mae"] == judged[0]
    assert equal(before, weights(algo))


def test_weight_differences_add_up_to_the_weights(tiny_dataset: Path, tmp_path: Path) -> None:
    full, change = site(tiny_dataset, tmp_path / "full"), site(tiny_dataset, tmp_path / "change", diff=True)
    start = weights(full)
    end, difference = train(full, start), train(change, start)
    assert all(torch.allclose(start[name] + difference[name], end[name], atol=1e-7) for name in end)


def test_weights_once_sent_are_not_changed_by_the_next_round(tiny_dataset: Path, tmp_path: Path) -> None:
    algo = site(tiny_dataset, tmp_path)
    algo.train(ExchangeObject(weights=weights(algo)))
    sent: Any = algo.get_weights().weights
    kept = {name: tensor.clone() for name, tensor in sent.items()}
    assert not equal(train(algo, sent), kept)
    assert equal(sent, kept)


def test_the_number_of_steps_of_a_round_is_told_for_the_average(tiny_dataset: Path, tmp_path: Path) -> None:
    algo = site(tiny_dataset, tmp_path)
    for _ in range(2):
        algo.train(ExchangeObject(weights=weights(algo)))
        assert algo.get_weights().statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == 4  # 6 cases, 4 a batch, 2 epochs


def test_a_site_that_has_stopped_early_sends_back_what_it_received(tiny_dataset: Path, tmp_path: Path) -> None:
    algo = site(tiny_dataset, tmp_path, learning_rate=0.0, patience=1, warmup_epochs=0)
    start = weights(algo)
    train(algo, start)
    other = {name: 0.9 * tensor for name, tensor in start.items()}
    for _ in range(2):
        assert equal(train(algo, other), other)
        assert algo.get_weights().statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == 0


def test_a_best_model_is_kept_at_the_site_and_can_be_asked_for(tiny_dataset: Path, tmp_path: Path) -> None:
    shared = ROOT / "models" / "model.pt"
    before = shared.read_bytes() if shared.is_file() else None
    algo = site(tiny_dataset, tmp_path, "generator")
    train(algo, weights(algo))
    best: Any = algo.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
    assert equal(best, torch.load(tmp_path / "model.pt", weights_only=True))
    assert (shared.read_bytes() if shared.is_file() else None) == before


@pytest.mark.parametrize("exchange", ["generator", "all"])
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    tiny_dataset: Path, tmp_path: Path, exchange: Exchange
) -> None:
    algo = site(tiny_dataset, tmp_path, exchange)
    start = weights(algo)
    first = next(iter(start))
    fewer = {name: torch.zeros_like(tensor) for name, tensor in start.items() if name != first}
    for wrong in (fewer, fewer | {first: start[first], "unknown": torch.zeros(1)}):
        with pytest.raises(ValueError, match=r"do not fit: .*the network settings must be the same everywhere"):
            algo.train(ExchangeObject(weights=wrong))
    with pytest.raises(ValueError, match="1 missing"):
        algo.evaluate(ExchangeObject(weights=fewer))
    assert equal(weights(algo), start)


@pytest.mark.parametrize("exchange", ["generator", "all"])
def test_a_round_can_be_aborted_and_be_gone_on_with(tiny_dataset: Path, tmp_path: Path, exchange: Exchange) -> None:
    algo = site(tiny_dataset, tmp_path, exchange)
    abort: Any = algo.abort
    algo.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda _: abort())
    train(algo, weights(algo))
    assert algo.trainer.state.iteration == 1
    algo.trainer.run()
    assert algo.trainer.state.iteration == 4
    algo.finalize()


def test_an_option_that_nothing_reads_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing reads gama"):
        site(tiny_dataset, tmp_path, gama=35)
    with pytest.raises(ValueError, match="exchange is 'some'; expected one of generator, all"):
        CESMAlgo(str(ROOT), "some")  # type: ignore[arg-type]
