"""Ignite handlers of the bundle, attached from the configs."""

from __future__ import annotations

from bundle.handlers.case_metrics import CaseMetrics
from bundle.handlers.curves import Curves
from bundle.handlers.domain_shift import DomainShift
from bundle.handlers.evaluation import EvaluationSummary
from bundle.handlers.loss_scalars import LossScalars
from bundle.handlers.monitors import FailureMonitor
from bundle.handlers.panels import Panels
from bundle.handlers.progress import Progress
from bundle.handlers.run_record import RunRecord

__all__ = [
    "CaseMetrics",
    "Curves",
    "DomainShift",
    "EvaluationSummary",
    "FailureMonitor",
    "LossScalars",
    "Panels",
    "Progress",
    "RunRecord",
]
