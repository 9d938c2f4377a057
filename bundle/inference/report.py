"""What became of each image: one line of a csv file each, complete up to the last image at any time."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from bundle.errors import root_cause

__all__ = ["REPORT_NAME", "Report", "ReportRow", "Status", "reason_of"]

REPORT_NAME = "report.csv"
Status = Literal["done", "skipped", "refused", "failed"]


class ReportRow(NamedTuple):
    """One line of the report; ``image`` and ``output`` are relative to the input and the output folder."""

    image: str
    status: Status
    output: str = ""
    reason: str = ""


class Report:
    """The csv file of a run, and how many images ended how.

    Args:
        path: the file; its folder is made by ``start``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter(dict.fromkeys(get_args(Status), 0))

    def start(self) -> None:
        """Write the header, in place of an earlier report."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(ReportRow._fields)

    def add(self, rows: Iterable[ReportRow]) -> None:
        """Add lines."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            for row in rows:
                lines.writerow(row)
                self.counts[row.status] += 1

    def summary(self) -> str:
        """The counts in words."""
        return ", ".join(f"{number} {status}" for status, number in self.counts.items())

    def failed(self) -> bool:
        """Whether something went wrong: an image failed, or there was none that could be used."""
        return self.counts["failed"] > 0 or not self.counts["done"] + self.counts["skipped"]


def reason_of(error: BaseException) -> str:
    """The innermost cause of an error in one line: MONAI wraps what a reader says in several layers."""
    cause = root_cause(error)
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
