"""A study: arms, folds and seeds, and the jobs that they make. ``scripts/report.py`` shows its folder."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.data import caveats, datalist_digest, read_datalist
from bundle.files import json_text, write_text
from scripts.evidence.arms import Arm
from scripts.evidence.jobs import Job

__all__ = ["Study", "described", "write_study"]


@dataclass(frozen=True)
class Study:
    """What is asked for.

    Args:
        folder: output folder.
        dataset_dir: folder with the datalist.
        arms: in the order of the tables; the first is what the others are compared with in print.
        folds: test folds.
        seeds: of the trainings.
        configs: config files that all arms share.
        overrides: values of the config that all arms share.
        sections: to evaluate, ``test`` and perhaps ``validation``.
        threads: CPU threads of a job.
        title: for the report.
    """

    folder: Path
    dataset_dir: Path
    arms: tuple[Arm, ...]
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    configs: tuple[str, ...]
    overrides: Mapping[str, Any]
    sections: tuple[str, ...] = ("test",)
    threads: int = 1
    title: str = "Cross-validation"

    def jobs(self) -> list[Job]:
        """All jobs, fold by fold, so that the arms can be compared as soon as one fold is done."""
        data = datalist_digest(self.dataset_dir)
        return [
            self._job(arm, fold, seed, data) for seed, fold, arm in itertools.product(self.seeds, self.folds, self.arms)
        ]

    def _job(self, arm: Arm, fold: int, seed: int, data: str | None) -> Job:
        folder = self.folder / arm.name / f"fold_{fold}_seed_{seed}"
        place = {
            "dataset_dir": str(self.dataset_dir),
            "output_dir": str(folder),
            "model_path": str(folder / "model.pt"),
        }
        overrides = {**self.overrides, **arm.overrides, **place, "fold": fold, "seed": seed}
        return Job(arm.name, fold, seed, str(folder), (*self.configs, *arm.overlays), overrides, self.sections,
                   self.threads, data)  # fmt: skip


def write_study(study: Study) -> None:
    """Write ``study.json``: what the study is about."""
    datalist = read_datalist(study.dataset_dir)
    content = {
        "title": study.title,
        "dataset": datalist.get("name"),
        "synthetic": bool(datalist.get("synthetic")),
        "arms": {arm.name: arm.description for arm in study.arms},
        "folds": list(study.folds),
        "seeds": list(study.seeds),
        "caveats": caveats(study.dataset_dir),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    write_text(study.folder / "study.json", json_text(content))


def described(job: Job) -> str:
    """How far a job that is under way has come, from its run record."""
    try:
        record = json.loads((Path(job.folder) / "run.json").read_text(encoding="utf-8"))
        return f"{job.arm}/{job.fold} epoch {record['epoch']}/{record['max_epochs']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
