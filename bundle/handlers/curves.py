"""Losses and validation metrics of every epoch, as a table and as a picture."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from ignite.engine import Engine, Events
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bundle import ranks
from bundle.files import atomic_path, remove_unfinished_in
from bundle.handlers.pictures import save
from bundle.handlers.running_losses import RunningLosses
from bundle.resumable_trainer import ResumableTrainer, TrainingEvents

__all__ = ["BestSoFar", "Curves", "draw_curves"]


class BestSoFar(Protocol):
    """What chooses the best model: the metric's name, its best value, and the epoch of that (0 = none yet)."""

    metric: str
    best: float
    best_epoch: int


class Curves:
    """Writes ``history.csv`` (one line per epoch) and ``curves.png`` into ``output_dir``.

    Columns: ``epoch``, the epoch means of the losses in the trainer's output, ``val_<metric>`` where the epoch was
    validated (a metric that is called ``val_...`` already keeps its name). Attach it to the trainer; the place among
    the handlers does not matter. After a resume the file is read and its lines from the resumed epoch on are dropped,
    so the history is that of one uninterrupted run. Under torch.distributed rank 0 writes; its losses are those of its
    own share.

    Args:
        output_dir: folder of the run.
        evaluator: validation engine whose ``state.metrics`` are recorded.
        best: marks its best epoch in the picture, e.g. `bundle.selection.BestModel`.
        draw_every: least time between two pictures in seconds, the last is always drawn; None draws none.
    """

    def __init__(
        self,
        output_dir: str | Path,
        evaluator: Engine | None = None,
        best: BestSoFar | None = None,
        draw_every: float | None = 30.0,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.evaluator = evaluator
        self.best = best
        self.draw_every = draw_every
        self.rows: dict[int, dict[str, float]] = {}
        self._losses = RunningLosses()
        self._drawn = -math.inf
        self._shown: tuple[dict[int, dict[str, float]], int] | None = None

    @property
    def history(self) -> pd.DataFrame:
        """All epochs so far, in order."""
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        columns = ["epoch", *sorted(names, key=lambda name: name.startswith("val_"))]
        rows = [{"epoch": epoch} | self.rows[epoch] for epoch in sorted(self.rows)]
        return pd.DataFrame(rows, columns=columns)

    def attach(self, engine: Engine) -> None:
        """Attach to the training engine, and through it to the evaluator."""
        if not ranks.is_main_rank():
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: self._losses.update(e.state.output))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._complete_epoch)
        engine.add_event_handler(Events.COMPLETED, lambda _: self._draw())
        if isinstance(engine, ResumableTrainer):
            engine.add_event_handler(TrainingEvents.ENDING, lambda _: self._draw())
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._complete_validation)

    def _start(self, engine: Engine) -> None:
        """Take up the history of the epochs before a resume."""
        remove_unfinished_in(self.output_dir, "history.csv", "curves.png")
        path = self.output_dir / "history.csv"
        if engine.state.epoch > 0 and path.is_file():
            read = {epoch: row for epoch, row in _read(path).items() if epoch <= engine.state.epoch}
            self.rows = read | self.rows

    def _start_epoch(self, engine: Engine) -> None:
        self.rows = {epoch: row for epoch, row in self.rows.items() if epoch < engine.state.epoch}
        self._losses.reset()

    def _complete_epoch(self, engine: Engine) -> None:
        self._record(engine.state.epoch, self._losses.means())
        if self.draw_every is not None and time.monotonic() - self._drawn >= self.draw_every:
            self._draw()

    def _complete_validation(self, evaluator: Engine) -> None:
        metrics = {k: float(v) for k, v in evaluator.state.metrics.items() if isinstance(v, (int, float))}
        # MONAI's key metric val_mae is the mae of `CaseMetrics`; where both are there, the latter, which the best model
        # is chosen by, is kept.
        own = {f"val_{name}": value for name, value in metrics.items() if not name.startswith("val_")}
        others = {name: value for name, value in metrics.items() if name.startswith("val_")}
        self._record(evaluator.state.epoch, others | own)

    def _record(self, epoch: int, figures: Mapping[str, float]) -> None:
        # as they are read from the file after a resume, so that the picture is the same
        self.rows.setdefault(epoch, {}).update({name: float(f"{value:.6g}") for name, value in figures.items()})
        with atomic_path(self.output_dir / "history.csv") as path:
            self.history.to_csv(path, index=False, float_format="%.6g")

    def _draw(self) -> None:
        best_epoch = self.best.best_epoch if self.best is not None else 0
        if not self.rows or self.draw_every is None or self._shown == (self.rows, best_epoch):
            return
        save(draw_curves(self.history, best_epoch), self.output_dir / "curves.png")
        self._drawn, self._shown = time.monotonic(), (copy.deepcopy(self.rows), best_epoch)


