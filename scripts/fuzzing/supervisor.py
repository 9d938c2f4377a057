"""Gives inputs to the process that reads and watches it: crashes, hangs, memory, what it does outside its folder."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from scripts.fuzzing.tried import Input

__all__ = ["CPU_SECONDS", "MEMORY", "Outcome", "Supervisor"]

CPU_SECONDS = 20.0
"""Processor time that one input may take; a hang is more."""
WALL_SECONDS = 120.0
"""The same on the clock, for a reader that waits: much more, since others may use the machine."""
MEMORY = 2 * 2**30
"""Resident memory, in bytes, that one input may take."""
_START_SECONDS = 300.0
_ROOT = Path(__file__).resolve().parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_CANARY = "canary.txt"
_SCRATCH = ("input", "tmp", "here", "out")


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    Attributes:
        kind: ``accepted``, ``refused``; or a finding: ``error``, ``crash``, ``hang``, ``memory``, ``escape``.
        name: short text that is the same for inputs that fail alike.
        text: the error.
        details: traceback or log.
        grown: bytes of resident memory that it took.
        seconds: processor time.
    """

    kind: str
    name: str = ""
    text: str = ""
    details: str = ""
    grown: int = 0
    seconds: float = 0.0

    @property
    def finding(self) -> bool:
        """Whether the readers failed."""
        return self.kind not in ("accepted", "refused")


class Supervisor:
    """One process that reads for all targets; use it in a ``with``.

    Args:
        targets: their names.
        folder: a folder of its own, in which the readers may write in ``scratch`` alone.
    """

    def __init__(self, targets: Sequence[str], folder: Path) -> None:
        self.folder = folder.resolve()
        self.scratch = self.folder / "scratch"
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in _SCRATCH:
            (self.scratch / name).mkdir(parents=True)
        (self.folder / _CANARY).write_text(_CANARY, encoding="utf-8")
        self._process = self._started(targets)
        self._child: int | None = None
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, target: str, tried: Input) -> Outcome:
        """Give one input to the readers of a target."""
        for name in ("input", "out", "tmp"):
            shutil.rmtree(self.scratch / name, ignore_errors=True)
            (self.scratch / name).mkdir()
        tried.write(self.scratch / "input")
        self._reader()
        os.truncate(self.scratch / "log.txt", 0)
        answer = self._asked(f"{target}\t{self.scratch / 'input'}\n")
        if "died" in answer:
            code = int(answer["died"])
            what = signal.Signals(-code).name if code < 0 else f"exit {code}"
            return Outcome("crash", f"{what} {self._place()}", what, self._log())
        return self._hang() if "hang" in answer else self._judged(answer)

    def _judged(self, answer: dict[str, Any]) -> Outcome:
        grown, seconds = int(answer["grown"]), float(answer["seconds"])
        if (left := self._left_outside()) is not None:
            return Outcome("escape", "files", left, grown=grown, seconds=seconds)
        if answer["outcome"] in ("accepted", "refused"):
            if grown > MEMORY:
                return Outcome("memory", "resident", f"{grown / 2**20:.0f} MiB", grown=grown, seconds=seconds)
            return Outcome(answer["outcome"], grown=grown, seconds=seconds)
        name = f"{answer['kind']} {answer['place']}"
        return Outcome(answer["outcome"], name, answer["text"], answer["traceback"], grown, seconds)

    def _hang(self) -> Outcome:
        os.kill(self._reader(), signal.SIGUSR1)  # faulthandler writes where it is
        time.sleep(0.5)
        os.kill(self._reader(), signal.SIGKILL)
        self._answer(_START_SECONDS)  # that it died
        return Outcome("hang", self._place(), f"more than {CPU_SECONDS:g} s", self._log(), seconds=CPU_SECONDS)

    def _reader(self) -> int:
        """The process that reads; waits for the first one, and for one that takes the place of another."""
        if self._child is None:
            answer = self._answer(_START_SECONDS)
            if answer is None or "ready" not in answer:
                self._process.kill()
                raise RuntimeError(f"the process that reads did not start: {self._printed()}")
            self._child = int(answer["ready"])
        return self._child

    def _asked(self, line: str) -> dict[str, Any]:
        """The answer to a line; {"hang": ...} where there is none in time."""
        child = self._reader()
        os.write(_number(self._process.stdin), line.encode())
        busy, start = _busy(child), time.monotonic()
        while (answer := self._answer(0.25)) is None:
            if _busy(child) - busy > CPU_SECONDS or time.monotonic() - start > WALL_SECONDS:
                return {"hang": True}
        if "ready" in answer:  # the last child has read for long enough, and has left the line to this one
            self._child = int(answer["ready"])
            return self._asked_again()
        return answer

    def _asked_again(self) -> dict[str, Any]:
        return self._answer(WALL_SECONDS) or {"hang": True}

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """The next line of the process within some time, None if there is none."""
        pipe = _number(self._process.stdout)
        while b"\n" not in self._received:
            if not select.select([pipe], [], [], seconds)[0]:
                return None
            if not (more := os.read(pipe, 65536)):
                raise RuntimeError(f"the process that reads has ended: {self._printed()}")
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "died" in answer:
            self._child = None
        return answer

    def _started(self, targets: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(self.scratch / "tmp")}
        environment |= {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "MPLBACKEND": "Agg"}
        caches = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")  # torch makes the second as parts of it are imported
        environment |= {name: str(self.scratch / "tmp" / "cache") for name in caches}
        return subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-m", "scripts.fuzzing.worker", str(self.scratch), *targets],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=_ROOT,
            env=os.environ | environment,
        )

    def _printed(self) -> str:
        return self._process.communicate()[1].decode(errors="replace") + self._log()

    def _left_outside(self) -> str | None:
        """What was written, also by C++, where nothing should be."""
        found = sorted(path.name for path in self.folder.iterdir()) + [
            p.name for p in (self.scratch / "here").iterdir()
        ]
        return None if found == [_CANARY, "scratch"] else str(found)

    def _log(self) -> str:
        path = self.scratch / "log.txt"
        return path.read_text(encoding="utf-8", errors="replace")[:4000] if path.is_file() else ""

    def _place(self) -> str:
        """The innermost line of ours in the traceback of faulthandler."""
        named = [(Path(file), name) for file, name in re.findall(r'File "([^"]+)", line \d+ in (\S+)', self._log())]
        own = [(file, name) for file, name in named if file.is_relative_to(_ROOT) and "fuzzing" not in file.parts]
        own = [(file, name) for file, name in own if "site-packages" not in file.parts]
        return f"{own[0][0].relative_to(_ROOT)}:{own[0][1]}" if own else "-"


def _number(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise RuntimeError("a process without pipes")
    return pipe.fileno()


def _busy(process: int) -> float:
    """Processor seconds of a process so far."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
