"""Trivial predictors that a model has to beat, fitted on the training section.

``le_copy`` returns the low-energy image, ``breast_constant`` one constant inside the breast (the training mean of the
real DES there) and 0 outside, ``mean_des`` the mean real DES of the training section, mirrored to the side of the case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bundle.metrics import BREAST_THRESHOLD, breast_region

__all__ = ["PREDICTOR_NAMES", "Predictor", "fit_predictors", "image_pairs", "is_mirrored"]

Batch: TypeAlias = Mapping[str, Any]
Predictor: TypeAlias = Callable[[Batch], Tensor]
"""From a batch with ``image`` ``(B, 1, W, H)`` in [0, 1] to a virtual DES of the same shape."""

PREDICTOR_NAMES = ("le_copy", "breast_constant", "mean_des")


def is_mirrored(image: Tensor) -> Tensor:
    """Whether more of the breast lies in the second half of the x axis, as in a right breast. ``(B, 1, W, H) -> (B,)``.

    The pixels decide, not the laterality of the case, because augmentation may have flipped the image.
    """
    along_x = (image > BREAST_THRESHOLD).sum(dim=(1, 3))
    half = along_x.shape[1] // 2
    return along_x[:, -half:].sum(dim=1) > along_x[:, :half].sum(dim=1)


def fit_predictors(batches: Iterable[Batch]) -> dict[str, Predictor]:
    """Fit the trivial predictors on the training section.

    Args:
        batches: a data loader, a data set or any iterable of dictionaries with ``image`` (LE) and ``label`` (real DES),
            ``(B, 1, W, H)`` or ``(1, W, H)``, in [0, 1]. It is read once. Better without augmentation.

    Returns:
        ``le_copy``, ``breast_constant`` and ``mean_des``, each from a batch to a virtual DES ``(B, 1, W, H)``.

    Raises:
        ValueError: no batch, no breast in any image, or images of different size.
    """
    total, count, inside, pixels = None, 0, 0.0, 0
    for image, label in image_pairs(batches):
        breast = breast_region(image)
        inside += float(label[breast].double().sum())
        pixels += int(breast.sum())
        canonical = _mirror(label, is_mirrored(image)).double().sum(dim=0, keepdim=True)
        if total is not None and total.shape != canonical.shape:
            raise ValueError(
                f"The training images have different sizes, {tuple(total.shape[2:])} and {tuple(canonical.shape[2:])}. "
                "Resize them to one grid (spatial_size) before fitting the trivial predictors."
            )
        total = canonical if total is None else total + canonical
        count += len(image)
    if total is None or pixels == 0:
        raise ValueError(
            f"The trivial predictors were given {count} training images with {pixels} breast pixels. "
            "Check that the training section is not empty and that images are scaled to [0, 1]."
        )
    return _predictors(inside / pixels, (total / count).float())


def _predictors(constant: float, mean: Tensor) -> dict[str, Predictor]:
    def le_copy(batch: Batch) -> Tensor:
        return _tensor(batch["image"])

    def breast_constant(batch: Batch) -> Tensor:
        return constant * breast_region(_tensor(batch["image"])).float()

    def mean_des(batch: Batch) -> Tensor:
        image = _tensor(batch["image"])
        if image.shape[1:] != mean.shape[1:]:
            raise ValueError(
                f"The case has the size {tuple(image.shape[2:])}, the mean DES was fitted on {tuple(mean.shape[2:])}. "
                "Use the same spatial_size for training and evaluation."
            )
        return _mirror(mean.to(image.device).expand(image.shape), is_mirrored(image))

    return dict(zip(PREDICTOR_NAMES, (le_copy, breast_constant, mean_des), strict=True))


def image_pairs(batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """LE and real DES, ``(B, 1, W, H)`` float32 each, of a data loader, a data set or any iterable of dictionaries."""
    # a map-style data set is no iterator: its end is its length
    indexed = hasattr(batches, "__getitem__") and hasattr(batches, "__len__")
    items: Iterable[Batch] = (batches[i] for i in range(len(batches))) if indexed else batches  # type: ignore[index,arg-type]
    for batch in items:
        yield _tensor(batch["image"]), _tensor(batch["label"])


def _tensor(x: Any) -> Tensor:
    """Plain float32 ``(B, 1, W, H)`` from a batch or a single item ``(1, W, H)``."""
    tensor = torch.as_tensor(x).detach().as_subclass(Tensor).float()
    return tensor if tensor.ndim == 4 else tensor[None]


def _mirror(x: Tensor, mirrored: Tensor) -> Tensor:
    """Flip the x axis of those images of ``(B, 1, W, H)`` that ``mirrored`` ``(B,)`` names."""
    return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-2), x)
