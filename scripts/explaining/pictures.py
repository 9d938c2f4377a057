"""A panel of pictures for each lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from bundle.files import atomic_path
from scripts.charts import plain_text, styled
from scripts.explaining.curves import ATTRIBUTION_TITLES, METHOD_TITLES
from scripts.explaining.source import Case

__all__ = ["panel", "save"]

_ROBUST = 99.5

Grey = NDArray[np.float32]


def panel(
    case: Case, pred: Tensor, lesion: Tensor | None, maps: Mapping[str, Tensor], stds: Mapping[str, Tensor], title: str
) -> Figure:
    """LE, real and virtual DES, the attributions and the predicted standard deviations of one lesion or case.

    Both DES have one window, from the real one inside the breast. An attribution is symmetric around 0 (white), red
    where a pixel raises the enhancement of the lesion; the lesion is outlined.

    Args:
        case: images ``(1, 1, W, H)``.
        pred: virtual DES, same shape.
        lesion: bool, or None.
        maps: attributions by name (``ig``, ``occlusion``).
        stds: standard deviations by name (``tta``, ``ensemble``).
        title: headline.
    """
    label, inside = _upright(case.label), _upright(case.breast) > 0
    window = np.percentile(label[inside], (1, 99)) if inside.any() else (0.0, 1.0)
    grey = {"cmap": "gray", "vmin": float(window[0]), "vmax": max(float(window[1]), float(window[0]) + 1e-3)}
    parts: list[tuple[str, Grey, dict[str, Any]]] = [
        ("low-energy (LE)", _upright(case.image), {"cmap": "gray", "vmin": 0, "vmax": 1}),
        ("real DES", label, grey),
        ("virtual DES", _upright(pred), grey),
    ]
    for name, one in maps.items():
        largest = max(float(np.percentile(np.abs(_upright(one)), _ROBUST)), 1e-12)
        parts.append((ATTRIBUTION_TITLES[name], _upright(one), {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}))
    for name, one in stds.items():
        shown = _upright(one)
        parts.append(
            (f"std, {METHOD_TITLES[name]}", shown, {"cmap": "viridis", "vmin": 0, "vmax": _top(shown[inside])})
        )
    outline = None if lesion is None else _upright(lesion)
    return _drawn(parts, outline, title)


def _drawn(parts: Sequence[tuple[str, Grey, dict[str, Any]]], outline: Grey | None, title: str) -> Figure:
    columns = min(4, len(parts))
    rows = -(-len(parts) // columns)
    with styled({"font.size": 8, "axes.titlesize": 9}):
        figure = Figure(figsize=(3.1 * columns, 2.9 * rows + 0.4), layout="constrained")
        figure.suptitle(plain_text(title), fontsize=10)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for one, (name, pixels, look) in zip(axes, parts, strict=False):
            shown = one.imshow(pixels, interpolation="nearest", **look)
            one.set_title(name)
            figure.colorbar(shown, ax=one, fraction=0.046)
            if outline is not None and outline.any() and not outline.all():
                colour = "black" if look["cmap"] == "RdBu_r" else "gold"
                one.contour(outline, levels=[0.5], colors=colour, linewidths=0.8)
        for one in axes:
            one.set_axis_off()
    return figure


def _upright(x: Tensor) -> Grey:
    """``(1, 1, W, H)`` as ``(H, W)``, row 0 on top."""
    pixels: Grey = x[0, 0].detach().float().T.cpu().numpy()
    return pixels


def _top(values: Grey) -> float:
    known = values[np.isfinite(values)]
    return max(float(np.percentile(known, _ROBUST)), 1e-6) if known.size else 1.0


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all."""
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, dpi=90)
    return path
