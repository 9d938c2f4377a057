"""How far an exported network is from the eager one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["SHAPES", "TOLERANCE", "DifferenceError", "breast_like", "check_agreement"]

TOLERANCE = 1e-4
"""Largest difference allowed, of values in [0, 1]: a fortieth of a grey level of 8 bits."""
SHAPES = ((1, 256, 256), (1, 512, 320), (2, 256, 256), (1, 260, 204))
"""Batch and sides compared: of the training, not square, a batch, and multiples of 4 that are none of 8."""

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class DifferenceError(Exception):
    """An exported network does not compute what the network computes."""


def breast_like(batch: int, width: int, height: int) -> Tensor:
    """Images as the network gets them: textured half ellipses on a background of 0, in [0, 1]; always the same.

    Returns:
        Shape ``(batch, 1, width, height)``, float32.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, width)[:, None]
    y = torch.linspace(-1, 1, height)[None, :]
    inside = (x / 0.8) ** 2 + (y / 0.9) ** 2 < 1
    texture = torch.rand(batch, 1, width, height, generator=generator)
    return inside * (0.2 + 0.3 * (1 - x) + 0.5 * texture)


def check_agreement(name: str, network: nn.Module, run: Run) -> list[str]:
    """Compare ``run`` with ``network`` in float32 on :data:`SHAPES`.

    Returns:
        One line for each shape with its largest absolute difference.

    Raises:
        DifferenceError: one is above :data:`TOLERANCE` or not a number.
    """
    lines = []
    for shape in SHAPES:
        image = breast_like(*shape)
        with torch.inference_mode():
            expected = network(image).numpy()
        found = run(image.numpy())
        same_shape = found.shape == expected.shape
        difference = float(np.abs(found.astype(np.float64) - expected).max()) if same_shape else float("nan")
        text = " x ".join(map(str, (shape[0], 1, *shape[1:])))
        if not difference <= TOLERANCE:
            raise DifferenceError(
                f"{name} differs from the network by {difference:.1e} at {text} (shape {found.shape}); at most "
                f"{TOLERANCE:.0e} is allowed, so the file is not kept"
            )
        lines.append(f"{name:<12} {text:<18} largest difference {difference:.1e}")
    return lines
