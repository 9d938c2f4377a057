"""What a fault may leave behind is mended by the run that goes on, and what cannot be written is named."""

from __future__ import annotations

import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events

from bundle.checkpoint import TrainingCheckpoint, save_atomically
from bundle.errors import root_cause
from bundle.files import UnwritableError, atomic_path, remove_unfinished_in
from bundle.handlers import Curves, FailureMonitor, Panels
from bundle.handlers.monitors import NonFiniteLossError
from bundle.resumable_trainer import TrainingEvents
from bundle.trainer import CycleGANTrainer
from scripts import processes

MakeTrainer = Callable[..., CycleGANTrainer]
Batch = dict[str, torch.Tensor]


def save_too_much(path: Path, said: Path) -> None:
    """To be run in a process of its own."""
    save_atomically({"old": torch.ones(1)}, path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save_atomically({"new": torch.ones(1_000_000)}, path)
    except OSError as error:
        said.write_text(f"{type(error).__name__}: {error}")


def dead_process() -> int:
    """The number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def trained(trainer: CycleGANTrainer, batch: Batch, epochs: int) -> CycleGANTrainer:
    """Ready to run so many epochs of one step."""
    trainer.data_loader, trainer.state.epoch_length, trainer.state.max_epochs = [batch], 1, epochs
    return trainer


def test_a_worker_that_does_not_end_when_the_work_is_done_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PATIENCE", 0.3)
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    stuck, *others = {pool.submit(os.getpid).result(), *(pool._processes or {})}
    os.kill(stuck, signal.SIGSTOP)  # stands for one that waits for a lock of a worker that was killed
    workers = list((pool._processes or {}).values())
    processes.close_pool(pool)
    for worker in workers:
        assert connection.wait([worker.sentinel], 30)
    assert others


def test_only_what_dead_processes_left_of_the_named_files_is_removed(tmp_path: Path) -> None:
    dead = dead_process()
    ours, others = f".model.{dead}.pt", f".notes.{dead}.pt"
    for name in (ours, others, f".model.{os.getppid()}.pt", f".model.{os.getpid()}.pt", ".model.x.pt", "model.pt"):
        (tmp_path / name).touch()
    remove_unfinished_in(tmp_path, "model.pt", "epoch_*.png")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {others, f".model.{os.getppid()}.pt", ".model.x.pt", "model.pt"}
    remove_unfinished_in(tmp_path / "missing", "model.pt")


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fill() -> None:
        with atomic_path(path) as unfinished:
            unfinished.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(UnwritableError, match=rf"{path} cannot be written: No space left on device.*Make room") as met:
        fill()
    assert root_cause(met.value) is met.value  # what is shown last has the name in it
    assert (met.value.errno, met.value.strerror) == (28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_that_a_library_words_anew_is_named_too(tmp_path: Path) -> None:
    def fill() -> None:
        with atomic_path(tmp_path / "a.dcm"):
            raise OSError("With tag (7FE0,0010) got exception") from OSError(28, "No space left on device")

    with pytest.raises(UnwritableError, match=r"a\.dcm cannot be written: No space left on device"):
        fill()


def test_a_dead_process_whose_end_nobody_asked_for_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # has ended, and is still listed
        (tmp_path / f".model.{process.pid}.pt").touch()
        remove_unfinished_in(tmp_path, "model.pt")
        assert not list(tmp_path.iterdir())


def test_weights_for_which_there_is_no_room_are_named_although_torch_says_something_else(tmp_path: Path) -> None:
    path, said = tmp_path / "weights" / "model.pt", tmp_path / "said.txt"
    process = multiprocessing.get_context("fork").Process(target=save_too_much, args=(path, said))
    process.start()
    process.join()
    assert said.read_text().startswith(f"UnwritableError: {path} cannot be written: File too large")
    assert torch.load(path, weights_only=True).keys() == {"old"}
    assert list(path.parent.iterdir()) == [path]


def test_the_last_checkpoint_is_written_after_what_is_to_be_there_at_the_end(
    make_trainer: MakeTrainer, batch: Batch, tmp_path: Path
) -> None:
    trainer = trained(make_trainer(), batch, 2)
    seen: list[tuple[int, bool]] = []
    trainer.add_event_handler(
        TrainingEvents.ENDING, lambda e: seen.append((e.state.epoch, (tmp_path / "checkpoint.pt").exists()))
    )
    Curves(tmp_path).attach(trainer)
    TrainingCheckpoint(tmp_path / "checkpoint.pt").attach(trainer)
    trainer.run()
    assert seen == [(2, True)]
    drawn, saved = (tmp_path / name for name in ("curves.png", "checkpoint.pt"))
    assert drawn.stat().st_mtime_ns < saved.stat().st_mtime_ns


def test_a_training_that_is_stopped_early_draws_before_its_last_checkpoint_too(
    make_trainer: MakeTrainer, batch: Batch, tmp_path: Path
) -> None:
    trainer = trained(make_trainer(), batch, 9)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda e: e.terminate())
    seen: list[int] = []
    trainer.add_event_handler(TrainingEvents.ENDING, lambda e: seen.append(e.state.epoch))
    TrainingCheckpoint(tmp_path / "checkpoint.pt").attach(trainer)
    trainer.run()
    assert seen == [2]


def test_a_column_without_figures_keeps_its_place_after_a_resume(tmp_path: Path) -> None:
    def run(folder: Path, first: int, last: int) -> None:
        engine = Engine(lambda *_: {"loss": torch.tensor(1 / 3)})
        evaluator = Engine(lambda *_: None)
        curves = Curves(folder, evaluator, draw_every=None)
        curves.attach(engine)

        def validate(engine: Engine) -> None:
            evaluator.state.epoch = engine.state.epoch
            evaluator.state.metrics = {"vif": math.nan if engine.state.epoch < 3 else 0.5, "psnr": 20.0 / 3}
            curves._complete_validation(evaluator)

        engine.add_event_handler(Events.EPOCH_COMPLETED, validate)
        engine.state.epoch_length, engine.state.max_epochs = 1, last
        engine.state.epoch = engine.state.iteration = first
        engine.run([0], max_epochs=last, epoch_length=1)

    run(tmp_path / "whole", 0, 3)
    for first, last in ((0, 2), (1, 2), (2, 3)):
        run(tmp_path / "parts", first, last)
    texts = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "parts")]
    assert texts[0] == texts[1]
    assert list(pd.read_csv(tmp_path / "whole" / "history.csv")) == ["epoch", "loss", "val_vif", "val_psnr"]


def test_panels_keep_their_rhythm_across_a_resume(tmp_path: Path) -> None:
    dead = dead_process()
    (tmp_path / "panels").mkdir()
    for name in ("epoch_0001.png", "epoch_0006.png", "epoch_0011.png", f".epoch_0006.{dead}.png"):
        (tmp_path / "panels" / name).touch()
    engine, evaluator = Engine(lambda *_: None), Engine(lambda *_: None)
    panels = Panels(tmp_path, evaluator, interval=5)
    panels.attach(engine)
    engine.state.epoch = 8
    panels._resume(engine)
    assert panels._drawn_epoch == 6
    assert not (tmp_path / "panels" / f".epoch_0006.{dead}.png").exists()


def test_a_step_that_spoils_the_weights_is_noticed_before_they_are_saved(
    make_trainer: MakeTrainer, batch: Batch, tmp_path: Path
) -> None:
    trainer = trained(make_trainer(), batch, 3)
    FailureMonitor().attach(trainer)
    checkpoint = TrainingCheckpoint(tmp_path / "checkpoint.pt")
    checkpoint.attach(trainer)
    step = trainer.optimizer.step

    def spoil(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        if trainer.state.epoch == 2:
            next(iter(trainer.network.parameters())).data.view(-1)[0] = math.nan
        return result

    trainer.optimizer.step = spoil  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match=r"A weight of network is NaN .* go on from there \(--resume True\)"):
        trainer.run()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in saved["networks"]["network"].values())
    resumed = trained(make_trainer(), batch, 3)
    TrainingCheckpoint(tmp_path / "checkpoint.pt", resume=True).restore(resumed)
    resumed.run()
    assert resumed.state.epoch == 3
