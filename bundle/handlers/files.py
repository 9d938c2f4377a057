"""Files written by handlers: whole or not at all, and JSON that every reader accepts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["json_text", "write_atomically", "write_text"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a file beside ``path``, then rename it: an interruption never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` in UTF-8, atomically."""
    return write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def json_text(content: Any) -> str:
    """Indented JSON; NaN and infinity, which JSON lacks, become null, and unknown objects their text."""
    return json.dumps(_finite(content), indent=2, default=str, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
