"""The rows of a data check, and their table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Level", "Problem", "format_table"]

Level = Literal["ERROR", "WARNING"]


@dataclass(frozen=True)
class Problem:
    """One row of the table: an ERROR stops the training, a WARNING does not."""

    level: Level
    case: str
    file: str
    problem: str
    remedy: str


def _grouped(problems: Sequence[Problem]) -> list[Problem]:
    """Errors as they are; warnings that say the same of several cases as one row."""
    groups: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        if problem.level == "WARNING":
            groups[problem.problem, problem.remedy].append(problem)
    rows = [problem for problem in problems if problem.level == "ERROR"]
    for same in groups.values():
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        rows.append(replace(same[0], case=same[0].case + more))
    return rows


def format_table(problems: Sequence[Problem], group_warnings: bool = True) -> str:
    """All problems as one table and a line that counts them.

    Args:
        problems: the rows.
        group_warnings: errors first, then one row for all warnings that say the same; else every row as it is.
    """
    if not problems:
        return "No problem found."
    rows = [("LEVEL", "CASE", "FILE", "PROBLEM", "REMEDY")]
    rows += [
        (row.level, row.case, str(row.file), row.problem, row.remedy)
        for row in (_grouped(problems) if group_warnings else problems)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*(cell.ljust(n) for cell, n in zip(row, widths, strict=False)), row[4]]) for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    levels = Counter(problem.level for problem in problems)
    lines.append(f"{levels['ERROR']} errors, {levels['WARNING']} warnings")
    return "\n".join(lines)
