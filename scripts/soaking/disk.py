"""A disk that is full: a small file system of its own where one may be mounted, else a limit on the size of files."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SmallDisk", "can_mount", "small_disk"]

_FILLER = "filler.bin"


class SmallDisk:
    """A folder that is a disk of its own.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def leave(self, room: int) -> None:
        """Fill it up but for so many bytes."""
        status = os.statvfs(self.folder)
        taken = status.f_bavail * status.f_frsize - room
        with (self.folder / _FILLER).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, taken))

    def make_room(self) -> None:
        """Take away what filled it."""
        (self.folder / _FILLER).unlink()


def can_mount() -> bool:
    """Whether this user may mount a file system, as root may outside most containers."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), 1 << 20):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mount an empty file system of so many bytes on a folder for the body of the ``with``.

    Raises:
        CalledProcessError: this user may not.
        FileNotFoundError: there is no ``mount`` here.
    """
    programs = [shutil.which(name) for name in ("mount", "umount")]
    if None in programs:
        raise FileNotFoundError("no programs mount and umount; give --disk limit")
    mount, unmount = map(str, programs)
    options = ["-t", "tmpfs", "-o", f"size={size},mode=0700", "soak", str(folder)]
    subprocess.run([mount, *options], check=True, capture_output=True)  # noqa: S603 - our own words
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run([unmount, "-l", str(folder)], check=True, capture_output=True)  # noqa: S603 - the same
