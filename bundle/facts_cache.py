"""What the data check found in files that have not changed since, kept in the user's cache folder.

One file for each dataset folder, ``cesm_virtual_contrast/facts-*.json`` in ``$XDG_CACHE_HOME`` (default ``~/.cache``),
so that a data folder may be read-only. It holds numbers and digests only: files are known by a digest of their path. It
can be deleted at any time; one that is damaged, or of another version of the program or its decoders, is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bundle.files import write_text

__all__ = ["FactsCache", "ImageFacts"]

SETTLED = 2.0
"""Seconds that must have passed since a file's last change before its facts are kept: within the resolution of a file
system's clock another change would leave no trace."""
_DETACHED = frozenset((".mhd", ".nhdr"))
"""Headers whose pixels lie in another file: their own state says nothing."""
_DECODERS = ("gdcm", "itk", "nibabel", "numpy", "pillow", "pydicom", "pyjpegls", "python-gdcm", "pylibjpeg-openjpeg")

State = tuple[int, ...]


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one decoded image.

    Attributes:
        shape: (W, H) in pixels.
        low: smallest stored value.
        high: largest stored value.
        finite: False if any pixel is NaN or infinite; ``low`` and ``high`` are then 0.
        binary: every pixel is 0 or ``high`` (the whole picture may be one of them).
        centroid: horizontal grey-value centroid above ``low``, -1 (left edge) to 1 (right edge); 0 for a constant.
        digest: see ``bundle.image_facts.pixel_digest``.
    """

    shape: tuple[int, int]
    low: float
    high: float
    finite: bool
    binary: bool
    centroid: float
    digest: str

    @property
    def constant(self) -> bool:
        """Whether all pixels have one value."""
        return self.finite and self.low == self.high


@dataclass
class FactsCache:
    """The facts that are kept of one dataset folder's files.

    Args:
        root: the dataset folder.
    """

    root: Path
    _states: dict[Path, State] = field(default_factory=dict, init=False)
    _entries: dict[str, Any] = field(default_factory=dict, init=False)

    @property
    def file(self) -> Path:
        """Where they are kept."""
        home = os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache").expanduser()
        return Path(home) / "cesm_virtual_contrast" / f"facts-{_digest(str(self.root.resolve()))}.json"

    def known(self, paths: Iterable[Path]) -> dict[Path, ImageFacts]:
        """The facts of those files that are as they were; the state of all of them is noted for ``keep``."""
        found: dict[Path, ImageFacts] = {}
        self._entries = self._kept()
        for path in paths:
            try:
                self._states[path] = state = _state(path)
            except (OSError, ValueError):  # the reader says what is wrong with it
                continue
            with suppress(TypeError, ValueError, LookupError):  # an entry that nobody here has written
                entry = self._entries.get(_digest(str(path)))
                if entry is not None and entry[0] == list(state):
                    found[path] = _facts(entry[1])
        return found

    def keep(self, facts: Mapping[Path, Any]) -> None:
        """Keep the facts of those files that have not changed since ``known``, beside what was kept; never fails."""
        entries = self._entries | {
            _digest(str(path)): [state, astuple(facts[path])]
            for path, state in self._states.items()
            if isinstance(facts.get(path), ImageFacts) and _is_settled(path, state)
        }
        with suppress(OSError):  # no home, a full disk: the files are read again next time
            write_text(self.file, json.dumps({"program": _program(), "files": entries}))

    def _kept(self) -> dict[str, Any]:
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            files = content["files"] if content["program"] == _program() else {}
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return {}
        return files if isinstance(files, dict) else {}


def _facts(values: Any) -> ImageFacts:
    """The facts as they were written; anything else raises TypeError or ValueError."""
    (width, height), low, high, finite, binary, centroid, digest = values
    kinds = (width, int), (height, int), (low, float), (high, float), (centroid, float), (digest, str)
    if not all(type(value) is kind for value, kind in (*kinds, (finite, bool), (binary, bool))):
        raise TypeError("these are not the facts of an image")
    return ImageFacts((width, height), low, high, finite, binary, centroid, digest)


def _state(path: Path) -> State:
    """Changes whenever the file does, also where its time of modification was set back."""
    if path.suffix.lower() in _DETACHED:
        raise ValueError(f"{path} does not hold its pixels itself")
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _is_settled(path: Path, state: State) -> bool:
    """Whether the file is still as it was before it was read, and has been so for a while."""
    try:
        return _state(path) == state and max(state[1:3]) < time.time_ns() - SETTLED * 1e9
    except OSError:
        return False


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


@cache
def _program() -> str:
    """Changes with the code that reads images and with the decoders."""
    here = Path(__file__).parent
    code = [*here.glob("*.py"), *(here / "dicom").glob("*.py")]
    found = [f"{name} {_version(name)}" for name in _DECODERS]
    return _digest(repr([found, [(file.name, file.read_bytes()) for file in sorted(code)]]))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
