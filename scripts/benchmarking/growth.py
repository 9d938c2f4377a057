"""What a step, the start of a training and a data check cost as what they are given grows, with fitted exponents."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from bundle import facts_cache
from bundle.data import EpochDataset, checked_cases, datalist_digest, section_cases
from bundle.losses import DiscriminatorObjective, GeneratorObjective
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.preflight import check_datalist
from bundle.trainer import CycleGANTrainer
from scripts.benchmarking.measure import Row, compare, exponent
from scripts.benchmarking.samples import write_dataset

__all__ = ["rows"]

PART = "growth"
ROOT = Path(__file__).resolve().parents[2]
SIZES = (128, 256, 512, 1024)
BATCHES = (1, 2, 4, 8)
CASES = (10, 100, 1000, 10000)
PROCESSES = (1, 2)
CACHED = 1000
"""Most cases whose images are all read into memory here."""


def rows(
    sizes: Sequence[int] = SIZES,
    batches: Sequence[int] = BATCHES,
    cases: Sequence[int] = CASES,
    processes: Sequence[int] = PROCESSES,
    budget_s: float = 6.0,
) -> list[Row]:
    """All tables; the networks are tiny (width 4, one block), the images of the data sets too.

    Args:
        sizes: sides of the images of a step.
        batches: images of a step.
        cases: entries of a datalist.
        processes: of a distributed step (gloo).
        budget_s: longest time for each size of a step.
    """
    found = _table("step, by side of the images", "px", sizes, lambda size: _step_seconds(size, 1, budget_s))
    found += _table("step of 128 px, by batch", "images", batches, lambda batch: _step_seconds(128, batch, budget_s))
    found += _data(cases)
    return found + _processes(processes)


def _table(what: str, unit: str, sizes: Sequence[int], cost: Callable[[int], float]) -> list[Row]:
    return _listed(what, unit, sizes, [cost(size) for size in sizes])


def _listed(what: str, unit: str, sizes: Sequence[int], costs: Sequence[float], target: str = "") -> list[Row]:
    """A row for each size, with the target at the largest, and one with the exponent where there are two sizes."""
    found = [
        Row(PART, f"{what}: {size} {unit}", cost, "s", target if size == max(sizes) else "")
        for size, cost in zip(sizes, costs, strict=True)
    ]
    if len(sizes) > 1:
        grown = exponent([float(size) for size in sizes], list(costs))
        found.append(Row(PART, f"{what}: exponent", grown, "", "", "1 is linear growth"))
    return found


# ---------------------------------------------------------------------------------------------------- steps
def _trainer(size: int, batch: int, wrapped: bool = False) -> tuple[CycleGANTrainer, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    networks: list[Any] = [ResnetGenerator(width=4, blocks=1) for _ in range(2)]
    networks += [PatchGAN(width=4, layers=2) for _ in range(2)]
    networks = [network.to(memory_format=torch.channels_last) for network in networks]
    parameters = [[p for network in two for p in network.parameters()] for two in (networks[:2], networks[2:])]
    optimizers = [torch.optim.Adam(part, lr=1e-4, fused=True) for part in parameters]
    if wrapped:
        networks = [DistributedDataParallel(network) for network in networks]
    images = {name: torch.rand(batch, 1, size, size) for name in ("image", "label", "mask")}
    objectives = GeneratorObjective(gamma=35.0), DiscriminatorObjective()
    parts: list[Any] = [*networks, *optimizers, *objectives]
    return CycleGANTrainer("cpu", 1, [images], *parts), images


def _step_seconds(size: int, batch: int, budget_s: float) -> float:
    trainer, images = _trainer(size, batch)
    contestants = {"step": lambda: trainer._iteration(trainer, dict(images))}  # noqa: SLF001 - without an engine
    return compare(contestants, 5, budget_s)["step"].median


def _processes(counts: Sequence[int]) -> list[Row]:
    """Images a second of all processes together; on a machine with fewer cores than threads they cannot grow."""
    seconds = [_distributed_seconds(count) for count in counts]
    found = _listed("distributed step of 128 px, batch 2 each", "processes (gloo)", counts, seconds)
    speed = [2 * count / one for count, one in zip(counts, seconds, strict=True)]
    if len(counts) > 1:
        note = f"one thread each: {', '.join(f'{one:.1f}' for one in speed)} images/s"
        gain = speed[-1] / speed[0]
        found.append(Row(PART, f"images/s with {counts[-1]} processes against {counts[0]}", gain, "x", "", note))
    return found


def _distributed_seconds(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_distributed_steps, (count, folder), nprocs=count)
        return float(Path(folder, "seconds").read_text())


def _distributed_steps(rank: int, count: int, folder: str, steps: int = 12) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    trainer, images = _trainer(128, 2, wrapped=True)
    taken = []
    for _ in range(steps):
        begun = time.perf_counter()
        trainer._iteration(trainer, dict(images))  # noqa: SLF001 - the step without an engine
        taken.append(time.perf_counter() - begun)
    if rank == 0:
        Path(folder, "seconds").write_text(str(sorted(taken[2:])[len(taken[2:]) // 2]))
    distributed.destroy_process_group()


# ---------------------------------------------------------------------------------------------------- data
def _data(counts: Sequence[int]) -> list[Row]:
    """The data check of a new and of an unchanged data set, the start of a training, and the images in memory."""
    cold, warm, start, cached = [], [], [], []
    with tempfile.TemporaryDirectory() as name, _own_cache(Path(name) / "cache"):
        folders = [write_dataset(Path(name) / str(number), number) for number in counts]
        time.sleep(facts_cache.SETTLED + 0.5)  # facts of files that were written just now are not kept
        for folder in folders:
            cold.append(_seconds(lambda folder=folder: _check(folder)))  # type: ignore[misc]
            warm.append(min(_seconds(lambda folder=folder: _check(folder)) for _ in range(3)))  # type: ignore[misc]
            start.append(min(_seconds(lambda folder=folder: _start(folder)) for _ in range(2)))  # type: ignore[misc]
        for folder, number in zip(folders, counts, strict=True):
            if number <= CACHED:
                cached.append(_seconds(lambda folder=folder: _start(folder, 1.0)))  # type: ignore[misc]
    target = "<= 5" if max(counts) == max(CASES) else ""
    return [
        *_listed("data check, no file known", "cases", counts, cold),
        *_listed("data check, nothing changed", "cases", counts, warm, target),
        *_listed("start of a training, nothing changed", "cases", counts, start),
        *_listed("the same with all images in memory", "cases", [n for n in counts if n <= CACHED], cached),
    ]


def _seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _check(folder: Path) -> None:
    problems = check_datalist(folder, progress=False)
    if problems:
        raise RuntimeError(f"the benchmark's own data set has a problem: {problems[0]}")


def _start(folder: Path, cache_rate: float = 0.0) -> None:
    """What a training does before its first step, but for the networks."""
    cases = checked_cases(folder)
    datalist_digest(folder)
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "train.json")
    parser["image_size"] = 32
    transform = parser.get_parsed_content("train#preprocessing")
    training = section_cases(cases, 0, "training")
    data = EpochDataset(training, transform, cache_rate=cache_rate, num_workers=2, progress=False)
    data[0]


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
