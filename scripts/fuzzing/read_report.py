"""What reads results back: the report, and the comparison of runs."""

from __future__ import annotations

from pathlib import Path

from scripts.evidence.report_load import read_evidence
from scripts.evidence.report_page import page
from scripts.fuzzing.attempts import Attempts, Readers

__all__ = ["READERS"]


def _read(folder: Path, attempt: Attempts) -> None:
    evidence = attempt(lambda: read_evidence(folder))
    if evidence is not None:
        attempt(lambda: page([evidence], 4))


READERS = Readers(_read, (ValueError, OSError))
