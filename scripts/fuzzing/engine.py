"""Draws inputs with hypothesis until the time is over, and keeps what the readers fail at."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase

from scripts.fuzzing.supervisor import Outcome, Supervisor
from scripts.fuzzing.targets import inputs_of
from scripts.fuzzing.tried import Input, save

__all__ = ["Tally", "fuzz"]

_ROUND = 400
"""Inputs that hypothesis draws with one seed: it remembers all of them."""
FINDINGS = "findings"


class _TimeOverError(BaseException):
    """Ends a round of hypothesis, which would try to repeat an Exception."""


@dataclass
class Tally:
    """What became of the inputs of one target.

    Attributes:
        kinds: how many inputs ended how.
        grown: the most resident memory that one took, in bytes.
        seconds: the most processor time that one took.
        found: name of a finding -> its outcome, for the smallest input that shows it.
    """

    target: str
    kinds: Counter[str] = field(default_factory=Counter)
    grown: int = 0
    seconds: float = 0.0
    found: dict[str, Outcome] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def add(self, tried: Input, outcome: Outcome, output: Path) -> None:
        """Count an input, and keep it where it is a finding, or a smaller input of a known one."""
        self.kinds[outcome.kind] += 1
        self.grown, self.seconds = max(self.grown, outcome.grown), max(self.seconds, outcome.seconds)
        if not outcome.finding:
            return
        key = f"{outcome.kind} {outcome.name}"
        if key not in self.found:
            print(f"  {self.target}: {key}: {outcome.text[:160]}", file=sys.stderr, flush=True)
        if tried.size < self._sizes.get(key, sys.maxsize):
            self.found[key], self._sizes[key] = outcome, tried.size
            self.files[key] = output / FINDINGS / f"{self.target}-{_short(key)}.json"
            save(self.files[key], self.target, f"{key}: {outcome.text}\n{outcome.details}", tried)


def _short(name: str) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:60]
    return f"{words}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def fuzz(target: str, seconds: float, most: int, seed: int, output: Path, supervisor: Supervisor) -> Tally:
    """Try inputs on one target.

    Args:
        target: its name.
        seconds: how long.
        most: how many at most.
        seed: the same gives the same inputs, as far as the time goes.
        output: folder in which findings are kept.
        supervisor: of the process that reads.
    """
    tally = Tally(target)
    inputs = inputs_of(target)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end and (left := most - tally.kinds.total()) > 0:
        _round(inputs, supervisor, tally, min(_ROUND, left), end, seed + 1_000_003 * count, output)
        count += 1
    return tally


def _round(
    inputs: hypothesis.strategies.SearchStrategy[Input],
    supervisor: Supervisor,
    tally: Tally,
    most: int,
    end: float,
    seed: int,
    output: Path,
) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=most,
        phases=[Phase.generate, Phase.target],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    @hypothesis.given(inputs)
    def one(tried: Input) -> None:
        if time.monotonic() > end:
            raise _TimeOverError
        outcome = supervisor.run(tally.target, tried)
        tally.add(tried, outcome, output)
        hypothesis.target(float(outcome.grown), label="memory")  # towards inputs that take more
        hypothesis.target(outcome.seconds, label="time")

    try:
        one()
    except _TimeOverError:
        return
