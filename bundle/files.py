"""Files that are written whole or not at all, and JSON that every reader accepts."""

from __future__ import annotations

import errno
import fnmatch
import glob
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "UnwritableError",
    "atomic_path",
    "file_at",
    "json_text",
    "naming",
    "remove_unfinished",
    "remove_unfinished_in",
    "sha256_of",
    "write_text",
]

_UNFINISHED = re.compile(r"\.(?P<stem>.+)\.(?P<process>\d+)(?P<suffix>\.[^.]+)")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Errors that only writing meets: no space, no quota, a file too large, a file system that is read only."""


class UnwritableError(OSError):
    """A file cannot be written; the text says which, why, and what to do. ``filename``, ``strerror`` as in OSError."""

    def __str__(self) -> str:
        return (
            f"{self.filename} cannot be written: {self.strerror}. Nothing that was finished before is lost. Make room "
            "on that disk, then run the same command again (a training: with --resume True)"
        )


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name ``path`` when the body finds no room to write on the disk, which libraries report without any name.

    Raises:
        UnwritableError: in place of such an ``OSError``; others pass as they are.
    """
    try:
        yield
    except UnwritableError:
        raise
    except OSError as met:
        error = _no_room(met)
        if error is None:
            raise
        # not "from error": the cause of an error is what a user is shown last, and that one has no name
        raise UnwritableError(error.errno, error.strerror or str(error), str(path)) from None


def _no_room(error: BaseException) -> OSError | None:
    """What says that there is no room, in an error or in those it was raised from: pydicom words them anew."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return error
    return None if error.__cause__ is None else _no_room(error.__cause__)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, with its suffix, for the body of the ``with`` to fill.

    The finished file is brought to the disk and renamed to ``path``, so that neither an error nor a power cut leaves
    half a file; after an error the old file, if any, is as it was. Missing parent folders are made.

    Raises:
        FileNotFoundError: the body has written nothing.
        UnwritableError: there is no room for the file.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            with unfinished.open("r+b") as file:
                os.fsync(file.fileno())
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(path: str | Path) -> None:
    """Remove what processes that were killed have left of ``path``; no other process may be writing it now."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"):
        if left.name.removeprefix(f".{path.stem}.").removesuffix(path.suffix).isdigit():
            left.unlink(missing_ok=True)


def remove_unfinished_in(folder: str | Path, *names: str) -> None:
    """Remove what processes that are gone have left of files of these names (``epoch_*.png``) in a folder."""
    for left in Path(folder).glob(".*"):
        match = _UNFINISHED.fullmatch(left.name)
        if match is None or not any(fnmatch.fnmatchcase(match["stem"] + match["suffix"], name) for name in names):
            continue
        if not _runs(int(match["process"])):
            left.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether another process of this number runs. In a container a killed one may have had our own number.

    A dead process keeps its number until its parent, or what took its place, has asked for its end.
    """
    if process == os.getpid():
        return False
    with suppress(OSError, IndexError):  # Linux tells
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] not in "ZX"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def file_at(path: Path, folders: dict[Path, Path] | None = None) -> Path:
    """One absolute path for a file, however it is written; its name stays that of a link, since it tells the format.

    Args:
        path: of the file.
        folders: folders looked up before, for many files; those looked up now are added.
    """
    known = {} if folders is None else folders
    folder = known.get(path.parent)
    if folder is None:
        folder = known[path.parent] = path.parent.resolve()
    return folder / path.name


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, as ``sha256sum`` prints it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` in UTF-8, atomically, and return its path."""
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return Path(path)


def json_text(content: Any) -> str:
    """Indented JSON; NaN and infinity, which JSON lacks, become null, and unknown objects their text."""
    return json.dumps(_finite(content), indent=2, default=str, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
