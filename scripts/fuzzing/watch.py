"""What a reader must not do with an input, watched from inside the process that reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["EscapeError", "Watch", "cause_of", "peak_bytes", "reset_peak"]

_COMMANDS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn", "subprocess.Popen")
_NETWORK = ("socket.connect", "socket.sendto", "urllib.Request", "ftplib.connect", "smtplib.connect")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DEVICES = ("/dev/null", "/proc/self/clear_refs")


class EscapeError(BaseException):
    """A reader was about to run a command, to use the network, or to change a file outside its folder."""


class Watch:
    """An audit hook that forbids, once it is on, what no reader of a file has to do.

    Args:
        scratch: the folder in which files may be written.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch.resolve()
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in _COMMANDS or event in _NETWORK:
            self._stop(f"{event} {str(arguments[:2])[:200]}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            self._require_inside(event, arguments[0])
        elif event in _CHANGES:
            self._require_inside(event, *(one for one in arguments[:2] if isinstance(one, (str, bytes, os.PathLike))))

    def _require_inside(self, event: str, *paths: Any) -> None:
        for path in paths:
            if isinstance(path, int):
                continue
            self.on = False  # what is asked here is no business of the hook
            try:
                real = Path(os.path.realpath(os.fsdecode(path)))
            finally:
                self.on = True
            if not real.is_relative_to(self._scratch) and str(path) not in _DEVICES:
                self._stop(f"{event} {real}")

    def _stop(self, what: str) -> None:
        self.seen.append(what)
        raise EscapeError(what)


def cause_of(error: BaseException) -> list[BaseException]:
    """The error and all from which it came."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def reset_peak() -> None:
    """Let the peak of this process's memory start anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """The largest resident memory of this process since ``reset_peak``."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
