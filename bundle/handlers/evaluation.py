"""The evaluation of a model beside reference predictors, as files and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from bundle import ranks
from bundle.evaluation_summary import format_summary, predictor_summary, summary_content
from bundle.files import atomic_path, json_text, remove_unfinished_in, write_text
from bundle.handlers.case_metrics import case_rows, thumbnail
from bundle.handlers.cases import CASE_COLUMNS, cases_of, gather_cases, reduced
from bundle.handlers.evaluation_pictures import write_panels, write_pictures
from bundle.handlers.pictures import Picture, picture_of
from bundle.metrics import diversity
from bundle.metrics.intervals import Resampling
from bundle.predictors import Predictor, fit_predictors
from bundle.provenance import DIGEST_FILE
from bundle.strata import STRATA, case_strata, size_class

__all__ = ["EvaluationSummary"]

Collected = tuple[list[dict[str, Any]], dict[str, tuple[Tensor, Tensor]], Picture]


class EvaluationSummary:
    """Evaluates the model, the trivial predictors and other references on the same cases and writes ``output_dir``.

    - ``cases.csv``: one row per predictor and case: predictor, patient_id, laterality, view, source, picture, strata,
      metrics (`bundle.metrics.case_metrics`).
    - ``summary.json``: for each predictor, and each level of each stratum, numbers of cases, patients and lesions, and
      for each metric n, mean, sd, median and the interval of the mean over patients
      (`bundle.metrics.intervals.figures`); null where a figure does not exist.
    - ``panels/worst.png``, ``median.png``, ``best.png``: cases of the model by ``panel_metric``.
    - ``pictures/0001.png`` …: of each case LE, real DES, virtual DES and lesion side by side in grey, for the report.
    - ``caveats.txt`` if there are any.

    The table is printed, and after it the paths of these files, of the training's ``curves.png`` and of the model, as
    far as they exist. Attach it to a MONAI ``SupervisedEvaluator``; the means of the model's metrics also go to
    ``engine.state.metrics``.

    Args:
        output_dir: folder, made when it is missing.
        training: training section to fit the trivial predictors on: a data loader, data set or iterable of batches.
            Under torch.distributed give the whole section (a data set), not the share of one rank.
        references: further predictors by name, see `bundle.references.reference_predictors`.
        cases: the datalist entries of the cases, with absolute paths; they tell the strata.
        strata: stratum -> key of the entry's ``info``, or of the entry itself; the size of the lesion is one more.
        resamples: bootstrap samples for the intervals.
        panel_metric: metric, higher = better, that orders the cases of the panels; cases without it are left out.
        panel_cases: number of cases in each panel; 0 = no panels.
        pictures: whether to write the pictures.
        model_path: weights that are evaluated, for the list of paths.
        caveats: sentences that must be read with the figures, see ``bundle.data.caveats``.
        score_size: pixels a side to which all images are reduced before they are compared; None: as they are.
        digest: of the cases that are evaluated; kept in ``data_digest.txt``, see ``bundle.provenance.results_dir``.
    """

    def __init__(
        self,
        output_dir: str | Path,
        training: Iterable[Mapping[str, Any]],
        references: Mapping[str, Predictor] | None = None,
        cases: Iterable[Mapping[str, Any]] = (),
        strata: Mapping[str, str] = STRATA,
        resamples: int = 2000,
        panel_metric: str = "breast_psnr",
        panel_cases: int = 3,
        pictures: bool = True,
        model_path: str | Path | None = None,
        caveats: Sequence[str] = (),
        score_size: int | None = None,
        digest: str | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.training = training
        self.references = dict(references or {})
        self.strata = dict(strata)
        self.resampling = Resampling(resamples)
        self.panel_metric = panel_metric
        self.panel_cases = panel_cases
        self.pictures = pictures
        self.model_path = Path(model_path) if model_path is not None else None
        self.caveats = list(caveats)
        self.score_size = score_size
        self.digest = digest
        self._strata_of = case_strata(cases, strata)
        self._predictors: dict[str, Predictor] = {}
        self._own: list[tuple[str, Collected]] = []

    def attach(self, engine: Engine) -> None:
        """Fit the trivial predictors at the start, collect every iteration, write after the epoch."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self._own = []
        if ranks.is_main_rank():
            remove_unfinished_in(self.output_dir, "cases.csv", "summary.json", "caveats.txt", DIGEST_FILE)
            remove_unfinished_in(self.output_dir / "panels", "worst.png", "median.png", "best.png")
            remove_unfinished_in(self.output_dir / "pictures", "[0-9]*.png")
        if not self._predictors:
            self._predictors = fit_predictors(self.training) | self.references

    def _collect(self, engine: Engine) -> None:
        for whole in cases_of(engine):
            preds = {"model": whole["pred"]} | {name: f(whole) for name, f in self._predictors.items()}
            case, preds = (reduced(images, self.score_size) for images in (whole, preds))
            found = zip(preds, case_rows(case, list(preds.values())), strict=True)
            rows = [self._row(name, case, figures) for name, figures in found]
            small = {name: (thumbnail(pred), thumbnail(case["label"])) for name, pred in preds.items()}
            self._own.append((case["path"], (rows, small, picture_of(case))))

    def _row(self, predictor: str, case: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
        names = {key: figures.pop(key) for key in CASE_COLUMNS}
        known = self._strata_of.get(case["path"], {})
        strata = {name: known.get(name, names.get(name, "")) for name in self.strata}
        strata["lesion_size"] = size_class(figures["lesion_mm"])
        return {"predictor": predictor} | names | {"picture": ""} | strata | figures

    def _write(self, engine: Engine) -> None:
        collected = gather_cases(self._own)
        if not collected:
            return
        cases = pd.DataFrame([row for rows, _, _ in collected for row in rows])
        predictors = {}
        for name in cases["predictor"].unique():
            of_predictor = cases[cases["predictor"] == name].drop(columns="predictor")
            summary = predictor_summary(of_predictor, [*self.strata, "lesion_size"], self.resampling)
            small = [thumbnails[name] for _, thumbnails, _ in collected]
            preds, labels = (torch.stack([pair[i] for pair in small]) for i in (0, 1))
            summary["metrics"]["diversity"] = {"n": len(small), "mean": diversity(preds, labels)}
            predictors[str(name)] = summary
        engine.state.metrics.update({name: one["mean"] for name, one in predictors["model"]["metrics"].items()})
        if ranks.is_main_rank():
            self._write_files(cases, predictors, [picture for _, _, picture in collected])

    def _write_files(self, cases: pd.DataFrame, predictors: dict[str, Any], pictures: list[Picture]) -> None:
        if self.digest is not None:
            write_text(self.output_dir / DIGEST_FILE, f"{self.digest}\n")
        if self.pictures:
            of_model = cases["predictor"] == "model"
            cases.loc[of_model, "picture"] = write_pictures(pictures, self.output_dir)
        with atomic_path(self.output_dir / "cases.csv") as path:
            cases.to_csv(path, index=False)
        content = summary_content(predictors, self.resampling, self.caveats)
        write_text(self.output_dir / "summary.json", json_text(content))
        self._write_caveats()
        rows = cases[cases["predictor"] == "model"].reset_index(drop=True)
        panels = write_panels(rows, pictures, self.panel_metric, self.panel_cases, self.output_dir)
        self._print(predictors, panels)

    def _write_caveats(self) -> None:
        path = self.output_dir / "caveats.txt"
        path.unlink(missing_ok=True)
        if self.caveats:
            write_text(path, "\n".join(self.caveats) + "\n")

    def _print(self, predictors: dict[str, Any], panels: Mapping[str, Path]) -> None:
        model = predictors["model"]
        counts = f"{model['cases']} cases of {model['patients']} patients, {model['lesions']} with lesions"
        means = f"means over cases with {100 * self.resampling.confidence:g} % intervals over patients"
        print(f"\n{counts}; {means}, lesion metrics over cases with lesions")
        print("\n".join([format_summary(predictors), *(f"NOTE: {caveat}" for caveat in self.caveats)]))
        print("\n".join(f"{name:<14}{path}" for name, path in self._paths(panels).items()), flush=True)

    def _paths(self, panels: Mapping[str, Path]) -> dict[str, Path]:
        paths = {"cases": self.output_dir / "cases.csv", **panels, "curves": self.output_dir / "curves.png"}
        if self.model_path is not None:
            paths["model"] = self.model_path
        paths["caveats"] = self.output_dir / "caveats.txt"
        paths["summary"] = self.output_dir / "summary.json"
        return {name: path for name, path in paths.items() if path.is_file()}
