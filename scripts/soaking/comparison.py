"""Whether what a disturbed run left is what an undisturbed one leaves."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scripts.soaking.material import Place

__all__ = ["Found", "compare", "unloadable", "weights_in"]

_LOCKS = {".lock", ".output.lock"}
_UNCOMPARED = ("tensorboard/", "log.txt", "data_digest.txt")
"""What other libraries write line by line, what a run says while it runs, and what tells the folder of the data."""
_TIMES = {
    "run.json": {"started", "updated", "seconds", "resumed_after_epoch", "command", "bundle", "config", "machine"},
    "study.json": {"command"},
}
"""Keys of JSON files that tell when, where or by what command."""


@dataclass
class Found:
    """What is wrong: results that are not there (or files that cannot be read), and results that are others."""

    lost: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Add what else was found."""
        self.lost += other.lost
        self.differences += other.differences


def weights_in(folder: Path) -> list[Path]:
    """All weights and checkpoints; folders may come and go meanwhile, which ``rglob`` does not bear."""
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in files if path.suffix == ".pt" and not path.name.startswith("."))


def unloadable(path: Path) -> str | None:
    """Why a file of weights cannot be loaded, or None."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return f"{path.name} is gone"
    except Exception as error:  # whatever it is, the file is no good
        return f"{path.name} cannot be loaded: {type(error).__name__}"
    return None


def compare(place: Place, reference: Place, finished: bool = True, loader_workers: bool = False) -> Found:
    """Compare the results of a run with those of an undisturbed one.

    Args:
        place: folders of the run.
        reference: folders of the other one.
        finished: whether the command has ended as it should; else only what it must not leave behind counts.
        loader_workers: whether processes loaded data for one of the runs. Torch then draws a seed for them as often as
            they are started, so that random numbers which nothing of the training reads are others.
    """
    found = Found()
    for path in weights_in(place.output):
        problem = unloadable(path)
        if problem is not None:
            found.lost.append(problem)
    if (place.output / "notes.txt").read_text(encoding="utf-8") != "not of the run":
        found.differences.append("notes.txt, which is not of the run, was overwritten")
    if not finished:
        return found
    ours, theirs = (dict(_files(one)) for one in (place, reference))
    found.lost += [f"{name} is missing" for name in sorted(theirs.keys() - ours.keys())]
    found.differences += [f"{name} is left over" for name in sorted(ours.keys() - theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        if _content(ours[name], place, loader_workers) != _content(theirs[name], reference, loader_workers):
            found.differences.append(f"{name} differs")
    return found


def _files(place: Place) -> Iterator[tuple[str, Path]]:
    for folder in (place.output, place.root / "private"):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(place.root).as_posix()
            inner = path.relative_to(folder).as_posix()
            if path.is_file() and path.name not in _LOCKS and not any(part in inner for part in _UNCOMPARED):
                yield name, path


def _content(path: Path, place: Place, loader_workers: bool) -> Any:
    """The content of a file as something that can be compared, without times and the folder of the run."""
    if path.suffix == ".pt":
        content = torch.load(path, map_location="cpu", weights_only=True)
        if loader_workers and path.name == "checkpoint.pt":
            content["ranks"] = [{**rank, "torch": None} for rank in content["ranks"]]
        return _comparable(content)
    if path.suffix not in (".json", ".csv"):
        return path.read_bytes()
    text = path.read_text(encoding="utf-8").replace(str(place.root), "ROOT")
    if path.name == "key.csv":  # keeps what earlier runs have named, also a file that only they had to name
        return sorted(line for line in text.splitlines() if not line.endswith("readme.txt"))
    if path.name == "report.csv":
        return sorted(_outcome(row) for row in csv.DictReader(io.StringIO(text)))
    return text if path.suffix == ".csv" else _without_times(path, json.loads(text))


def _without_times(path: Path, content: Any) -> Any:
    if path.parent.name == ".prepared" and isinstance(content, dict):
        # changes with the times of the sources' files, by which a run sees what is to be done again
        return {key: value for key, value in content.items() if key not in ("fingerprint", "circumstances")}
    if path.name == "job.json":
        content = {**content, "settings": {**content["settings"], "data": None}}
    dropped = _TIMES.get(path.name, set())
    return {key: value for key, value in content.items() if key not in dropped} if dropped else content


def _outcome(row: Mapping[str, str]) -> tuple[str, ...]:
    """A result that exists is skipped by the next run: that is no difference."""
    there = row["status"] in ("done", "skipped")
    return row["image"], "there" if there else row["status"], row["output"], "" if there else row["reason"]


def _comparable(value: Any) -> Any:
    """Tensors as their bits."""
    if isinstance(value, torch.Tensor):
        whole = value.detach().contiguous()
        return str(value.dtype), tuple(value.shape), whole.reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, Mapping):
        return {str(key): _comparable(one) for key, one in value.items()}
    return [_comparable(one) for one in value] if isinstance(value, (list, tuple)) else repr(value)