def draw_curves(history: pd.DataFrame, best_epoch: int = 0) -> Figure:
    """Six plots over epochs: adversarial, cycle and identity, discriminators; PSNR, SSIM, lesion figures."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    plots: list[tuple[str, list[str], dict[str, Any]]] = [
        ("generators: adversarial", ["G_AB", "G_BA", "lesion_G_AB", "lesion_G_BA"], {}),
        ("generators: cycle, identity, lesion (weighted)", _reconstruction(history), {"log": True}),
        ("discriminators (chance: 0.25)", ["D_A", "D_B", "lesion_D_A", "lesion_D_B"], {"line": 0.25}),
        ("validation PSNR [dB]", ["val_psnr", "val_breast_psnr", "val_lesion_psnr"], {}),
        ("validation SSIM", ["val_ssim", "val_breast_ssim", "val_lesion_ssim"], {}),
        (
            "validation, lesions (ideal: 1)",
            ["val_lesion_contrast_r", "val_contrast_recovery", "val_lesion_dice"],
            {"line": 1.0},
        ),
    ]
    for ax, (title, columns, options) in zip(figure.subplots(2, 3).flat, plots, strict=True):
        _plot(ax, history, [c for c in columns if c in history], **options)
        ax.set_title(title, fontsize=10)
        if best_epoch > 0:
            ax.axvline(best_epoch, color="0.4", linestyle=":", linewidth=1)
    last = int(history["epoch"].max())
    figure.suptitle(
        f"epoch {last}" + (f", best model: epoch {best_epoch} (dotted)" if best_epoch > 0 else ""), fontsize=11
    )
    return figure


def _reconstruction(history: pd.DataFrame) -> list[str]:
    return [c for c in map(str, history) if c.startswith(("cycle_", "idt_", "lesion_cycle_", "lesion_idt_"))]


def _plot(ax: Axes, history: pd.DataFrame, columns: list[str], log: bool = False, line: float | None = None) -> None:
    colours: dict[str, str] = {}
    pairs = len(columns) > 3
    for column in columns:
        known = history[["epoch", column]].dropna()
        # one colour for a term, dashed in domain A
        term, domain_a = column.removesuffix("_A").removesuffix("_B"), column.endswith(("_A", "_BA"))
        colour = colours.setdefault(term if pairs else column, f"C{len(colours)}")
        label = column if pairs else column.removeprefix("val_").replace("_", " ")
        ax.plot(known["epoch"], known[column], label=label, color=colour, linestyle="--" if domain_a else "-",
                marker="o" if len(known) < 30 else "", markersize=3, linewidth=1.3)  # fmt: skip
    if line is not None:
        ax.axhline(line, color="0.7", linewidth=0.8)
    if log and columns and (history[columns] > 0).any(axis=None):
        ax.set_yscale("log")
    if columns:
        ax.legend(fontsize=8, frameon=False, ncols=4 if pairs else 3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    else:
        ax.text(0.5, 0.5, "no figures", ha="center", transform=ax.transAxes, color="0.5")
    ax.set_xlabel("epoch", fontsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25)


def _read(path: Path) -> dict[int, dict[str, float]]:
    rows: dict[int, dict[str, float]] = {}
    for record in pd.read_csv(path).to_dict("records"):
        epoch = int(record.pop("epoch"))
        rows[epoch] = {str(name): float(value) for name, value in record.items()}  # NaN too: it keeps a column's place
    return rows
