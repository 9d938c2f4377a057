"""The plots of the report, as SVG. The same numbers give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from scripts.charts import Chart, plain_text, styled, svg_chart
from scripts.evidence.report_load import Evidence, sorted_texts
from scripts.evidence.report_metrics import Metric, metric_of
from scripts.evidence.report_tables import level_name, levels_of, name_of

__all__ = ["FOLD_METRICS", "STRATUM_METRICS", "fold_chart", "gamma_chart", "stratum_chart", "training_chart"]

FOLD_METRICS = (
    "breast_psnr",
    "breast_ssim",
    "lesion_mae",
    "lesion_contrast_r",
    "contrast_recovery",
    "false_enhancement",
    "psnr",
    "lesion_dice",
)
"""The first six that are known are drawn."""
STRATUM_METRICS = ("breast_psnr", "lesion_mae", "contrast_recovery", "false_enhancement")
GAMMA_METRICS = (
    "breast_psnr",
    "lesion_mae",
    "lesion_contrast_r",
    "contrast_recovery",
    "enhancement_auc",
    "false_enhancement",
)
_TRAINING = {
    "val_psnr": "validation PSNR [dB]",
    "val_lesion_mae": "validation lesion MAE",
    "loss": "loss, sum of the generators",
    "G_AB": "G_AB, adversarial",
    "cycle_A": "cycle_A",
    "cycle_B": "cycle_B",
    "D_B": "D_B (chance: 0.25)",
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Of Okabe and Ito: told apart with every kind of colour vision. Each arm has a sign of its own, too."""
_SIGNS = ("o", "s", "^", "D", "v", "P", "X")
_GREYS = ("#8a929b", "#6a727b", "#4a525b")
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e4e8ec",
}
_WIDTH, _PANEL = 11.5, 2.4
MOST_PANELS, MOST_LEVELS = 6, 12


