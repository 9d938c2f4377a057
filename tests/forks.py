"""Run Python command lines in copies of this process: all libraries are imported, which costs a new one 12 seconds."""

from __future__ import annotations

import logging
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, NoReturn

import torch

__all__ = ["Fork", "run_forked"]


class Fork:
    """A child of this process that runs a Python command line, as ``subprocess.Popen([sys.executable, *line])``.

    What it cannot show: that a command imports what it needs, and what libraries do when they are imported. Code of
    the bundle is that of this process, wherever ``cwd`` is.

    Args:
        line: what stands behind ``python``: ``-m module``, ``-c code`` or a file, each with its arguments.
        cwd: folder in which the command runs.
        variables: the whole environment; ``PYTHONPATH`` is put in front of the path.
    """

    def __init__(self, line: list[str], cwd: Path, variables: Mapping[str, str]) -> None:
        self.line = line
        self._printed = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed by wait()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(line, cwd, variables, self._printed)

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait for the end.

        Raises:
            subprocess.TimeoutExpired: it has taken ``timeout`` seconds and was killed.
        """
        end = time.monotonic() + timeout
        done, status = os.waitpid(self.pid, os.WNOHANG)
        while not done and time.monotonic() < end:
            time.sleep(0.02)
            done, status = os.waitpid(self.pid, os.WNOHANG)
        if not done:
            os.kill(self.pid, signal.SIGKILL)
            status = os.waitpid(self.pid, 0)[1]
        out, err = (_text(file) for file in self._printed)
        if not done:
            raise subprocess.TimeoutExpired(self.line, timeout, out, err)
        return subprocess.CompletedProcess(self.line, os.waitstatus_to_exitcode(status), out, err)


def run_forked(
    line: list[str], cwd: Path, variables: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run ``python *line`` in a copy of this process and return what it printed."""
    return Fork(line, cwd, variables).wait(timeout)


def _text(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode()


def _become(line: list[str], cwd: Path, variables: Mapping[str, str], printed: tuple[IO[bytes], ...]) -> NoReturn:
    code = 1
    try:
        for number, file in enumerate(printed, start=1):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        logging.getLogger().handlers.clear()  # those of pytest
        # torch renews its pool of threads after a fork at its first use, and fails if two threads are first at once
        torch.set_num_threads(1)
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(cwd)
        sys.path[:0] = [part for part in variables.get("PYTHONPATH", "").split(os.pathsep) if part]
        code = _execute(line)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # nothing of the tests' process is to be ended twice


def _execute(line: list[str]) -> int:
    try:
        _run(line)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _run(line: list[str]) -> None:
    kind, *rest = line
    if kind == "-m":
        sys.argv = rest
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        module = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<command>", "exec"), module.__dict__)  # noqa: S102 - a test's own code
    else:
        sys.argv = line
        sys.path.insert(0, str(Path(kind).resolve().parent))
        runpy.run_path(kind, run_name="__main__")
