"""The curves of ``explanations.json``: reliability, and what deletion leaves. The report uses them too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.charts import plain_text, styled

__all__ = ["ATTRIBUTION_TITLES", "METHOD_TITLES", "calibration_figure", "curves_figure"]

METHOD_TITLES = {"tta": "test-time augmentation", "ensemble": "ensemble"}
ATTRIBUTION_TITLES = {"ig": "integrated gradients", "occlusion": "occlusion"}
_COLOURS = {"tta": "#0072b2", "ensemble": "#d55e00", "ig": "#0072b2", "occlusion": "#d55e00"}
_STYLE = {"font.size": 9}


def calibration_figure(uncertainty: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Reliability curves of each method, as predicted and recalibrated on other patients; None without any.

    Args:
        uncertainty: method -> ``calibration``, as in ``explanations.json``.
    """
    shown = _calibrations(uncertainty)
    if not shown:
        return None
    with styled(_STYLE):
        figure = Figure(figsize=(4.2 * len(shown) + 0.3, 3.9), layout="constrained")
        for axes, (name, found) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
            _draw_calibration(axes, name, found)
    return figure


def curves_figure(
    methods: Mapping[str, Mapping[str, Any]], uncertainty: Mapping[str, Mapping[str, Any]]
) -> Figure | None:
    """All curves in one row: what deletion leaves, then reliability by method; None without any.

    Args:
        methods: method -> ``deletion``, as in ``explanations.json`` under ``attribution``.
        uncertainty: as in `calibration_figure`.
    """
    deleted = {name: one["deletion"]["curve"] for name, one in methods.items() if one["deletion"]["curve"]}
    shown = _calibrations(uncertainty)
    if not deleted and not shown:
        return None
    with styled(_STYLE):
        figure = Figure(figsize=(11.5, 3.6), layout="constrained")
        places = list(figure.subplots(1, max(3, len(shown) + bool(deleted)), squeeze=False)[0])
        if deleted:
            _draw_deletion(places.pop(0), deleted)
        for name, found in shown.items():
            _draw_calibration(places.pop(0), name, found)
        for spare in places:
            spare.set_visible(False)
    return figure


def _calibrations(uncertainty: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {name: one["calibration"] for name, one in uncertainty.items() if one["calibration"]["raw"]["bins"]}


def _draw_calibration(axes: Axes, name: str, found: Mapping[str, Any]) -> None:
    """Root mean square error over root mean square of the predicted standard deviation, bin by bin."""
    largest, colour = 0.0, _COLOURS.get(name, "#000000")
    for kind, line, sign in (("raw", "-", "o"), ("recalibrated", "--", "s")):
        bins = found[kind]["bins"]
        if not bins:
            continue
        x, y = ([float(one[key]) for one in bins] for key in ("rmv", "rmse"))
        ence = found[kind]["ence"]["value"]
        words = "as predicted" if kind == "raw" else kind
        known = ence is not None and math.isfinite(ence)
        axes.plot(x, y, line, marker=sign, markersize=4, color=colour, alpha=1 if kind == "raw" else 0.6,
                  label=f"{words}, ENCE {ence:.2f}" if known else words)  # fmt: skip
        largest = max(largest, *x, *y)
    axes.plot([0, largest], [0, largest], color="#6a727b", linewidth=1, linestyle=":", label="perfect")
    axes.set_title(METHOD_TITLES.get(name, plain_text(name)))
    axes.set_xlabel("predicted standard deviation (RMS)")
    axes.set_ylabel("error (RMS)")
    axes.legend(fontsize=8)


def _draw_deletion(axes: Axes, curves: Mapping[str, Any]) -> None:
    """How the explained number changes without the pixels that each map names, and without random ones."""
    x: list[float] = []
    for name, curve in curves.items():
        x = [100 * float(one["fraction"]) for one in curve]
        title, colour = ATTRIBUTION_TITLES.get(name, plain_text(name)), _COLOURS.get(name, "#000000")
        axes.plot(x, [float(one["named"]) for one in curve], "-o", markersize=4, color=colour, label=title)
    random = [float(one["random"]) for one in next(iter(curves.values()))]
    axes.plot(x, random, ":", color="#6a727b", label="random pixels")
    axes.axhline(0, color="#d0d7de", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{one:g}" for one in x])
    axes.minorticks_off()
    axes.set_title("deletion")
    axes.set_xlabel("pixels of the breast replaced [%]")
    axes.set_ylabel("change of the lesion's virtual DES")
    axes.legend(fontsize=8)
