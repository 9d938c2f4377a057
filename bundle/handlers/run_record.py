"""The record of a run: what was trained, with which versions, on which data, and how far it came."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch
from ignite.engine import Engine, Events

from bundle import ranks
from bundle.files import json_text, remove_unfinished_in, sha256_of, write_text
from bundle.handlers.curves import BestSoFar
from bundle.resumable_trainer import ResumableTrainer, TrainingEvents
from bundle.threads import thread_pool
from bundle.version import bundle_version

__all__ = ["RunRecord", "data_hash"]

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "scipy", "pandas", "pillow", "pydicom", "nibabel", "itk")
_MODULES = {"pytorch-ignite": "ignite", "pillow": "PIL"}
_FILE_KEYS = ("image", "label", "mask", "label_mask")


class RunRecord:
    """Writes ``run.json`` at the start of a training, after every epoch and at its end, each time as a whole.

    It holds the versions of the bundle and its libraries, git revision, seed, command, config, settings, hash of the
    data, kind of machine, times, epochs and the best metric, so that a result can be traced to what made it. ``status``
    is running, completed, stopped early, or failed, then with the type of the error. The home folder is written as
    ``~``, and neither host nor user names are recorded. After a resume the first start is kept, and ``seconds``, the
    time up to the last epoch that counts, goes on. Attach it to the
    trainer; rank 0 writes.

    Args:
        output_dir: folder of the run.
        config: the config as its files and overrides make it, with its references (``@id``) and expressions unresolved;
            values JSON does not know become text.
        seed: seed of the run.
        cases: all cases (``image``, ``label``, ``mask`` … are paths), for `data_hash`; none = not recorded.
        best: holds metric, best value and epoch, e.g. `bundle.selection.BestModel`.
        settings: what an evaluation has to share with the training (fold, image_size, scalings, digest of the data as
            ``data`` …), read again by `bundle.provenance.check_settings`.
    """

    def __init__(
        self,
        output_dir: str | Path,
        config: Mapping[str, Any] | None = None,
        seed: int | None = None,
        cases: Iterable[Mapping[str, Any]] | None = None,
        best: BestSoFar | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(output_dir) / "run.json"
        self.config = config
        self.seed = seed
        self.cases = cases
        self.best = best
        self.settings = settings
        self._record: dict[str, Any] = {}
        self._earlier_seconds = self._clock = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to the training engine."""
        if ranks.is_main_rank():
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: self._write(e, "running"))
            engine.add_event_handler(Events.COMPLETED, self._complete)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
            if isinstance(engine, ResumableTrainer):
                engine.add_event_handler(TrainingEvents.ENDING, self._complete)

    def _start(self, engine: Engine) -> None:
        remove_unfinished_in(self.path.parent, self.path.name)
        earlier = _earlier(self.path) if engine.state.epoch > 0 else {}
        seconds = earlier.get("seconds")
        self._earlier_seconds = float(seconds) if isinstance(seconds, (int, float)) else 0.0
        self._clock = time.monotonic()
        self._record = {
            "bundle": {"name": "cesm_virtual_contrast", "version": bundle_version(), "git": _git_revision()},
            "started": earlier.get("started") or _now(),
            "resumed_after_epoch": engine.state.epoch or None,
            "command": sys.argv,
            "seed": self.seed,
            "settings": self.settings,
            "data": data_hash(self.cases) if self.cases is not None else None,
            "versions": {"python": platform.python_version()} | _versions(),
            "machine": _machine(),
            "config": self.config,
        }
        self._write(engine, "running")

    def _complete(self, engine: Engine) -> None:
        self._write(engine, "completed" if engine.state.epoch == engine.state.max_epochs else "stopped early")

    def _fail(self, engine: Engine, error: BaseException) -> NoReturn:
        if self._record:  # empty when the run failed before its start: the record of an earlier one stays
            with suppress(OSError):  # the error that is raised is the one that ended the run
                self._write(engine, "failed", type(error).__name__)
        raise error

    def _write(self, engine: Engine, status: str, error: str | None = None) -> None:
        progress: dict[str, Any] = {
            "status": status,
            "error": error,
            "updated": _now(),
            "seconds": round(self._earlier_seconds + time.monotonic() - self._clock, 1),
            "epoch": engine.state.epoch,
            "max_epochs": engine.state.max_epochs,
            "best": None,
        }
        if self.best is not None and self.best.best_epoch > 0:
            progress["best"] = {"metric": self.best.metric, "value": self.best.best, "epoch": self.best.best_epoch}
        write_text(self.path, _without_home(json_text(progress | self._record)))


def data_hash(cases: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Number of cases and files, and a SHA-256 over the content of every file in order, wherever the files lie.

    A case that is listed twice, for training and for validation, counts once.
    """
    listed = [*{str(case["image"]): case for case in cases}.values()]
    paths = [Path(str(case[key])) for case in listed for key in _FILE_KEYS if case.get(key)]
    total = hashlib.sha256()
    with thread_pool(min(8, os.cpu_count() or 1)) as pool:
        for digest in pool.map(_file_hash, paths):
            total.update(digest)
    return {"cases": len(listed), "files": len(paths), "sha256": total.hexdigest()}


def _file_hash(path: Path) -> bytes:
    return bytes.fromhex(sha256_of(path))


def _git_revision() -> str | None:
    """Commit of the bundle, with ``+changes`` when files differ from it; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        done = subprocess.run([git, "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)  # noqa: S603 (fixed words)
        return done.stdout.strip() if done.returncode == 0 else None

    top = ask("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != _ROOT:
        return None
    revision = ask("rev-parse", "HEAD")
    return revision + ("+changes" if ask("status", "--porcelain") else "") if revision else None


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES if find_spec(_MODULES.get(name, name)) is not None}


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "processes": ranks.world_size(),
    }


def _earlier(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _without_home(text: str) -> str:
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
