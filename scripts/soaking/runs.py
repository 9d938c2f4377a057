"""Runs of a workflow in processes of their own: forked from one that has imported everything, or started anew."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.soaking.comparison import unloadable, weights_in
from scripts.soaking.hooks import started_by_fork
from scripts.soaking.material import Place
from scripts.soaking.workflows import ROOT, Workflow

__all__ = ["Hook", "Run", "start", "start_command", "undisturbed"]

Hook = Callable[[], None]
LIMIT = 300.0
"""Seconds after which a run counts as hanging."""
_PAUSE = 0.01


@dataclass
class Run:
    """A run under way.

    Attributes:
        process: its first process, which leads a group of its own.
        place: its folders.
        log: what it says.
        problems: weights that could not be loaded at some moment, or were there and are gone.
    """

    process: Any
    place: Place
    log: Path
    problems: list[str] = field(default_factory=list)
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs, negative where it was killed."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return int(self.process.exitcode) if self.process.exitcode is not None else None

    def wait(self, until: Callable[[], bool] | None = None) -> bool:
        """Wait for the end, or for a condition, and look at the weights meanwhile; False if it came to its end."""
        deadline = time.monotonic() + LIMIT
        while self.status is None:
            self.look()
            if until is not None and until():
                return True
            if time.monotonic() > deadline:
                self.problems.append(f"hangs for more than {LIMIT:g} s; the log says where")
                for pid in _group(self.process.pid):
                    os.kill(pid, signal.SIGUSR1)
                time.sleep(1)
                self.kill(whole_group=True)
                break
            time.sleep(_PAUSE)
        self._end()
        self.look()
        return False

    def look(self) -> None:
        """Every file of weights must be whole at any time, and stay."""
        for path in {*weights_in(self.place.output), *self._seen}:
            try:
                state = (path.stat().st_ino, path.stat().st_mtime_ns)
            except FileNotFoundError:
                if path in self._seen:
                    self.problems.append(f"{path.name} was there and is gone")
                    del self._seen[path]
                continue
            if self._seen.get(path) != state:
                self._seen[path] = state
                problem = unloadable(path)
                if problem is not None:
                    self.problems.append(problem)

    def kill(self, whole_group: bool) -> None:
        """``kill -9`` the first process or all; the others of the run have to notice and end."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if whole_group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait() if isinstance(self.process, subprocess.Popen) else self.process.join()
        self._end()

    def workers(self) -> list[int]:
        """The processes that the first one has started."""
        return [pid for pid in _group(self.process.pid) if pid != self.process.pid]

    def said(self) -> str:
        """What it has said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _end(self) -> None:
        """Workers end when the process that started them has ended."""
        deadline = time.monotonic() + 30
        while _group(self.process.pid):
            if time.monotonic() > deadline:
                self.problems.append("a worker goes on although its parent is dead")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                return
            time.sleep(_PAUSE)


def _group(leader: int) -> list[int]:
    """All living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, group = (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[:3]
                if int(group) == leader and state not in "ZX":
                    found.append(int(entry.name))
    return found


def start(workflow: Workflow, place: Place, hooks: Sequence[Hook] = (), name: str = "run", **options: Any) -> Run:
    """Fork a process that runs a workflow, with hooks called first."""
    log = place.root / f"{name}.log"
    arguments = (workflow, place, tuple(hooks), options, log)
    process = multiprocessing.get_context("fork").Process(target=_child, args=arguments)
    process.start()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(process.pid or 0, process.pid or 0)  # the child does the same: whoever comes first
    return Run(process, place, log)


def _child(workflow: Workflow, place: Place, hooks: Sequence[Hook], options: dict[str, Any], log: Path) -> None:
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    with log.open("a", encoding="utf-8") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115 - to the end
    faulthandler.register(signal.SIGUSR1, sys.stderr)
    os.chdir(ROOT)
    sys.argv = list(workflow.line(place))
    started_by_fork()
    status = 1
    try:
        for hook in hooks:
            hook()
        status = workflow.call(place, **options)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # the fault that was asked for, or another: the log says which
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    sys.exit(status)


def start_command(workflow: Workflow, place: Place, name: str = "command") -> Run:
    """Start the command line of a workflow, as a person does."""
    log = place.root / f"{name}.log"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    with log.open("ab") as file:
        line = [sys.executable, *workflow.line(place)]
        process = subprocess.Popen(  # noqa: S603 - our own words
            line, cwd=ROOT, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    return Run(process, place, log)


def undisturbed(workflow: Workflow, place: Place, hooks: Sequence[Hook] = (), **options: Any) -> Run:
    """Run a workflow to its end."""
    run = start(workflow, place, hooks, "undisturbed", **options)
    run.wait()
    return run
