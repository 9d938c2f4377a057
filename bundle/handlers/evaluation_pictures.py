"""What an evaluation shows of its cases: panels for people, and one grey picture a case for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from bundle.files import atomic_path
from bundle.handlers.pictures import Picture, draw, save

__all__ = ["write_panels", "write_pictures"]


def write_panels(
    rows: pd.DataFrame, pictures: Sequence[Picture], metric: str, count: int, output_dir: Path
) -> dict[str, Path]:
    """Draw the worst, the median and the best cases by a metric (higher = better); return name -> path.

    Args:
        rows: one row a picture, in the same order.
        pictures: of the cases.
        metric: column that orders them; cases without it are left out.
        count: number of cases in each panel; 0 draws none.
        output_dir: the panels go to ``panels/`` in it.
    """
    order = rows[metric].dropna().sort_values(kind="stable").index.tolist()
    n = min(count, len(order))
    if n <= 0:
        return {}
    middle = (len(order) - n) // 2
    chosen = {"worst": order[:n], "median": order[middle : middle + n], "best": order[::-1][:n]}
    paths = {}
    for name, indices in chosen.items():
        shown = [replace(pictures[i], title=f"{pictures[i].title}\n{metric} {rows[metric][i]:.3f}") for i in indices]
        figure = draw(shown, f"{name} cases by {metric}")
        paths[f"panel {name}"] = save(figure, output_dir / "panels" / f"{name}.png")
    return paths


def write_pictures(pictures: Sequence[Picture], output_dir: Path) -> list[str]:
    """Write LE | real DES | virtual DES | lesion (0 or 255) of each case as one 8-bit grey PNG, ``(H, 4 W)``.

    Returns:
        The paths relative to ``output_dir``: ``pictures/0001.png`` and so on, in the order of the cases. Pictures of
        an earlier evaluation with more cases are removed.
    """
    folder = output_dir / "pictures"
    names = [f"{number:04d}.png" for number in range(1, len(pictures) + 1)]
    for name, picture in zip(names, pictures, strict=True):
        strip = np.hstack([picture.image, picture.label, picture.pred, picture.lesion * 255])
        with atomic_path(folder / name) as unfinished:
            Image.fromarray(strip.astype(np.uint8)).save(unfinished)
    for stale in set(folder.glob("[0-9]*.png")) - {folder / name for name in names}:
        stale.unlink()
    return [f"pictures/{name}" for name in names]
