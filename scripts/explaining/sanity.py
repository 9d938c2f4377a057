"""Whether a map depends on what the network has learnt: its weights are randomised, and the map must change.

Adebayo et al. 2018 (arXiv 1810.03292), section 3: a method that shows the same for a network with random weights shows
edges of the image, and no reason of the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from bundle.metrics import region_mean, ssim_map

__all__ = ["LIMIT", "Stage", "compare", "randomised", "sanity_rows", "verdict"]

LIMIT = 0.5
"""Largest median similarity, of the ranks in absolute value and of the structure, at which the check is passed."""
_MOST_STAGES = 6
_DRAWS = 3
_KEPT_SHARE = 0.9
"""Maps are compared on those pixels of the breast that hold this share of the original's absolute sum."""
_SCALE_QUANTILE = 0.99


class Stage(NamedTuple):
    """A network with random weights in its last layers.

    ``name`` is ``cascade``, layer by layer from the output on, or ``full``, all layers with other random numbers;
    ``layers`` is how many are random, of ``total``.
    """

    name: str
    layers: int
    total: int
    network: nn.Module


def randomised(network: nn.Module, image: Tensor, seed: int = 0) -> Iterator[Stage]:
    """The network with more and more layers randomised, from its output to its input, then all anew, three times.

    A weight is drawn from a normal distribution with the mean 0 and the mean square of the tensor that it is in, so
    that the maps between layers keep their size. Of many layers at most six numbers of them are tried, evenly spread.

    Args:
        network: stays as it is.
        image: what shows the order of its layers, by running through it.
        seed: of the random numbers.
    """
    names = _layers_in_order(network, image)
    counts = np.unique(np.linspace(1, len(names), min(_MOST_STAGES, len(names))).round().astype(int)).tolist()
    anew = [("full", len(names), draw) for draw in range(1, _DRAWS + 1)]
    for stage, count, draw in [*(("cascade", one, 0) for one in counts), *anew]:
        copied = copy.deepcopy(network)
        generator = torch.Generator().manual_seed(seed * (1 + _DRAWS) + draw)
        for name in names[::-1][:count]:
            _randomise(copied.get_submodule(name), generator)
        yield Stage(stage, count, len(names), copied)


def _layers_in_order(network: nn.Module, image: Tensor) -> list[str]:
    """Names of the modules with weights of their own, as they are run; those that are not run are left out."""
    order: dict[str, None] = {}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.setdefault(name))
        for name, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    for weight in module.parameters(recurse=False):
        size = weight.detach().square().mean().sqrt()
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
        weight.data = drawn.to(weight) * size


def compare(original: Tensor, other: Tensor, breast: Tensor) -> dict[str, float]:
    """How much two maps ``(1, 1, W, H)`` resemble each other where the original has 90 % of its absolute sum.

    Returns:
        ``spearman``, the rank correlation of the signed maps, ``spearman_abs``, of their absolute values, and ``ssim``
        of the signed maps, each scaled to [-1, 1] by its 99th percentile. A map of one value has the correlation 0
        with any other; all are NaN if it is the original.
    """
    where = _support(original, breast)
    if not where.any() or float(original[where].std()) == 0:
        return dict.fromkeys(("spearman", "spearman_abs", "ssim"), float("nan"))
    one, two = (map_[where].double().cpu().numpy() for map_ in (original, other))
    similarity = ssim_map(_scaled(original, where), _scaled(other, where))
    return {
        "spearman": _rank_correlation(one, two),
        "spearman_abs": _rank_correlation(np.abs(one), np.abs(two)),
        "ssim": float(region_mean(similarity, where)),
    }


def _support(original: Tensor, breast: Tensor) -> Tensor:
    size = torch.where(breast, original.abs(), 0.0).double()
    ordered = size.flatten().sort(descending=True).values
    held = ordered.cumsum(0)
    place = int((held < _KEPT_SHARE * held[-1]).sum())
    return (size >= ordered[place]) & (size > 0)


def _rank_correlation(one: Any, two: Any) -> float:
    return float(spearmanr(one, two).statistic) if np.ptp(one) > 0 and np.ptp(two) > 0 else 0.0


def _scaled(map_: Tensor, where: Tensor) -> Tensor:
    """The map from -0.5 to 0.5, as SSIM with the data range 1 takes it."""
    largest = torch.quantile(map_[where].abs().float(), _SCALE_QUANTILE)
    return (map_.float() / largest.clamp(min=1e-12)).clamp(-1, 1) / 2


def sanity_rows(
    explain: Callable[[nn.Module], Tensor], original: Tensor, stages: Iterable[Stage], breast: Tensor
) -> list[dict[str, Any]]:
    """One row a stage: ``stage``, ``layers``, ``total`` and the similarities of `compare`.

    Args:
        explain: from a network to its map ``(1, 1, W, H)``.
        original: the map of the trained network.
        stages: see `randomised`.
        breast: bool, where maps are compared.
    """
    return [
        {"stage": one.name, "layers": one.layers, "total": one.total} | compare(original, explain(one.network), breast)
        for one in stages
    ]


def verdict(rows: pd.DataFrame) -> dict[str, Any]:
    """Whether a method passes: with all layers random its maps must not resemble the original ones.

    Args:
        rows: of several lesions, see `sanity_rows`.

    Returns:
        ``passed`` (None if it cannot be said), ``reason``, and ``spearman`` and ``ssim``: medians over lesions and
        draws of the absolute rank correlation and of SSIM, the larger of the two stages in which all layers are random.
        Passed: both are at most `LIMIT`.
    """
    ends = rows[rows["layers"] == rows["total"]].dropna(subset=["spearman", "ssim"]) if len(rows) else rows
    if ends.empty:
        reason = "no map to compare" if rows.empty else "the maps are flat"
        return {"passed": None, "reason": reason, "spearman": float("nan"), "ssim": float("nan"), "limit": LIMIT}
    medians = ends.assign(spearman=ends["spearman"].abs()).groupby("stage")[["spearman", "ssim"]].median().max()
    passed = bool((medians <= LIMIT).all())
    reason = "" if passed else "maps of a network with random weights resemble those of the trained one"
    return {"passed": passed, "reason": reason, **{str(k): float(v) for k, v in medians.items()}, "limit": LIMIT}
