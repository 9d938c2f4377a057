"""All that reads a datalist of others: the check, the cases and folds of a training, the comparison of data sets."""

from __future__ import annotations

from pathlib import Path

from bundle.data import caveats, datalist_digest, read_datalist, section_cases
from bundle.overlap import overlap_problems
from bundle.preflight import check_datalist, format_table
from scripts.fuzzing.attempts import Attempts, Readers

__all__ = ["READERS"]


def _read(folder: Path, attempt: Attempts) -> None:
    problems = check_datalist(folder, progress=False)  # which must tell everything, and raise nothing
    format_table(problems)
    datalist_digest(folder)
    content = attempt(lambda: read_datalist(folder))
    overlap_problems([folder, folder])
    if content is None or any(problem.level == "ERROR" for problem in problems):
        return
    caveats(folder)
    for section in ("training", "validation", "test"):
        attempt(lambda section=section: section_cases(content["cases"], 0, section), ValueError)  # type: ignore[misc]


READERS = Readers(_read, (ValueError,))
