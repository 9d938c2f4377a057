"""Pictures of cases in rows: LE | real DES | virtual DES | error, with the lesions outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn import functional

from bundle.files import atomic_path

__all__ = ["Picture", "draw", "picture_of", "rgb", "save"]

Grey = npt.NDArray[np.uint8]
_COLUMNS = ("low-energy (LE)", "real DES", "virtual DES", "virtual - real")
_ERROR_RANGE = 0.3
_LARGEST_SIDE = 256


@dataclass(frozen=True)
class Picture:
    """One case as it is shown: grey values 0 to 255, ``(H, W)`` with row 0 on top, and the lesion 0 or 1."""

    title: str
    image: Grey
    label: Grey
    pred: Grey
    lesion: Grey


def picture_of(case: dict[str, Any], title: str = "") -> Picture:
    """Take a case of `bundle.handlers.cases.cases_of`, at most 256 pixels a side, so that a data set of them fits."""
    name = " ".join(part for part in (case["patient_id"], case["laterality"], case["view"]) if part)
    return Picture(
        title=title or name or case["source"],
        **{key: _grey(case[key], "area") for key in ("image", "label", "pred")},
        lesion=_grey(case["label_mask"], "nearest") // 255,
    )


def draw(pictures: Sequence[Picture], title: str = "") -> Figure:
    """A figure of one row per picture. Both DES of a row share one window, from the real DES; the error spans +-0.3."""
    rows = len(pictures)
    figure = Figure(figsize=(10.6, 2.4 * rows + 0.65), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, len(_COLUMNS), squeeze=False)
    for row, picture in zip(axes, pictures, strict=True):
        _draw_row(row, picture)
    for ax, name in zip(axes[0], _COLUMNS, strict=True):
        ax.set_title(name, fontsize=10)
    bar = figure.colorbar(axes[0, -1].images[0], ax=axes[:, -1], fraction=0.05, aspect=20 * rows)
    bar.ax.tick_params(labelsize=7)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, atomically."""
    with atomic_path(path) as unfinished:
        figure.savefig(unfinished, dpi=100)
    return path


def rgb(figure: Figure) -> npt.NDArray[np.uint8]:
    """The figure as ``(H, W, 3)``, for TensorBoard."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    buffer.seek(0)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _draw_row(row: Sequence[Any], picture: Picture) -> None:
    shown = picture.label[picture.image > 5]
    low, high = np.percentile(shown, (1, 99)) if shown.size else (0, 255)
    error = (picture.pred.astype(np.float32) - picture.label) / 255
    row[0].imshow(picture.image, cmap="gray", vmin=0, vmax=255)
    row[1].imshow(picture.label, cmap="gray", vmin=low, vmax=max(high, low + 1))
    row[2].imshow(picture.pred, cmap="gray", vmin=low, vmax=max(high, low + 1))
    row[3].imshow(error, cmap="RdBu_r", vmin=-_ERROR_RANGE, vmax=_ERROR_RANGE)
    row[0].set_ylabel(picture.title, fontsize=8)
    for ax, colour in zip(row, ("gold", "gold", "gold", "black"), strict=True):
        ax.set_xticks([])
        ax.set_yticks([])
        if picture.lesion.any() and not picture.lesion.all():
            ax.contour(picture.lesion, levels=[0.5], colors=colour, linewidths=0.8)


def _grey(x: Tensor, mode: str) -> Grey:
    """``(1, 1, W, H)`` in [0, 1] to uint8 ``(H, W)``."""
    scale = _LARGEST_SIDE / max(x.shape[-2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in x.shape[-2:]]
        x = functional.interpolate(x, size=size, mode=mode)
    levels = (torch.nan_to_num(x[0, 0]).clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.T.cpu().numpy()
