"""The switch ``deterministic`` of configs/train.json: the same bits from every run on the same GPU, for time."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import Library

__all__ = ["reflection_pad_gradient", "set_deterministic"]


def set_deterministic(deterministic: bool) -> None:
    """Let the libraries choose reproducible algorithms, or the quickest ones.

    On the CPU, trainings repeat bit for bit without it. On a GPU it

    - takes cuDNN's deterministic convolutions, and no longer tries which are quickest;
    - takes torch's deterministic algorithms, with a warning from torch, once a place, where there is none;
    - gives cuBLAS a fixed workspace (``CUBLAS_WORKSPACE_CONFIG``, unless set), which must come before its first use;
    - adds the gradient of reflection padding in a fixed order. Torch has no such algorithm for it on a GPU. This one
      stays for the rest of the process.

    Args:
        deterministic: True for the same bits, False for speed.
    """
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=deterministic)
    if deterministic:
        # Nothing here reads memory before it writes there, so that torch need not fill it first.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        _replace_padding_gradient("CUDA")


@functools.cache
def _replace_padding_gradient(device: str) -> Library:
    library = Library("aten", "IMPL")  # what it holds is undone with it: the cache keeps it
    library.impl("reflection_pad2d_backward", reflection_pad_gradient, device, allow_override=True)
    return library


def reflection_pad_gradient(gradient: Tensor, image: Tensor, padding: Sequence[int]) -> Tensor:
    """The gradient of ``torch.nn.functional.pad(image, padding, "reflect")``, its parts added in a fixed order.

    Args:
        gradient: of the padded image, ``(..., W + left + right, H + top + bottom)`` in torch's order of axes.
        image: what was padded; only the number of its axes counts.
        padding: pixels before and after along the last axis, then along the one before it.

    Returns:
        The gradient of ``image``, of its shape.
    """
    for axis, (before, after) in zip((-1, -2), (padding[:2], padding[2:]), strict=True):
        gradient = _folded(gradient, axis + image.dim(), before, after)
    return gradient


def _folded(gradient: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Add what lies beyond both edges to what it mirrors; the pixel at an edge is mirrored nowhere."""
    size = gradient.shape[axis] - before - after
    inner = gradient.narrow(axis, before, size).clone()
    inner.narrow(axis, 1, before).add_(gradient.narrow(axis, 0, before).flip(axis))
    inner.narrow(axis, size - 1 - after, after).add_(gradient.narrow(axis, before + size, after).flip(axis))
    return inner
