"""Choose gamma by the validation sections, and draw what every gamma does on the test sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bundle.metrics.intervals import Resampling, compare, figures
from scripts.evidence.arms import gamma_arm
from scripts.evidence.results import rows_of

__all__ = ["RULE", "SHOWN", "choose_gamma", "draw_gamma", "gamma_figures"]

LARGEST_LOSS_DB = 0.1
RULE = (
    "Chosen on the validation sections, never on the test sections: beginning with the smallest gamma, a larger one "
    "takes its place if the 95 % interval of the paired difference in lesion MAE lies below 0 and the mean breast PSNR "
    f"is at most {LARGEST_LOSS_DB} dB below that of the smallest gamma. Without such a gain the smallest gamma stays."
)
SHOWN = {
    "psnr": "PSNR, whole image [dB]",
    "breast_psnr": "PSNR, breast [dB]",
    "false_enhancement": "false enhancement (best: 0)",
    "lesion_mae": "lesion MAE (best: 0)",
    "lesion_contrast_r": "lesion contrast, correlation (best: 1)",
    "contrast_recovery": "contrast recovered (best: 1)",
}
Curve = dict[str, list[dict[str, float]]]


def choose_gamma(validation: pd.DataFrame, gammas: Sequence[float], resampling: Resampling) -> float:
    """The gamma that `RULE` chooses.

    Args:
        validation: cases of the validation sections, with the column ``arm`` (`scripts.evidence.arms.gamma_arm`).
        gammas: at least one, in any order.
        resampling: how the intervals are made.
    """
    rows = {gamma: rows_of(validation, gamma_arm(gamma).name) for gamma in sorted(gammas)}
    smallest, *larger = rows
    chosen = smallest
    for gamma in larger:
        loss = -compare(rows[smallest], rows[gamma], resampling)["breast_psnr"]["difference"]
        gain = compare(rows[chosen], rows[gamma], resampling)["lesion_mae"]
        if gain["high"] < 0 and loss <= LARGEST_LOSS_DB:
            chosen = gamma
    return chosen


def gamma_figures(cases: pd.DataFrame, gammas: Sequence[float], resampling: Resampling) -> Curve:
    """Metric -> one entry a gamma, in rising order, with ``gamma``, ``mean``, ``low`` and ``high``."""
    of_gamma = {gamma: figures(rows_of(cases, gamma_arm(gamma).name), resampling) for gamma in sorted(gammas)}
    return {
        metric: [
            {"gamma": gamma, **{key: found[metric][key] for key in ("mean", "low", "high")}}
            for gamma, found in of_gamma.items()
        ]
        for metric in next(iter(of_gamma.values()))
    }


def draw_gamma(test: Curve, validation: Curve, chosen: float) -> Figure:
    """One picture: whole image, breast and lesion over gamma, with intervals; the chosen gamma dotted."""
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    for ax, (metric, title) in zip(figure.subplots(2, 3).flat, SHOWN.items(), strict=True):
        _draw(ax, test[metric], "test", "#0072b2", "o-", 0.04)
        _draw(ax, validation[metric], "validation", "#d55e00", "s--", -0.04)
        gammas = [entry["gamma"] for entry in test[metric]]
        ax.axvline(gammas.index(chosen), color="0.4", linestyle=":", linewidth=1)
        ax.set_xticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("gamma", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.25)
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.suptitle(f"mean and 95 % interval over patients; chosen gamma {chosen:g} (dotted)", fontsize=11)
    return figure


def _draw(ax: Axes, entries: Sequence[Mapping[str, Any]], label: str, colour: str, style: str, shift: float) -> None:
    places = [place + shift for place in range(len(entries))]
    means = [entry["mean"] for entry in entries]
    # an interval of percentiles need not hold the mean of a skewed sample
    below, above = (
        [max(0.0, sign * (entry["mean"] - entry[key])) for entry in entries] for key, sign in (("low", 1), ("high", -1))
    )
    ax.errorbar(places, means, [below, above], fmt=style, color=colour, label=label, capsize=3, markersize=4,
                linewidth=1.3)  # fmt: skip
