"""Metrics of every validation case, averaged into ``engine.state.metrics``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor
from torch.nn import functional

from bundle.handlers.cases import CASE_COLUMNS, cases_of, gather_cases
from bundle.metrics import diversity, several_case_metrics, summarise

__all__ = ["CaseMetrics", "case_row", "case_rows", "thumbnail"]


class CaseMetrics:
    """Collects one row of `bundle.metrics.case_metrics` per case and writes their summary when the pass is completed.

    Attach it to a MONAI ``SupervisedEvaluator`` as the first of its handlers, so that those after it find
    ``engine.state.metrics`` filled: all names of `bundle.metrics.summarise` and ``diversity``. Under torch.distributed
    the rows of all ranks are joined, each case once, and every rank gets the same figures. With no case at all nothing
    is written.
    """

    def __init__(self) -> None:
        self._own: list[tuple[str, tuple[dict[str, Any], Tensor, Tensor]]] = []

    def attach(self, engine: Engine) -> None:
        """Collect after every iteration, summarise after the epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._summarise)

    def _start(self, _: Engine) -> None:
        self._own = []

    def _collect(self, engine: Engine) -> None:
        for case in cases_of(engine):
            row = case_row(case, case["pred"])
            self._own.append((case["path"], (row, thumbnail(case["pred"]), thumbnail(case["label"]))))

    def _summarise(self, engine: Engine) -> None:
        collected = gather_cases(self._own)
        if not collected:
            return
        figures = summarise(pd.DataFrame([row for row, _, _ in collected]))
        preds, labels = (torch.stack(small) for small in ([c[1] for c in collected], [c[2] for c in collected]))
        figures["diversity"] = diversity(preds, labels)
        engine.state.metrics.update(figures)


def case_row(case: dict[str, Any], pred: Tensor) -> dict[str, Any]:
    """The strings that name the case, then its metrics as numbers. ``pred`` is ``(1, 1, W, H)``."""
    return case_rows(case, [pred])[0]


def case_rows(case: dict[str, Any], preds: Sequence[Tensor]) -> list[dict[str, Any]]:
    """`case_row` of each of several predictions of one case."""
    rows = []
    for figures in several_case_metrics(preds, case["label"], case["image"], case["label_mask"]):
        values = torch.stack(list(figures.values()))[:, 0].tolist()
        rows.append({key: case[key] for key in CASE_COLUMNS} | dict(zip(figures, values, strict=True)))
    return rows


def thumbnail(x: Tensor) -> Tensor:
    """``(1, 1, W, H)`` averaged to 32 x 32 on the CPU: enough to compare whole images of many cases."""
    return functional.adaptive_avg_pool2d(x, 32)[0, 0].cpu()
