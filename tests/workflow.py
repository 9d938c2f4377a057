"""Run the bundle's configs as a user does, on tiny data and networks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from tests.conftest import ROOT, TINY
from tests.forks import run_forked

CONFIGS = ROOT / "configs"


def train_options(dataset: Path, output: Path, **options: Any) -> dict[str, Any]:
    """Overrides for a training of seconds on ``dataset`` that writes below ``output`` only."""
    paths = {"bundle_root": str(ROOT), "dataset_dir": str(dataset), "output_dir": str(output)}
    return {**TINY, **paths, "model_path": str(output / "model.pt"), "device": "cpu", **options}


def workflow(*configs: str, kind: str = "train", **options: Any) -> ConfigWorkflow:
    """A workflow of the named config files with overrides, initialised."""
    files = [str(CONFIGS / name) for name in configs]
    made = ConfigWorkflow(config_file=files, workflow_type=kind, logging_file=False, **options)
    made.initialize()
    return made


def command(run_id: str, *configs: str, **options: Any) -> list[str]:
    """The command line that runs ``run_id`` of the named configs."""
    files = [f"configs/{name}" for name in configs]
    line = ["-m", "monai.bundle", "run", run_id, "--config_file", str(files)]
    for name, value in options.items():
        line += [f"--{name}", str(value)]
    return line


def environment() -> dict[str, str]:
    """One thread a process: several at once would slow each other down."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(*line: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this command line in the bundle's root, in a copy of this process."""
    return run_forked([*line], ROOT, environment())


def networks(output: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The four networks in the checkpoint of a run."""
    saved: dict[str, dict[str, torch.Tensor]] = torch.load(output / "checkpoint.pt", weights_only=True)["networks"]
    return saved


def equal_networks(a: Path, b: Path) -> bool:
    """Whether two runs ended with the same weights, bit for bit."""
    one, other = networks(a), networks(b)
    return all(torch.equal(one[net][name], other[net][name]) for net in one for name in one[net])
