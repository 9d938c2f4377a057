"""The evaluation of a model beside the trivial predictors, as files and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from bundle import ranks
from bundle.files import atomic_path, json_text, write_text
from bundle.handlers.case_metrics import case_row, thumbnail
from bundle.handlers.cases import CASE_COLUMNS, cases_of, gather_cases
from bundle.handlers.pictures import Picture, draw, picture_of, save
from bundle.metrics import diversity, summarise
from bundle.predictors import Predictor, fit_predictors
from bundle.provenance import DIGEST_FILE

__all__ = ["EvaluationSummary", "format_summary"]

TABLE_METRICS = (
    "psnr",
    "ssim",
    "vif",
    "breast_psnr",
    "breast_ssim",
    "lesion_mae",
    "lesion_psnr",
    "lesion_contrast_r",
    "contrast_recovery",
    "false_enhancement",
)
Collected = tuple[list[dict[str, Any]], dict[str, tuple[Tensor, Tensor]], Picture]


class EvaluationSummary:
    """Evaluates the model and the trivial predictors on the same cases and writes the result to ``output_dir``.

    ``cases.csv``: one row per predictor and case (predictor, patient_id, laterality, view, source, metrics);
    ``summary.json``: ``{predictor: {metric: mean}}``, null where a metric does not exist; ``panels/worst.png``,
    ``median.png``, ``best.png``: cases of the model by ``panel_metric``; ``caveats.txt`` if there are any. The table is
    printed, and after it the paths of these files, of the training's ``curves.png`` and of the model, as far as they
    exist. Attach it to a MONAI ``SupervisedEvaluator``; its metrics of the model also go to ``engine.state.metrics``.

    Args:
        output_dir: folder, made when it is missing.
        training: training section to fit the trivial predictors on: a data loader, data set or iterable of batches.
            Under torch.distributed give the whole section (a data set), not the share of one rank.
        panel_metric: metric, higher = better, that orders the cases of the panels; cases without it are left out.
        panel_cases: number of cases in each panel; 0 = no panels.
        model_path: weights that are evaluated, for the list of paths.
        caveats: sentences that must be read with the figures, see ``bundle.data.caveats``.
        digest: of the cases that are evaluated; kept in ``data_digest.txt``, see ``bundle.provenance.results_dir``.
    """

    def __init__(
        self,
        output_dir: str | Path,
        training: Iterable[Mapping[str, Any]],
        panel_metric: str = "breast_psnr",
        panel_cases: int = 3,
        model_path: str | Path | None = None,
        caveats: Sequence[str] = (),
        digest: str | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.training = training
        self.panel_metric = panel_metric
        self.panel_cases = panel_cases
        self.model_path = Path(model_path) if model_path is not None else None
        self.caveats = list(caveats)
        self.digest = digest
        self._predictors: dict[str, Predictor] = {}
        self._own: list[tuple[str, Collected]] = []

    def attach(self, engine: Engine) -> None:
        """Fit the trivial predictors at the start, collect every iteration, write after the epoch."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self._own = []
        if not self._predictors:
            self._predictors = fit_predictors(self.training)

    def _collect(self, engine: Engine) -> None:
        for case in cases_of(engine):
            preds = {"model": case["pred"]} | {name: f(case) for name, f in self._predictors.items()}
            rows = [{"predictor": name} | case_row(case, pred) for name, pred in preds.items()]
            small = {name: (thumbnail(pred), thumbnail(case["label"])) for name, pred in preds.items()}
            self._own.append((case["path"], (rows, small, picture_of(case))))

    def _write(self, engine: Engine) -> None:
        collected = gather_cases(self._own)
        if not collected:
            return
        cases = pd.DataFrame([row for rows, _, _ in collected for row in rows])
        summary = {}
        for name in cases["predictor"].unique():
            small = [thumbnails[name] for _, thumbnails, _ in collected]
            preds, labels = (torch.stack([pair[i] for pair in small]) for i in (0, 1))
            summary[str(name)] = summarise(cases[cases["predictor"] == name]) | {"diversity": diversity(preds, labels)}
        engine.state.metrics.update(summary["model"])
        if ranks.is_main_rank():
            self._write_files(cases, summary, [picture for _, _, picture in collected])

    def _write_files(self, cases: pd.DataFrame, summary: dict[str, dict[str, float]], pictures: list[Picture]) -> None:
        if self.digest is not None:
            write_text(self.output_dir / DIGEST_FILE, f"{self.digest}\n")
        columns = ["predictor", *CASE_COLUMNS]
        ordered = cases[columns + [c for c in cases.columns if c not in columns]]
        with atomic_path(self.output_dir / "cases.csv") as path:
            ordered.to_csv(path, index=False)
        write_text(self.output_dir / "summary.json", json_text(summary))
        self._write_caveats()
        of_model = cases[cases["predictor"] == "model"].reset_index(drop=True)
        panels = self._write_panels(of_model, pictures)
        lesions = int(of_model["lesion_mae"].notna().sum())
        print(
            f"\n{len(pictures)} cases, {lesions} with lesions; means over cases, lesion metrics over cases with lesions"
        )
        print("\n".join([format_summary(summary), *(f"NOTE: {caveat}" for caveat in self.caveats)]))
        paths = self._paths(panels)
        print("\n".join(f"{name:<14}{path}" for name, path in paths.items()), flush=True)

    def _write_caveats(self) -> None:
        path = self.output_dir / "caveats.txt"
        path.unlink(missing_ok=True)
        if self.caveats:
            write_text(path, "\n".join(self.caveats) + "\n")

    def _paths(self, panels: Mapping[str, Path]) -> dict[str, Path]:
        paths = {"cases": self.output_dir / "cases.csv", **panels, "curves": self.output_dir / "curves.png"}
        if self.model_path is not None:
            paths["model"] = self.model_path
        paths["caveats"] = self.output_dir / "caveats.txt"
        paths["summary"] = self.output_dir / "summary.json"
        return {name: path for name, path in paths.items() if path.is_file()}

    def _write_panels(self, rows: pd.DataFrame, pictures: list[Picture]) -> dict[str, Path]:
        order = rows[self.panel_metric].dropna().sort_values(kind="stable").index.tolist()
        n = min(self.panel_cases, len(order))
        if n <= 0:
            return {}
        middle = (len(order) - n) // 2
        chosen = {"worst": order[:n], "median": order[middle : middle + n], "best": order[::-1][:n]}
        paths = {}
        for name, indices in chosen.items():
            shown = [
                replace(pictures[i], title=f"{pictures[i].title}\n{self.panel_metric} {rows[self.panel_metric][i]:.3f}")
                for i in indices
            ]
            figure = draw(shown, f"{name} cases by {self.panel_metric}")
            paths[f"panel {name}"] = save(figure, self.output_dir / "panels" / f"{name}.png")
        return paths


def format_summary(summary: Mapping[str, Mapping[str, float]], metrics: Sequence[str] = TABLE_METRICS) -> str:
    """An aligned table, one line per metric and one column per predictor; ``-`` where a figure does not exist."""
    names = list(summary)
    width = max(12, *(len(name) + 2 for name in names))
    lines = [f"{'metric':<20}" + "".join(f"{name:>{width}}" for name in names)]
    for metric in metrics:
        values = (summary[name].get(metric, math.nan) for name in names)
        lines.append(
            f"{metric:<20}" + "".join(f"{v:>{width}.4f}" if math.isfinite(v) else f"{'-':>{width}}" for v in values)
        )
    return "\n".join(lines)
