"""The images of a training step, which objectives and further discriminators are given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["CycleGANImages", "PairedImages"]


@dataclass(frozen=True)
class PairedImages:
    """A pair and its virtual DES, each ``(B, 1, W, H)``: A is low-energy, B the subtracted image.

    ``fake_B = G_AB(real_A)``. ``mask_A`` and ``mask_B`` are the lesion masks drawn on A and on B; all zeros where a
    case has none.
    """

    real_A: Tensor
    real_B: Tensor
    mask_A: Tensor
    mask_B: Tensor
    fake_B: Tensor


@dataclass(frozen=True)
class CycleGANImages(PairedImages):
    """All images of a CycleGAN step, each ``(B, 1, W, H)``.

    Further ``rec_A = G_BA(fake_B)``, ``idt_B = G_AB(real_B)``, and the same with A and B exchanged.
    """

    fake_A: Tensor
    rec_A: Tensor
    rec_B: Tensor
    idt_A: Tensor
    idt_B: Tensor
