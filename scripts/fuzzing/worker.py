"""The process that reads: it gets a target and a folder a line, and answers one line of JSON for each.

The libraries are imported once; a child reads, which a crash or a hang costs, and another child takes its place.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from scripts.fuzzing.attempts import Attempts, Readers
from scripts.fuzzing.targets import readers_of
from scripts.fuzzing.watch import EscapeError, Watch, cause_of, peak_bytes, reset_peak

__all__ = ["ALLOCATION"]

ALLOCATION = 4 * 2**30
"""Address space, in bytes, that inputs may claim on top of what the libraries have."""
_REPLACED = 3000
"""Inputs after which a child is replaced, so that what libraries keep does not count."""
_NO_MEMORY = re.compile(
    r"can't allocate|cannot allocate|failed to allocate|bad.?alloc|unable to allocate", re.IGNORECASE
)
_ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 400


def _limit_address_space() -> None:
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ALLOCATION, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answers(log: Path) -> TextIO:
    """A stream to the supervisor; what the readers print goes to the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    faulthandler.enable(2)
    faulthandler.register(signal.SIGUSR1, 2, all_threads=True)
    return answers


def _outcome(readers: Readers, folder: Path, watch: Watch) -> dict[str, Any]:
    attempts = Attempts(folder, readers.clear)
    error: BaseException | None = None
    watch.seen.clear()
    watch.on = True
    try:
        readers.read(folder, attempts)
    except BaseException as raised:  # a decoder in Rust panics, which is no Exception; and readers must not exit
        error = raised
    finally:
        watch.on = False
    if watch.seen:
        return _told("escape", EscapeError(watch.seen[0]) if error is None else error)
    for one in ([] if error is None else [error]) + attempts.refusals:
        if any(isinstance(cause, MemoryError) or _NO_MEMORY.search(str(cause)) for cause in cause_of(one)):
            return _told("memory", one)
    if error is not None:
        return _told("error", error)
    return {"outcome": "accepted" if attempts.used else "refused"}


def _told(outcome: str, error: BaseException) -> dict[str, Any]:
    """The error, and the innermost line of ours that it came from."""
    places = [place for one in reversed(cause_of(error)) if (place := _place(one)) is not None]
    text = " ".join(str(error).split())[:_LONGEST]
    shown = "".join(traceback.format_exception(error))[-4000:]
    kind, place = type(error).__name__, places[0] if places else "-"
    return {"outcome": outcome, "kind": kind, "place": place, "text": text, "traceback": shown}


def _place(error: BaseException) -> str | None:
    names = [(Path(frame.filename), frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file, name) for file, name in names if file.is_relative_to(_ROOT) and "fuzzing" not in file.parts]
    own = [(file, name) for file, name in own if "site-packages" not in file.parts]
    return f"{own[-1][0].relative_to(_ROOT)}:{own[-1][1]}" if own else None


def _serve(readers: Mapping[str, Readers], scratch: Path, answers: TextIO) -> int:
    """Read until the supervisor closes the line, or for some time."""
    _limit_address_space()
    watch = Watch(scratch)
    print(json.dumps({"ready": os.getpid()}), file=answers, flush=True)
    for _ in range(_REPLACED):
        line = sys.stdin.readline()
        if not line:
            return 0
        name, _, folder = line.rstrip("\n").partition("\t")
        reset_peak()
        before, start = peak_bytes(), time.process_time()
        found = _outcome(readers[name], Path(folder), watch)
        found |= {"grown": peak_bytes() - before, "seconds": time.process_time() - start}
        print(json.dumps(found), file=answers, flush=True)
    return 1


def main() -> None:
    """Have children read until one of them found the line closed."""
    scratch, names = Path(sys.argv[1]), sys.argv[2:]
    tempfile.tempdir = str(scratch / "tmp")
    answers = _answers(scratch / "log.txt")
    readers = {name: readers_of(name) for name in names}
    os.chdir(scratch / "here")
    while True:
        child = os.fork()
        if child == 0:
            os._exit(_serve(readers, scratch, answers))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return
        if code != 1:
            print(json.dumps({"died": code}), file=answers, flush=True)


if __name__ == "__main__":
    main()
