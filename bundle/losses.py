"""The objective of Seg-CycleGAN as named terms (arXiv 2505.03018; equations in docs/method.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle.adaptive_gamma import GammaFactor
from bundle.step_images import CycleGANImages, PairedImages

__all__ = [
    "DiscriminatorObjective",
    "GeneratorObjective",
    "LeastSquaresLoss",
    "MaskGuidedLoss",
    "PairedObjective",
    "masked_mean",
    "total",
]

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


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of an objective's terms; ``gamma_factor``, which is logged with them, is none."""
    return torch.stack([value for name, value in terms.items() if name != "gamma_factor"]).sum()


class LeastSquaresLoss(nn.Module):
    """Least-squares adversarial loss ``mean((D - t)^2)``, t = 1 for real and 0 for generated (Mao et al. 2017).

    Args:
        sigmoid: squash the logits first, as the paper group's released code does; the original CycleGAN does not.
    """

    def __init__(self, sigmoid: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid

    def forward(self, logits: Tensor, real: bool, mask: Tensor | None = None) -> Tensor:
        """Compare ``logits`` of any shape with the target; returns a scalar. The lesions in ``mask`` do not matter."""
        return self.errors(logits, real).mean()

    def errors(self, logits: Tensor, real: bool) -> Tensor:
        """``(D - t)^2`` of each logit, in the shape of ``logits``."""
        judged = logits.sigmoid() if self.sigmoid else logits
        return (judged - float(real)).square()


class MaskGuidedLoss(LeastSquaresLoss):
    """The least-squares loss with more weight on the patches that show a lesion: discriminators that look at lesions.

    A patch's weight is ``1 + emphasis * share``, where share is the part of it that is lesion, seen through the
    discriminator's own grid; weights of an image are scaled to a mean of 1, so the term keeps its size.

    Args:
        emphasis: 0 is the plain loss; with 9 a patch that is all lesion counts ten times.
        sigmoid: as in :class:`LeastSquaresLoss`.

    Raises:
        ValueError: if ``emphasis`` is negative.
    """

    def __init__(self, emphasis: float = 9.0, sigmoid: bool = False) -> None:
        super().__init__(sigmoid)
        if emphasis < 0:
            raise ValueError(f"emphasis is {emphasis}; expected 0 or more")
        self.emphasis = emphasis

    def forward(self, logits: Tensor, real: bool, mask: Tensor | None = None) -> Tensor:
        """Compare ``logits``, ``(B, 1, w, h)``, with the target; ``mask``, ``(B, 1, W, H)``, is of these images."""
        errors = self.errors(logits, real)
        if mask is None:
            return errors.mean()
        weights = 1.0 + self.emphasis * functional.interpolate(mask.to(errors), errors.shape[-2:], mode="area")
        return (errors * weights / weights.mean(dim=(1, 2, 3), keepdim=True)).mean()


class PairedObjective(nn.Module):
    """The generator's terms where it learns from the pairs alone: L1, further terms, and an adversarial one if wanted.

    Args:
        lambda_paired: weight of ``mean|G_AB x - y|``; 100 in pix2pix, beside an adversarial term.
        terms: further terms, such as those of ``bundle.terms``.
        adversarial: loss of logits and target, of weight 1; none is a training without a discriminator.

    Raises:
        ValueError: if ``lambda_paired`` is negative.
    """

    def __init__(
        self, lambda_paired: float = 1.0, terms: Sequence[nn.Module] = (), adversarial: nn.Module | None = None
    ) -> None:
        super().__init__()
        if lambda_paired < 0:
            raise ValueError(f"lambda_paired is {lambda_paired}; expected 0 or more")
        self.lambda_paired, self.terms, self.adversarial = lambda_paired, nn.ModuleList(terms), adversarial

    def forward(self, images: PairedImages, logits_B: Tensor | None = None) -> dict[str, Tensor]:
        """Return the weighted terms by name; ``logits_B`` is what the discriminator says of ``fake_B``."""
        named = {"paired": self.lambda_paired * (images.fake_B - images.real_B).abs().mean()}
        if self.adversarial is not None and logits_B is not None:
            named["G_AB"] = self.adversarial(logits_B, real=True, mask=images.mask_B)
        for term in self.terms:
            named |= term(images)
        return named


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
        terms: further terms, such as those of ``bundle.terms``: each takes the images and gives named scalars.
        gamma_factor: multiplies the lesion terms by what it finds during the training, see ``bundle.adaptive_gamma``.

    Raises:
        ValueError: if a weight is negative, ``normalisation`` unknown, or there is nothing for ``gamma_factor`` to do.

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
        terms: Sequence[nn.Module] = (),
        gamma_factor: GammaFactor | None = None,
    ) -> None:
        super().__init__()
        self.lambda_cycle, self.lambda_identity = lambda_cycle, lambda_identity
        self.gamma_cycle = gamma if gamma_cycle is None else gamma_cycle
        self.gamma_identity = gamma if gamma_identity is None else gamma_identity
        self.normalisation = normalisation
        self.adversarial = adversarial or LeastSquaresLoss()
        self.terms = nn.ModuleList(terms)
        self.gamma_factor = gamma_factor
        weights = (lambda_cycle, lambda_identity, self.gamma_cycle, self.gamma_identity)
        if min(weights) < 0:
            raise ValueError(f"weights of the objective must not be negative, got {weights}")
        if normalisation not in ("image", "mask"):
            raise ValueError(f"normalisation is {normalisation!r}; use 'image' or 'mask'")
        if gamma_factor is not None and not (max(weights[:2]) > 0 and max(weights[2:]) > 0):
            raise ValueError(
                f"lambdas are {weights[:2]} and gammas {weights[2:]}: there is nothing to adapt. A gamma_factor weighs "
                "lesion terms against cycle and identity terms, so set gamma above 0, or gamma_factor to null"
            )

    @property
    def uses_identity(self) -> bool:
        """Whether the identity images enter the objective at all."""
        return self.lambda_identity > 0 or self.gamma_identity > 0

    def forward(self, images: CycleGANImages, logits_A: Tensor, logits_B: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name; their :func:`total` is the generator loss.

        Args:
            images: the images of the step.
            logits_A: ``D_A(fake_A)``.
            logits_B: ``D_B(fake_B)``.
        """
        terms = {
            "G_AB": self.adversarial(logits_B, real=True, mask=images.mask_B),
            "G_BA": self.adversarial(logits_A, real=True, mask=images.mask_A),
        }
        l1 = self._l1_terms("cycle", images, images.rec_A, images.rec_B, self.lambda_cycle, self.gamma_cycle)
        if self.uses_identity:
            l1 |= self._l1_terms("idt", images, images.idt_A, images.idt_B, self.lambda_identity, self.gamma_identity)
        terms |= l1 if self.gamma_factor is None else self.gamma_factor(l1, len(images.real_A))
        for term in self.terms:
            terms |= term(images)
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
                terms[f"lesion_{name}_{domain}"] = gamma * masked_mean(error, masks[domain], self.normalisation)
        return terms


class DiscriminatorObjective(nn.Module):
    """``1/2 [L(D(real), 1) + L(D(fake), 0)]`` for one discriminator.

    Args:
        adversarial: loss of logits and target, the same as the generators'.
    """

    def __init__(self, adversarial: nn.Module | None = None) -> None:
        super().__init__()
        self.adversarial = adversarial or LeastSquaresLoss()

    @property
    def uses_masks(self) -> bool:
        """Whether lesions matter to the loss."""
        return isinstance(self.adversarial, MaskGuidedLoss)

    def forward(
        self, real_logits: Tensor, fake_logits: Tensor, real_mask: Tensor | None = None, fake_mask: Tensor | None = None
    ) -> Tensor:
        """Return the scalar loss of one domain's discriminator; the masks are those of the images it has judged."""
        real = self.adversarial(real_logits, real=True, mask=real_mask)
        fake = self.adversarial(fake_logits, real=False, mask=fake_mask)
        loss: Tensor = 0.5 * (real + fake)
        return loss
