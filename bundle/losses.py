"""The objective of Seg-CycleGAN as named terms (arXiv 2505.03018; equations in docs/method.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CycleGANImages", "DiscriminatorObjective", "GeneratorObjective", "LeastSquaresLoss", "masked_mean"]

Normalisation = Literal["image", "mask"]


def masked_mean(error: Tensor, mask: Tensor, normalisation: Normalisation = "image") -> Tensor:
    """Mean of an error map counted inside a mask only.

    ``image``: ``mean(mask * error)`` over all pixels; of an L1 map it is the plain L1 of the masked images (the paper).
    ``mask``: per image ``sum(mask * error) / sum(mask)``, 0 for an empty mask, then the mean over images.

    Args:
        error: ``(B, C, W, H)``, not negative.
        mask: ``(B, 1, W, H)`` with values in [0, 1].
        normalisation: what the sum is divided by.

    Returns:
        A scalar, in the unit of the error.
    """
    masked = error * mask
    if normalisation == "image":
        return masked.mean()
    inside = mask.expand_as(masked).sum(dim=(1, 2, 3))
    return (masked.sum(dim=(1, 2, 3)) / inside.clamp_min(1.0)).mean()


class LeastSquaresLoss(nn.Module):
    """Least-squares adversarial loss ``mean((D - t)^2)``, t = 1 for real and 0 for generated (Mao et al. 2017).

    Args:
        sigmoid: squash the logits first, as the paper group's released code does; the original CycleGAN does not.
    """

    def __init__(self, sigmoid: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid

    def forward(self, logits: Tensor, real: bool) -> Tensor:
        """Compare ``logits`` of any shape with the target; returns a scalar."""
        judged = logits.sigmoid() if self.sigmoid else logits
        return functional.mse_loss(judged, torch.full_like(judged, float(real)))


@dataclass(frozen=True)
class CycleGANImages:
    """The images of one step, each ``(B, 1, W, H)``: A is low-energy, B the subtracted image.

    ``fake_B = G_AB(real_A)``, ``rec_A = G_BA(fake_B)``, ``idt_B = G_AB(real_B)`` and the same with A and B exchanged.
    ``mask_A`` and ``mask_B`` are the lesion masks drawn on A and on B; all zeros where a case has none.
    """

    real_A: Tensor
    real_B: Tensor
    mask_A: Tensor
    mask_B: Tensor
    fake_A: Tensor
    fake_B: Tensor
    rec_A: Tensor
    rec_B: Tensor
    idt_A: Tensor
    idt_B: Tensor


class GeneratorObjective(nn.Module):
    """Adversarial, cycle, identity and lesion terms of the two generators, each already multiplied by its weight.

    ``L_G = L_adv + lambda_cycle L_cyc + lambda_identity L_idt + gamma (L_cyc^seg + L_idt^seg)``: gamma stands beside
    the lambdas and is not multiplied by them. With gamma 0 the lesion terms are left out, so the step is CycleGAN's.

    Args:
        lambda_cycle: weight of the cycle terms.
        lambda_identity: weight of the identity terms.
        gamma: weight of the lesion terms; 0 is plain CycleGAN, the paper uses 35 and 100.
        gamma_cycle: another weight for the lesion cycle terms, default ``gamma``.
        gamma_identity: another weight for the lesion identity terms, default ``gamma``.
        normalisation: of the lesion terms, see :func:`masked_mean`.
        adversarial: loss of logits and target.

    Raises:
        ValueError: if a weight is negative or ``normalisation`` unknown.

    Source: arXiv 2505.03018, equations of section 3; Zhu et al. 2017, equation 3.
    """

    def __init__(
        self,
        lambda_cycle: float = 10.0,
        lambda_identity: float = 5.0,
        gamma: float = 35.0,
        gamma_cycle: float | None = None,
        gamma_identity: float | None = None,
        normalisation: Normalisation = "image",
        adversarial: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.lambda_cycle = lambda_cycle
        self.lambda_identity = lambda_identity
        self.gamma_cycle = gamma if gamma_cycle is None else gamma_cycle
        self.gamma_identity = gamma if gamma_identity is None else gamma_identity
        self.normalisation = normalisation
        self.adversarial = adversarial or LeastSquaresLoss()
        weights = (lambda_cycle, lambda_identity, self.gamma_cycle, self.gamma_identity)
        if min(weights) < 0:
            raise ValueError(f"weights of the objective must not be negative, got {weights}")
        if normalisation not in ("image", "mask"):
            raise ValueError(f"normalisation is {normalisation!r}; use 'image' or 'mask'")

    @property
    def uses_identity(self) -> bool:
        """Whether the identity images enter the objective at all."""
        return self.lambda_identity > 0 or self.gamma_identity > 0

    def forward(self, images: CycleGANImages, logits_A: Tensor, logits_B: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name; their sum is the generator loss.

        Args:
            images: the images of the step.
            logits_A: ``D_A(fake_A)``.
            logits_B: ``D_B(fake_B)``.
        """
        terms = {"G_AB": self.adversarial(logits_B, real=True), "G_BA": self.adversarial(logits_A, real=True)}
        terms |= self._l1_terms("cycle", images, images.rec_A, images.rec_B, self.lambda_cycle, self.gamma_cycle)
        if self.uses_identity:
            terms |= self._l1_terms(
                "idt", images, images.idt_A, images.idt_B, self.lambda_identity, self.gamma_identity
            )
        return terms

    def _l1_terms(
        self, name: str, images: CycleGANImages, output_A: Tensor, output_B: Tensor, weight: float, gamma: float
    ) -> dict[str, Tensor]:
        errors = {"A": (output_A - images.real_A).abs(), "B": (output_B - images.real_B).abs()}
        masks = {"A": images.mask_A, "B": images.mask_B}
        terms = {}
        for domain, error in errors.items():
            if weight:
                terms[f"{name}_{domain}"] = weight * error.mean()
            if gamma:
                lesion = masked_mean(error, masks[domain], self.normalisation)
                terms[f"lesion_{name}_{domain}"] = gamma * lesion
        return terms


class DiscriminatorObjective(nn.Module):
    """``1/2 [L(D(real), 1) + L(D(fake), 0)]`` for one discriminator.

    Args:
        adversarial: loss of logits and target, the same as the generators'.
    """

    def __init__(self, adversarial: nn.Module | None = None) -> None:
        super().__init__()
        self.adversarial = adversarial or LeastSquaresLoss()

    def forward(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the scalar loss of one domain's discriminator."""
        real, fake = self.adversarial(real_logits, real=True), self.adversarial(fake_logits, real=False)
        loss: Tensor = 0.5 * (real + fake)
        return loss
