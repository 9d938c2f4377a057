"""A training that is killed and resumed ends as one that was never interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tests.conftest import ROOT
from tests.workflow import command, environment, equal_networks, run, train_options, workflow

# Everything that carries state from one epoch to the next is on.
STATEFUL: dict[str, Any] = {"pool_size": 5, "decay": 0.5, "max_epochs": 6, "augmentation_prob": 0.9}


def epoch_of(checkpoint: Path) -> int:
    try:
        return int(torch.load(checkpoint, weights_only=True)["epoch"])
    except FileNotFoundError:
        return 0


def kill_after_epoch(line: list[str], checkpoint: Path, epoch: int) -> None:
    process = subprocess.Popen([sys.executable, *line], cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    while process.poll() is None and epoch_of(checkpoint) < epoch:
        time.sleep(0.02)
    assert process.poll() is None, "the training ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_resume_after_kill_ends_bit_for_bit_like_an_uninterrupted_training(tiny_dataset: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    workflow("train.json", **train_options(tiny_dataset, whole, **STATEFUL)).run()
    line = command("training", "train.json", **train_options(tiny_dataset, killed, **STATEFUL))
    kill_after_epoch(line, killed / "checkpoint.pt", epoch=2)
    stopped_at = epoch_of(killed / "checkpoint.pt")
    assert 2 <= stopped_at < 6
    finished = run(*line, "--resume", "true")
    assert finished.returncode == 0, finished.stderr
    assert epoch_of(killed / "checkpoint.pt") == 6
    assert equal_networks(whole, killed)
    models = [torch.load(folder / "model.pt", weights_only=True) for folder in (whole, killed)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    one, other = (pd.read_csv(folder / "history.csv") for folder in (whole, killed))
    pd.testing.assert_frame_equal(one, other, check_like=True)


def test_resuming_a_complete_training_changes_nothing(tiny_dataset: Path, tmp_path: Path) -> None:
    options = train_options(tiny_dataset, tmp_path, max_epochs=1)
    workflow("train.json", **options).run()
    before = (tmp_path / "model.pt").read_bytes()
    workflow("train.json", **options, resume=True).run()
    assert epoch_of(tmp_path / "checkpoint.pt") == 1
    assert (tmp_path / "model.pt").read_bytes() == before


def test_more_epochs_can_be_added_to_a_complete_training(tiny_dataset: Path, tmp_path: Path) -> None:
    long, extended = tmp_path / "long", tmp_path / "extended"
    workflow("train.json", **train_options(tiny_dataset, long, max_epochs=2)).run()
    workflow("train.json", **train_options(tiny_dataset, extended, max_epochs=1)).run()
    workflow("train.json", **train_options(tiny_dataset, extended, max_epochs=2, resume=True)).run()
    assert equal_networks(long, extended)
