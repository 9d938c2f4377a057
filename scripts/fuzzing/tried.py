"""One input of the fuzzer: a small folder of files, which can be kept as one file and tried again."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle.files import write_text

__all__ = ["Input", "load", "save"]


@dataclass(frozen=True)
class Input:
    """Files by their name in the folder that a reader gets; the readers know which of them to read."""

    files: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    def write(self, folder: Path) -> None:
        """Write the files into an empty folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def save(path: Path, target: str, what: str, tried: Input) -> None:
    """Keep an input, its target and what became of it as JSON; contents are compressed and in base64."""
    files = {name: base64.b64encode(zlib.compress(content)).decode() for name, content in tried.files.items()}
    write_text(path, json.dumps({"target": target, "what": what, "files": files}, indent=1) + "\n")


def load(path: Path) -> tuple[str, Input]:
    """The target and the input that ``save`` kept.

    Raises:
        ValueError: the file was not written by ``save``.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): zlib.decompress(base64.b64decode(data)) for name, data in content["files"].items()}
        return str(content["target"]), Input(files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"{path} is no finding of the fuzzer ({error}). Give a file of its output folder.") from error
