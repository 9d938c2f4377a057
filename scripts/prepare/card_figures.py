"""The figures of the data card, as SVG. The same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from scripts.charts import Chart, plain_text, styled, svg_chart

__all__ = ["intensity_chart", "mask_chart", "overlap_chart"]

LE, DES = "#d55e00", "#0072b2"
"""Vermilion and blue: told apart with every kind of colour vision."""
_VENDORS = (("#000000", "-"), ("#d55e00", "--"), ("#0072b2", "-."), ("#009e73", ":"), ("#cc79a7", (0, (5, 1, 1, 1))))
"""Colour and line of each vendor; of more vendors, the rarest share the last one."""
_STYLE = {"font.size": 10, "axes.titlesize": 11}
_MARGINS = {"left": 0.055, "right": 0.975, "bottom": 0.18, "top": 0.88}


def _wide_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(11.5, 3))
    return figure, figure.subplots(gridspec_kw=_MARGINS)


def _histogram(axes: Axes, values: Any, edges: Sequence[float], colour: str, line: str, title: str) -> None:
    if len(values):
        axes.hist(values, edges, histtype="stepfilled", facecolor=colour, alpha=0.3)
        axes.hist(values, edges, histtype="step", edgecolor=colour, linestyle=line, linewidth=1.5, label=title)


def _finish_counts(axes: Axes) -> None:
    """Whole numbers at the counts, and the legend above, where it hides no bar."""
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)


def overlap_chart(cases: pd.DataFrame) -> Chart | None:
    """Histograms of the overlap of the breasts before and after registration."""
    before, after = cases["overlap_before"].dropna(), cases["overlap_after"].dropna()
    if after.empty:
        return None
    low = min(0.9, np.floor(20 * pd.concat([before, after]).min()) / 20)
    edges = np.linspace(low, 1.0, 41).tolist()
    with styled(_STYLE):
        figure, axes = _wide_figure()
        _histogram(axes, before, edges, LE, "--", "before")
        _histogram(axes, after, edges, DES, "-", "after")
        axes.set(xlabel="overlap of the breasts in LE and DES (intersection over union)", ylabel="pairs", xlim=(low, 1))
        _finish_counts(axes)
        middles = [
            f"{title} (median {values.median():.3f})" for title, values in (("before", before), ("after", after))
        ]
        return svg_chart(figure, f"Histogram of the overlap {' and '.join(middles)} registration.")


def mask_chart(cases: pd.DataFrame) -> Chart | None:
    """Histograms of the size of the lesions, drawn on LE and on DES, over a logarithmic axis."""
    in_mm = bool(cases["pixel_mm"].notna().any())
    size = {
        mask: (cases[f"{mask}_pixels"] * cases["pixel_mm"] ** 2 if in_mm else cases[f"{mask}_percent"])
        for mask in ("mask", "label_mask")
    }
    drawn = {mask: values[values > 0] for mask, values in size.items()}
    every = pd.concat(drawn.values())
    if every.empty:
        return None
    low, high = float(every.min()), float(every.max())
    edges = np.geomspace(low * 0.99, max(high, low * 1.5) * 1.01, 31).tolist()
    what = "area of the lesions of a pair in mm\N{SUPERSCRIPT TWO}" if in_mm else "lesions of a pair in % of the breast"
    with styled(_STYLE):
        figure, axes = _wide_figure()
        _histogram(axes, drawn["mask"], edges, LE, "--", "drawn on LE")
        _histogram(axes, drawn["label_mask"], edges, DES, "-", "drawn on DES")
        axes.set(xscale="log", xlabel=f"{what} (logarithmic)", ylabel="pairs")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        _finish_counts(axes)
        return svg_chart(figure, f"Histogram of the {what}, from {low:.3g} to {high:.3g}.")


def intensity_chart(cases: pd.DataFrame) -> Chart | None:
    """Intensities of LE and DES inside the breast: mean over the cases, and the band of the middle 80 %."""
    if not any(len(_shares(cases[f"{key}_histogram"])) for key in ("image", "label")):
        return None
    with styled(_STYLE):
        figure = Figure(figsize=(11.5, 3.4))
        left, right = figure.subplots(1, 2, gridspec_kw=_MARGINS | {"bottom": 0.16, "wspace": 0.14})
        for axes, key, title, colour in ((left, "image", "LE", LE), (right, "label", "DES", DES)):
            axes.set(title=title, xlabel="grey value in % of the window", ylabel="% of the breast", xlim=(0, 100))
            parts = _vendors(cases)
            styles = _VENDORS if len(parts) > 1 else ((colour, "-"),)
            for (name, part), style in zip(parts.items(), styles, strict=False):
                _band(axes, _shares(part[f"{key}_histogram"]), name, *style)
            axes.set_ylim(bottom=0)
            if len(parts) > 1:
                axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
        words = "mean over the cases and band from the 10th to the 90th percentile"
        return svg_chart(figure, f"Histograms of the grey values inside the breast in LE and in DES: {words}.")


def _band(axes: Axes, shares: NDArray[np.float64], name: str, colour: str, line: Any) -> None:
    if not len(shares):
        return
    place = (np.arange(shares.shape[1]) + 0.5) / shares.shape[1] * 100
    low, high = np.percentile(shares, (10, 90), axis=0) * 100
    axes.fill_between(place, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(place, shares.mean(axis=0) * 100, color=colour, linestyle=line, label=name)


def _shares(histograms: Iterable[Any]) -> NDArray[np.float64]:
    """(cases, bins): each histogram as shares with sum 1; empty ones are passed over."""
    rows = [np.asarray(one, dtype=np.float64) for one in histograms if isinstance(one, (list, tuple)) and sum(one) > 0]
    return np.stack([row / row.sum() for row in rows]) if rows else np.zeros((0, 0))


def _vendors(cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Name for the legend -> cases: of the most frequent vendors, and of the others together."""
    counts = cases["vendor"].value_counts()
    names = sorted(counts.index, key=lambda vendor: (-counts[vendor], vendor))
    named = names if len(names) <= len(_VENDORS) else names[: len(_VENDORS) - 1]
    parts = {plain_text(f"{vendor} ({counts[vendor]})"): cases[cases["vendor"] == vendor] for vendor in named}
    rest = cases[~cases["vendor"].isin(named)]
    return parts | ({f"others ({len(rest)})": rest} if len(rest) else {})
