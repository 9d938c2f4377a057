"""What goes wrong inside a run: changes of Python's own functions, made in the forked process before the run starts."""

from __future__ import annotations

import builtins
import contextlib
import errno
import importlib
import io
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "at_operation", "clock_jumps", "count_operations", "dies", "exhausted_memory", "import_noted", "limited_files",
    "no_memory_in_step", "non_finite", "note_imports", "plain_pictures", "started_by_fork", "stops", "unreadable",
]  # fmt: skip


def _wrap(owner: Any, name: str, before: Callable[..., None], after: Callable[..., None] | None = None) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        before(*arguments)
        result = original(*arguments, **options)
        if after is not None:
            after(*arguments)
        return result

    setattr(owner, name, wrapped)


def count_operations(record: Path) -> None:
    """Write down how many files were brought to the disk and renamed, in all processes of a run together."""

    def note(*_: Any) -> None:
        with record.open("ab") as file:
            file.write(b".")

    _wrap(os, "fsync", note)
    _wrap(os, "replace", note)


class _Noted(MetaPathFinder):
    def __init__(self, record: Path) -> None:
        self.record = record

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        with self.record.open("a", encoding="utf-8") as file:
            file.write(f"{fullname}\n")


def note_imports(record: Path) -> None:
    """Write down every module that is imported from here on, in all processes of a run together."""
    sys.meta_path.insert(0, _Noted(record))


def import_noted(record: Path) -> None:
    """Import what was written down, as far as it can be, so that forked processes need not."""
    for name in dict.fromkeys(record.read_text(encoding="utf-8").split()):
        with contextlib.suppress(Exception):  # what is optional may be missing
            importlib.import_module(name)


def at_operation(number: int, late: bool, action: Callable[[], None], half: bool = False) -> None:
    """Do something before or after (``late``) the file operation of this number; ``half`` cuts the file in hand first.

    Operations are counted in each process, so that processes that are forked count from where they began.
    """
    done = [0]

    def before(*arguments: Any) -> None:
        done[0] += 1
        if done[0] == number and not late:
            if half and isinstance(arguments[0], int):
                os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            action()

    def after(*_: Any) -> None:
        if done[0] == number and late:
            action()

    _wrap(os, "fsync", before, after)
    _wrap(os, "replace", before, after)


def dies(mark: Path, whole_group: bool) -> None:
    """``kill -9`` of this process, or of all processes of the run at once; only the first time that it is called."""
    if mark.exists():
        return
    mark.touch()
    if whole_group:
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def stops(mark: Path) -> None:
    """Hold this process until it is continued; say so in a file first. Only the first time that it is called."""
    if mark.exists():
        return
    mark.write_text(str(os.getpid()), encoding="utf-8")
    os.kill(os.getpid(), signal.SIGSTOP)


def unreadable(path: Path) -> None:
    """Let opening a file end in an input/output error, as on a damaged disk."""

    def check(file: Any, mode: str = "r", *_: Any) -> None:
        if isinstance(file, (str, os.PathLike)) and "r" in mode and os.path.abspath(os.fspath(file)) == str(path):  # noqa: PTH100 - called for every file
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))

    _wrap(io, "open", check)
    _wrap(builtins, "open", check)


def limited_files(most: int) -> None:
    """No file grows above so many bytes: the errors of a full disk where none can be made."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def exhausted_memory(extra: int, in_jobs: bool) -> None:
    """This process gets so many bytes of memory more, and no others; a study's jobs do, each in its process."""
    from scripts.evidence import jobs

    if not in_jobs:
        _limit_memory(extra)
        return
    run = jobs._run  # noqa: SLF001 - where a job begins

    def limited(job: jobs.Job) -> str | None:
        _limit_memory(extra)
        return run(job)

    setattr(jobs, "_run", limited)  # noqa: B010 - of a module


def _limit_memory(extra: int) -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    most = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def no_memory_in_step(call: int, images: int | None) -> None:
    """Let a training run out of memory: as long as all activations are kept, or above so many images at a time."""
    from bundle.networks import PatchGAN, ResnetGenerator

    done = [0]

    def check(network: Any, x: torch.Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        done[0] += 1
        keeps = done[0] >= call and not getattr(network, "checkpointing", True)
        if keeps or (images is not None and len(x) > images):
            raise torch.OutOfMemoryError("out of memory (soak)")

    for network in (ResnetGenerator, PatchGAN):
        _wrap(network, "forward", check)


def non_finite(call: int, in_training: bool, mark: Path) -> None:
    """Make what this call of a loss, or of a generator that is applied, gives NaN; ``mark`` says that it came to it."""
    from bundle.losses import GeneratorObjective, PairedObjective
    from bundle.networks import ResnetGenerator

    done = [0]

    def spoil(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            done[0] += 1
            if done[0] != call:
                return result
            mark.touch()
            return {k: v * torch.nan for k, v in result.items()} if isinstance(result, dict) else result * torch.nan

        return wrapped

    for owner in (GeneratorObjective, PairedObjective) if in_training else (ResnetGenerator,):
        setattr(owner, "forward", spoil(owner.forward))  # noqa: B010 - of a class


def clock_jumps(call: int, seconds: float) -> None:
    """From one call of the clock on it is wrong by so many seconds."""
    done = [0]
    now, now_ns = time.time, time.time_ns

    def offset() -> float:
        done[0] += 1
        return seconds if done[0] >= call else 0.0

    time.time = lambda: now() + offset()
    time.time_ns = lambda: now_ns() + int(1e9 * offset())


def started_by_fork() -> None:
    """Let commands fork the processes that they would start anew, which takes seconds for each."""
    fork = multiprocessing.get_context("fork")
    setattr(multiprocessing, "get_context", lambda *_: fork)  # noqa: B010 - of a module


def plain_pictures() -> None:
    """Draw a title in place of panels and curves, which take three quarters of so small a training."""
    from matplotlib.figure import Figure

    from bundle.handlers import curves, evaluation_pictures, panels

    def title(text: str) -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.text(0, 0.5, text, fontsize=5)
        return figure

    def draw(pictures: Any, text: str = "") -> Figure:
        return title(f"{text} {[picture.title for picture in pictures]}")

    def draw_curves(history: Any, best_epoch: int = 0) -> Figure:
        return title(f"{best_epoch}\n{history.to_csv(index=False)[-300:]}")

    for module, name, plain in (
        (panels, "draw", draw),
        (evaluation_pictures, "draw", draw),
        (curves, "draw_curves", draw_curves),
    ):
        setattr(module, name, plain)
