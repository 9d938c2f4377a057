"""Training on two processes (gloo, CPU), as torchrun starts them."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from bundle.checkpoint import fingerprint
from bundle.losses import DiscriminatorObjective, GeneratorObjective, Normalisation
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.trainer import CycleGANTrainer
from tests.conftest import ROOT, in_memory
from tests.forks import Fork
from tests.workflow import command, environment, equal_networks, train_options, workflow

Batch = dict[str, torch.Tensor]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def build(wrap: Callable[[torch.nn.Module], torch.nn.Module], normalisation: Normalisation) -> CycleGANTrainer:
    torch.manual_seed(0)
    g_ab, g_ba, d_a, d_b = (wrap(in_memory(net.double())) for net in _networks())
    of_g, of_d = (torch.optim.Adam([*a.parameters(), *b.parameters()], lr=1e-3) for a, b in ((g_ab, g_ba), (d_a, d_b)))
    objective = GeneratorObjective(gamma=35, normalisation=normalisation)
    return CycleGANTrainer("cpu", 1, [], g_ab, g_ba, d_a, d_b, of_g, of_d, objective, DiscriminatorObjective())


def _networks() -> list[torch.nn.Module]:
    generators: list[torch.nn.Module] = [ResnetGenerator(width=4, blocks=1) for _ in range(2)]
    return [*generators, *[PatchGAN(width=4, layers=1) for _ in range(2)]]


def two_steps(trainer: CycleGANTrainer, batch: Batch) -> list[dict[str, torch.Tensor]]:
    """Gradients of two consecutive steps, by network and parameter."""
    results = []
    for _ in range(2):
        trainer._iteration(trainer, batch)
        named = ((f"{n}.{p}", t) for n, net in trainer.networks.items() for p, t in net.named_parameters())
        results.append({name: t.grad.clone() for name, t in named if t.grad is not None})
    return results


def rank_main(rank: int, port: int, batch: Batch, normalisation: Normalisation, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    share = {name: value[rank::2] for name, value in batch.items()}
    torch.save(two_steps(build(DistributedDataParallel, normalisation), share), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("normalisation", ["image", "mask"])
def test_the_effective_gradient_is_that_of_one_process_on_the_joint_batch(
    batch: Batch, tmp_path: Path, normalisation: Normalisation
) -> None:
    four = {name: torch.cat([value, value[:1].flip(3)]) for name, value in batch.items()}
    arguments = (free_port(), four, normalisation, str(tmp_path))
    mp.start_processes(rank_main, arguments, nprocs=2, start_method="fork")
    expected = two_steps(build(lambda net: net, normalisation), four)
    for rank in (0, 1):
        for ours, single in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected, strict=True):
            assert ours.keys() == single.keys()
            for name in single:
                torch.testing.assert_close(ours[name], single[name], atol=1e-10, rtol=0)


def on_two_processes(dataset: Path, output: Path, run_id: str = "training", overlays: Any = (), **options: Any) -> None:
    """What torchrun starts: two processes with their ranks in variables. tests/test_docs.py runs torchrun itself."""
    configs = ("train.json", *overlays, "multi_gpu_train.json")
    line = command(run_id, *configs, **train_options(dataset, output, **options))
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [Fork(line, ROOT, environment() | shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    for finished in [rank.wait() for rank in ranks]:
        assert finished.returncode == 0, finished.stderr[-3000:]


def test_two_processes_train_equal_networks_and_resume_exactly(tiny_dataset: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"pool_size": 3, "batch_size": 2}
    on_two_processes(tiny_dataset, tmp_path / "whole", max_epochs=2, **options)
    on_two_processes(tiny_dataset, tmp_path / "parts", max_epochs=1, **options)
    on_two_processes(tiny_dataset, tmp_path / "parts", max_epochs=2, resume=True, **options)
    assert equal_networks(tmp_path / "whole", tmp_path / "parts")
    state = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    first, second = (rank["fingerprint"] for rank in state["ranks"])
    assert first == second
    assert not torch.equal(*(torch.stack(rank["pools"]["A"]["images"]) for rank in state["ranks"]))


def test_evaluation_by_two_processes_gives_the_figures_of_one(tiny_dataset: Path, tmp_path: Path) -> None:
    workflow("train.json", **train_options(tiny_dataset, tmp_path, max_epochs=1)).run()
    summaries = []
    options = train_options(tiny_dataset, tmp_path)
    for evaluate in (
        lambda: workflow("train.json", "evaluate.json", run_id="evaluating", **options).run(),
        lambda: on_two_processes(tiny_dataset, tmp_path, "evaluating", ["evaluate.json"]),
    ):
        evaluate()
        summaries.append(json.loads((tmp_path / "summary.json").read_text()))
    one, two = (summary["predictors"] for summary in summaries)
    for predictor, summary in one.items():
        assert two[predictor]["cases"] == summary["cases"]
        for metric, figure in summary["metrics"].items():
            for name, value in figure.items():  # null where no case has the metric
                expected = None if value is None else pytest.approx(value, rel=1e-5, abs=1e-6)
                assert two[predictor]["metrics"][metric][name] == expected, (predictor, metric, name)


def test_validation_works_with_fewer_cases_than_processes(tiny_dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny_dataset, folder)
    content = json.loads((folder / "datalist.json").read_text())
    validation = [case for case in content["cases"] if case["fold"] == 1]
    content["cases"] = [case for case in content["cases"] if case["fold"] != 1] + validation[:1]
    (folder / "datalist.json").write_text(json.dumps(content))
    on_two_processes(folder, tmp_path / "run", max_epochs=1)
    assert "val_mae" in pd.read_csv(tmp_path / "run" / "history.csv")


def test_networks_that_drifted_apart_are_noticed(make_trainer: Callable[..., CycleGANTrainer]) -> None:
    one, other = make_trainer(), make_trainer()
    assert fingerprint(one) == fingerprint(other)
    next(other.networks["discriminator_b"].parameters()).data[0] += 1e-6
    assert fingerprint(one) != fingerprint(other)