def _looks(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Colour and sign of each arm and reference."""
    arms = {
        name: {"color": _COLOURS[i % len(_COLOURS)], "marker": _SIGNS[i % len(_SIGNS)]}
        for i, name in enumerate(evidence.arms)
    }
    greys = {
        name: {"color": _GREYS[i % len(_GREYS)], "marker": "x1+2"[i % 4], "markersize": 7}
        for i, name in enumerate(evidence.references)
    }
    return arms | greys


def _panels(count: int, columns: int = 3) -> tuple[Figure, list[Axes]]:
    columns = max(2, min(columns, count))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(_WIDTH, _PANEL * rows + 0.4), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def _legend(figure: Figure, looks: Mapping[str, Mapping[str, Any]], line: Literal["", "-"] = "") -> None:
    """One legend for all panels, above them."""
    handles = [Line2D([], [], linestyle=line, label=plain_text(name_of(name)), **look) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(6, len(handles)), borderaxespad=0)


def _title(axes: Axes, metric: Metric) -> None:
    good = {"high": "high is good", "low": "low is good", "1": "1 is good", "0": "0 is good"}.get(metric.good, "")
    axes.set_title(metric.label)
    axes.set_title(good, loc="right", fontsize=8, fontweight="normal", color="#57606a")


def fold_chart(evidence: Evidence) -> Chart | None:
    """Means of every fold and seed, a column for each fold; one sign is one trained run."""
    folds = evidence.folds
    if folds is None or folds["fold"].nunique() < 2:
        return None
    shown = [metric_of(name) for name in FOLD_METRICS if name in folds and folds[name].notna().any()][:MOST_PANELS]
    if not shown:
        return None
    places = {fold: place for place, fold in enumerate(sorted_texts(folds["fold"]))}
    looks = {name: look for name, look in _looks(evidence).items() if name in set(folds["arm"])}
    with styled(_STYLE):
        figure, panels = _panels(len(shown))
        for axes, metric in zip(panels, shown, strict=True):
            for shift, (name, look) in zip(_shifts(len(looks)), looks.items(), strict=True):
                rows = folds[folds["arm"] == name]
                at = [places[fold] + shift for fold in rows["fold"]]
                axes.plot(at, rows[metric.name], linestyle="", alpha=0.85, **look)
            _title(axes, metric)
            axes.set_xticks(list(places.values()), [f"fold {fold}" for fold in places])
            axes.set_xlim(-0.5, len(places) - 0.5)
        _legend(figure, looks)
        names = ", ".join(metric.title for metric in shown)
        return svg_chart(
            figure, f"Means of each fold for {len(looks)} predictors: {names}. The numbers are in the table below."
        )


def _shifts(count: int) -> list[float]:
    """Places beside each other inside one column."""
    step = min(0.12, 0.7 / max(count, 1))
    return [(place - (count - 1) / 2) * step for place in range(count)]


def stratum_chart(evidence: Evidence, stratum: str) -> Chart | None:
    """Means with intervals by the levels of one stratum."""
    levels = levels_of(evidence, stratum)
    strata = {
        name: (evidence.predictors.get(name, {}).get("strata") or {}).get(stratum) or {} for name in evidence.names
    }
    looks = {name: look for name, look in _looks(evidence).items() if strata[name]}
    shown = [
        metric_of(m)
        for m in STRATUM_METRICS
        if any(_figure(level, m) is not None for name in looks for level in strata[name].values())
    ]
    if not 2 <= len(levels) <= MOST_LEVELS or not shown:
        return None
    with styled(_STYLE):
        figure, panels = _panels(len(shown), columns=2 if len(levels) > 3 else 4)
        for axes, metric in zip(panels, shown, strict=True):
            for shift, (name, look) in zip(_shifts(len(looks)), looks.items(), strict=True):
                _intervals(axes, [(place + shift, _figure(strata[name].get(level, {}), metric.name))
                                  for place, level in enumerate(levels)], look)  # fmt: skip
            _title(axes, metric)
            axes.set_xticks(range(len(levels)), [_level_label(level, strata.values()) for level in levels])
            axes.set_xlim(-0.5, len(levels) - 0.5)
        _legend(figure, looks)
        words = f"Means and intervals by {stratum.replace('_', ' ')} ({', '.join(map(level_name, levels))})"
        return svg_chart(figure, f"{words}: {', '.join(m.title for m in shown)}. The numbers are in the table below.")


def _level_label(level: str, strata: Any) -> str:
    counts = [found[level].get("patients") for found in strata if level in found]
    return f"{plain_text(level_name(level))}\nn = {counts[0] or 0}"


def _figure(level: Mapping[str, Any], metric: str) -> Mapping[str, float] | None:
    figure = (level.get("metrics") or {}).get(metric) or {}
    return figure if _is_number(figure.get("mean")) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _intervals(axes: Axes, points: Sequence[tuple[float, Mapping[str, float] | None]], look: Mapping[str, Any]) -> None:
    for place, figure in points:
        if figure is None:
            continue
        if _is_number(figure.get("low")) and _is_number(figure.get("high")):
            axes.plot([place, place], [figure["low"], figure["high"]], color=look["color"], linewidth=1.6)
        axes.plot([place], [figure["mean"]], linestyle="", **look)


def gamma_chart(gamma: Mapping[str, Any]) -> Chart | None:
    """Figures over gamma on the test and the validation sections, with the chosen gamma.

    The gammas stand at equal distances, since they are often spread over orders of magnitude.
    """
    parts = {"test": gamma.get("metrics") or {}, "validation": gamma.get("validation") or {}}
    names = dict.fromkeys(name for part in parts.values() for name in part)
    shown = [name for name in GAMMA_METRICS if name in names] or list(names)[:MOST_PANELS]
    gammas = sorted({one["gamma"] for part in parts.values() for name in shown for one in part.get(name) or ()})
    if not gammas:
        return None
    looks = {"test": {"color": _COLOURS[0], "marker": "o"}, "validation": {"color": _COLOURS[1], "marker": "s"}}
    chosen = gamma.get("chosen")
    with styled(_STYLE):
        figure, panels = _panels(len(shown))
        for axes, name in zip(panels, shown, strict=True):
            for (part, look), shift in zip(looks.items(), (-0.05, 0.05), strict=True):
                points = [(gammas.index(one["gamma"]) + shift, one) for one in parts[part].get(name) or ()]
                known = [(place, one) for place, one in points if _is_number(one.get("mean"))]
                _intervals(axes, known, look | {"markersize": 5})
                means = [one["mean"] for _, one in known]
                line = "--" if part == "validation" else "-"
                axes.plot([place for place, _ in known], means, linestyle=line, color=look["color"], linewidth=1.2)
            if chosen in gammas:
                axes.axvline(gammas.index(chosen), color="#57606a", linestyle=":", linewidth=1.2)
            _title(axes, metric_of(name))
            axes.set_xticks(range(len(gammas)), [f"{one:g}" for one in gammas])
            axes.set_xlabel("gamma")
        _legend(figure, {name: look for name, look in looks.items() if parts[name]}, "-")
        titles = ", ".join(metric_of(name).title for name in shown)
        return svg_chart(figure, f"Means and intervals over gamma, dotted line at the chosen {chosen}: {titles}.")


def training_chart(evidence: Evidence) -> Chart | None:
    """Validation figures and losses by epoch: a line for each run, a colour for each arm, a ring at the best epoch."""
    jobs = [job for job in evidence.jobs if job.history is not None]
    columns = [name for name in _TRAINING if any(_drawn(job.history, name) for job in jobs)][:MOST_PANELS]
    if not columns:
        return None
    looks = {name: {"color": look["color"]} for name, look in _looks(evidence).items() if name in evidence.arms}
    with styled(_STYLE):
        figure, panels = _panels(len(columns))
        for axes, column in zip(panels, columns, strict=True):
            for job in jobs:
                best = ((job.record or {}).get("best") or {}).get("epoch")
                _line(axes, job.history, column, best, looks.get(job.arm, {}).get("color", "#000000"))
            axes.set_title(_TRAINING[column])
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _legend(figure, looks, "-")
        titles = ", ".join(_TRAINING[column] for column in columns)
        return svg_chart(figure, f"Curves of {len(jobs)} trained runs by epoch: {titles}.")


def _drawn(history: pd.DataFrame | None, column: str) -> bool:
    return history is not None and column in history and bool(history[column].notna().any())


def _line(axes: Axes, history: pd.DataFrame | None, column: str, best: Any, colour: str) -> None:
    if history is None or not _drawn(history, column):
        return
    known = history[["epoch", column]].dropna()
    axes.plot(
        known["epoch"], known[column], color=colour, linewidth=1.2, alpha=0.8, marker="." if len(known) < 4 else ""
    )
    at_best = known[known["epoch"] == best] if column.startswith("val_") else known.head(0)
    axes.plot(at_best["epoch"], at_best[column], color=colour, marker="o", markersize=6, markerfacecolor="none")
