"""Which way each term of the objective pulls the generator LE -> DES, and whether that is towards the real DES.

For one case at a time: the gradient of every term with respect to the generator's weights beside the gradients of what
one would like to lower, the errors of the virtual against the real DES. The cosine of two gradients says whether a
small step along the one lowers the other: 1 as fast as can be, 0 not at all, below 0 it raises it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bundle.losses import GeneratorObjective, masked_mean
from bundle.step_images import CycleGANImages
from bundle.terms import LesionContrast, PairedL1, PairedLesionL1
from scripts.explaining.source import Case

__all__ = ["GOALS", "case_pulls"]

GOALS = ("breast_mae", "lesion_mae", "lesion_contrast")
"""What one would like to lower: L1 in the breast, in the lesions, and the error of the lesions' contrast."""
_GROUPS = {"G_AB": "adversarial", "cycle": "cycle", "idt": "identity", "lesion": "lesion"}


def case_pulls(networks: Mapping[str, nn.Module], objective: GeneratorObjective, case: Case) -> list[dict[str, object]]:
    """The pull of each group of terms at one case.

    Args:
        networks: ``network``, ``generator_ba``, ``discriminator_a``, ``discriminator_b``.
        objective: whose terms are looked at, with their weights.
        case: with a lesion.

    Returns:
        for ``adversarial``, ``cycle``, ``identity``, ``lesion``, ``all`` of them, and beside them ``paired``, the L1
        between virtual and real DES, which is no term of a CycleGAN: ``terms``, ``length`` of the gradient as a share
        of that of ``all`` (NaN for ``paired``), and its cosine with the gradient of each of `GOALS`, NaN where one of
        them is 0.
    """
    weights = [one for one in networks["network"].parameters() if one.requires_grad]
    images = _translated(networks, case)
    logits = (networks["discriminator_a"](images.fake_A), networks["discriminator_b"](images.fake_B))
    terms: dict[str, list[Tensor]] = {name: [] for name in _GROUPS.values()}
    for name, value in objective(images, *logits).items():
        if (group := _GROUPS.get(name if name == "G_AB" else name.split("_")[0])) is not None:
            terms[group].append(value)
    sums = {name: torch.stack(values).sum() for name, values in terms.items() if values}
    found = {name: _gradient(value, weights) for name, value in sums.items()}
    whole = torch.stack(list(found.values())).sum(dim=0)
    lengths = {name: float(one.norm() / whole.norm()) for name, one in found.items()}
    found |= {"all": whole, "paired": _gradient(PairedL1(1.0)(images)["paired"], weights)}
    lengths |= {"all": 1.0, "paired": math.nan}
    goals = {name: _gradient(value, weights) for name, value in _goals(images, case.breast).items()}
    return [
        {"terms": name, "length": lengths[name]} | {goal: _cosine(one, g) for goal, g in goals.items()}
        for name, one in found.items()
    ]


def _translated(networks: Mapping[str, nn.Module], case: Case) -> CycleGANImages:
    to_b, to_a = networks["network"], networks["generator_ba"]
    fake_b, fake_a = to_b(case.image), to_a(case.label)
    made = (fake_b, fake_a, to_a(fake_b), to_b(fake_a), to_a(case.image), to_b(case.label))
    return CycleGANImages(case.image, case.label, case.image_mask, case.mask, *made)


def _goals(images: CycleGANImages, breast: Tensor) -> dict[str, Tensor]:
    error = (images.fake_B - images.real_B).abs()
    values = (
        masked_mean(error, breast.to(error), "mask"),
        PairedLesionL1(1.0)(images)["paired_lesion"],
        LesionContrast(1.0)(images)["contrast"],
    )
    return dict(zip(GOALS, values, strict=True))


def _gradient(value: Tensor, weights: list[nn.Parameter]) -> Tensor:
    parts = torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def _cosine(a: Tensor, b: Tensor) -> float:
    lengths = a.norm() * b.norm()
    return float(a @ b / lengths) if lengths > 0 else math.nan
