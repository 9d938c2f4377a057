"""One job of a study: train one arm on one fold with one seed, then evaluate it. It can be interrupted at any time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bundle.errors import root_cause
from bundle.files import json_text, naming, remove_unfinished_in, write_text

__all__ = ["Job", "finished_sections", "refuse_other_settings", "run_job"]

ROOT = Path(__file__).resolve().parents[2]
RECORD, LOG = "job.json", "log.txt"
EVALUATE = str(ROOT / "configs" / "evaluate.json")
LOCK_SECONDS = 60.0
"""A worker that was killed may need a moment to let go of its folder."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know. All paths are absolute: a worker has a working folder of its own.

    Args:
        arm: name of the arm.
        fold: test fold.
        seed: of the training.
        folder: output folder, ``<study>/<arm>/fold_<k>_seed_<s>``.
        configs: config files of the training, from left to right.
        overrides: values of the config, by name.
        sections: sections to evaluate, ``test`` and perhaps ``validation``.
        threads: CPU threads; the last digits of a training depend on them.
        data: digest of the datalist.
    """

    arm: str
    fold: int
    seed: int
    folder: str
    configs: tuple[str, ...]
    overrides: Mapping[str, Any]
    sections: tuple[str, ...] = ("test",)
    threads: int = 1
    data: str | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.arm}, fold {self.fold}, seed {self.seed}"

    def settings(self) -> dict[str, Any]:
        """What makes another job of it when it changes: overrides, data, threads, and the content of the configs."""
        own = {"data": self.data, "threads": self.threads, "configs": _digest(self.configs)}
        plain: dict[str, Any] = json.loads(json.dumps(own | dict(self.overrides), default=str))
        return plain | {"fold": self.fold, "seed": self.seed}


def finished_sections(job: Job) -> tuple[str, ...]:
    """The sections on which the job's model has been evaluated."""
    return tuple(_record(job).get("finished", ()))


def refuse_other_settings(job: Job) -> None:
    """Refuse a folder that holds the job with other settings.

    Raises:
        ValueError: naming what differs and what to do.
    """
    found = _record(job).get("settings")
    if found is None:
        return
    wanted = job.settings()
    keys = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
    changed = [f"{key} was {found.get(key)!r} and is {wanted.get(key)!r}" for key in keys]
    if changed:
        raise ValueError(
            f"{job.folder} holds a training with other settings ({'; '.join(changed)}). "
            "Give another --output, or delete that folder to train anew."
        )


def run_job(job: Job) -> str | None:
    """Train and evaluate, going on where an earlier attempt stopped; what is finished is not repeated.

    The output of both goes to ``log.txt`` in the job's folder.

    Returns:
        None, or what went wrong in one line.
    """
    folder = Path(job.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with naming(folder), FileLock(folder / ".lock", timeout=LOCK_SECONDS), _logged(folder / LOG):
            remove_unfinished_in(folder, RECORD)
            return _run(job)
    except Timeout:
        return f"{folder} is in use by another process"
    except OSError as error:  # of the lock or the log
        return f"{type(error).__name__}: {error}"


def _run(job: Job) -> str | None:
    todo = [section for section in job.sections if section not in finished_sections(job)]
    if not todo:
        return None
    _set_threads(job.threads)
    try:
        refuse_other_settings(job)
        if not finished_sections(job):
            _write_record(job, ())
            _workflow("training", job.configs, {**job.overrides, "resume": True})
        for section in todo:
            _workflow("evaluating", (*job.configs, EVALUATE), {**job.overrides, "section": section})
            _write_record(job, (*finished_sections(job), section))
    except (Exception, SystemExit) as error:  # whatever it is, the other jobs go on
        traceback.print_exc()
        cause = root_cause(error)
        return f"{type(cause).__name__}: {cause}" if not isinstance(cause, SystemExit) else "the data were refused"
    return None


def _workflow(run_id: str, configs: tuple[str, ...], overrides: Mapping[str, Any]) -> None:
    from monai.bundle import run

    run(run_id=run_id, config_file=list(configs), bundle_root=str(ROOT), **overrides)


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _record(job: Job) -> dict[str, Any]:
    try:
        content = json.loads((Path(job.folder) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_record(job: Job, finished: tuple[str, ...]) -> None:
    record = {"arm": job.arm, "settings": job.settings(), "finished": list(finished)}
    write_text(Path(job.folder) / RECORD, json_text(record))


def _digest(configs: tuple[str, ...]) -> str:
    """Of what the files say when merged; comments do not count."""
    from monai.bundle import ConfigParser

    merged = ConfigParser.load_config_files(list(configs))
    return hashlib.sha256(json.dumps(_without_comments(merged), sort_keys=True).encode()).hexdigest()[:16]


def _without_comments(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_comments(v) for k, v in value.items() if not str(k).endswith("_desc_")}
    return [_without_comments(v) for v in value] if isinstance(value, list) else value


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send all that this process prints to a file. Loggers made earlier hold on to the streams, so these stay."""
    os.environ["MPLBACKEND"] = "Agg"
    with path.open("a", encoding="utf-8") as log:
        saved = {number: os.dup(number) for number in (1, 2)}
        try:
            for number in saved:
                os.dup2(log.fileno(), number)
            yield
        finally:
            with contextlib.suppress(OSError):  # a full disk costs lines of the log, and not the job's result
                sys.stdout.flush()
                sys.stderr.flush()
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)
