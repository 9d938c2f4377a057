"""Figures inside an HTML page, as SVG. The same numbers give the same bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure
from matplotlib.style import context

__all__ = ["Chart", "plain_text", "styled", "svg_chart"]

_STYLE: dict[str, Any] = {
    "svg.hashsalt": "cesm_virtual_contrast",
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#57606a",
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Chart:
    """A figure on the page: a data URI, and what it shows in words."""

    uri: str
    text: str


def styled(more: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Draw in the style of our pages and ``more`` (matplotlib's settings), whatever a matplotlibrc says."""
    return context(["default", {**_STYLE, **more}])


def svg_chart(figure: Figure, text: str) -> Chart:
    """The figure as SVG without a date, described by ``text``."""
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return Chart("data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode(), text)


def plain_text(text: str) -> str:
    """A text that matplotlib shows as it is: no formula between dollars, not hidden for a leading underscore."""
    return text.replace("$", r"\$").lstrip("_ ")
