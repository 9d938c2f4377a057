"""All that reads zip archives of others: our exports, and MONAI where it unpacks a bundle."""

from __future__ import annotations

from pathlib import Path

from monai.apps.utils import extractall

from bundle.exports import recorded, stale_reason
from scripts.fuzzing.attempts import Attempts, Readers

__all__ = ["READERS"]

_UNPACKED = 2**24


def _read(folder: Path, attempt: Attempts) -> None:
    recorded(folder / "model.ts")
    stale_reason(folder / "model.pt")
    if (folder / "bundle.zip").stat().st_size < _UNPACKED:
        # MONAI's own; what counts is that nothing is written elsewhere
        attempt(lambda: extractall(folder / "bundle.zip", folder.parent / "out", file_type="zip"), Exception)


READERS = Readers(_read, (ValueError,))
