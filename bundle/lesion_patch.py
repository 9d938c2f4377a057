"""Discriminators that see nothing but a square around a lesion, beside those that see whole images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bundle.losses import LeastSquaresLoss
from bundle.networks import PatchGAN
from bundle.resumable_trainer import full_precision, unwrap
from bundle.step_images import CycleGANImages

__all__ = ["LesionCritic", "LesionDiscriminators", "lesion_pixels", "patches"]

_GOLDEN = 0.6180339887498949
"""Multiples of it, without their whole part, cover [0, 1) evenly, however many there are (Weyl)."""
_SMALLEST = 16


class LesionDiscriminators(nn.Module):
    """A small PatchGAN for each domain, as one network.

    Shapes: LE and DES, each ``(B, 1, w, h)``, to the logits of each.

    Args:
        in_channels: channels of the images.
        width: channels after the first layer.
        layers: see :class:`~bundle.networks.PatchGAN`; with 2 a logit sees 34 x 34 pixels.
    """

    def __init__(self, in_channels: int = 1, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.a, self.b = (PatchGAN(in_channels, width, layers) for _ in "ab")

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Judge LE and DES."""
        return self.a(a), self.b(b)


class LesionCritic:
    """What the lesion discriminators say, as terms of the generators and as losses of their own.

    A lesion covers few of the pixels that a discriminator of whole images judges, so a dim or blurred one costs the
    generators little. Here a square is cut out around a pixel of each lesion mask, the same from the real and the
    generated image; another pixel in each step. A case without a lesion counts as 0. Nothing leaves the device.

    ``lesion_G_AB = weight * mean[s (D(P fake_B) - 1)^2]`` and
    ``lesion_D_B = 1/2 {mean[s (D(P real_B) - 1)^2] + mean[s D(P fake_B)^2]}``, where P cuts the square and s is 1 for a
    case with a lesion, else 0; the same for A. The generated images are those of the step, also where the other
    discriminators are shown old ones.

    Args:
        network: :class:`LesionDiscriminators`, also in a distributed wrapper.
        side: of the square, as a share of the image's longer side: 0.25 is 64 of 256 pixels.
        weight: of the generators' terms.
        adversarial: loss of logits and target.

    Raises:
        ValueError: if ``side`` or ``weight`` is out of range.
    """

    name = "lesion_discriminators"

    def __init__(
        self,
        network: nn.Module,
        side: float = 0.25,
        weight: float = 1.0,
        adversarial: LeastSquaresLoss | None = None,
    ) -> None:
        if not 0 < side <= 1 or weight < 0:
            raise ValueError(f"side {side}, weight {weight}; expected a side in (0, 1] and a weight of 0 or more")
        self.network, self.side, self.weight = network, side, weight
        self.adversarial = adversarial or LeastSquaresLoss()

    def terms(self, images: CycleGANImages, step: int) -> dict[str, Tensor]:
        """The generators' terms ``lesion_G_AB`` and ``lesion_G_BA`` in a training's ``step``."""
        masks = {"A": images.mask_A, "B": images.mask_B}
        shown = self._cut({"A": images.fake_A, "B": images.fake_B}, masks, step)
        logits_A, logits_B = map(full_precision, unwrap(self.network)(shown["A"], shown["B"]))
        return {
            "lesion_G_AB": self.weight * self._error(logits_B, True, images.mask_B),
            "lesion_G_BA": self.weight * self._error(logits_A, True, images.mask_A),
        }

    def losses(self, images: CycleGANImages, step: int) -> dict[str, Tensor]:
        """The discriminators' losses ``lesion_D_A`` and ``lesion_D_B`` in the same step."""
        masks = {"A": images.mask_A, "B": images.mask_B}
        real = self._cut({"A": images.real_A, "B": images.real_B}, masks, step)
        fake = self._cut({"A": images.fake_A.detach(), "B": images.fake_B.detach()}, masks, step)
        judged = self.network(*(torch.cat((real[domain], fake[domain])) for domain in "AB"))
        losses = {}
        for (domain, mask), logits in zip(masks.items(), map(full_precision, judged), strict=True):
            of_real, of_fake = logits.chunk(2)
            both = self._error(of_real, True, mask) + self._error(of_fake, False, mask)
            losses[f"lesion_D_{domain}"] = 0.5 * both
        return losses

    def _cut(self, images: Mapping[str, Tensor], masks: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        share = step * _GOLDEN % 1
        return {
            name: patches(one, lesion_pixels(masks[name], share), self._pixels(one)) for name, one in images.items()
        }

    def _pixels(self, image: Tensor) -> int:
        pixels: int = min(round(self.side * max(image.shape[-2:])), *image.shape[-2:])
        if pixels < _SMALLEST:
            raise ValueError(
                f"the square around a lesion has {pixels} pixels a side in images of {tuple(image.shape[-2:])}; it "
                f"takes {_SMALLEST}: set a larger side of the critic, or a larger image_size"
            )
        return pixels

    def _error(self, logits: Tensor, real: bool, mask: Tensor) -> Tensor:
        errors = self.adversarial.errors(logits, real).mean(dim=(1, 2, 3))
        return (errors * (mask > 0.5).flatten(1).any(1)).mean()


def lesion_pixels(mask: Tensor, share: float) -> Tensor:
    """One pixel of each mask, without leaving the device: in memory's order, ``share`` of its pixels come before it.

    Args:
        mask: lesions, ``(B, 1, W, H)``, inside where > 0.5.
        share: in [0, 1).

    Returns:
        ``(B, 2)`` whole numbers, along W and along H; (0, 0) for an empty mask.
    """
    counted = (mask[:, 0] > 0.5).flatten(1).cumsum(1)
    inside = counted[:, -1:]
    before = torch.minimum((share * inside).long(), inside - 1)  # share * inside may be rounded up
    index = (counted <= before).sum(1)
    return torch.stack((index // mask.shape[3], index % mask.shape[3]), dim=1)


def patches(image: Tensor, pixels: Tensor, side: int) -> Tensor:
    """The square around one pixel of each image, moved inwards at an edge.

    Args:
        image: ``(B, C, W, H)``.
        pixels: ``(B, 2)``, along W and along H.
        side: of the squares, at most W and H.

    Returns:
        ``(B, C, side, side)``.
    """
    steps = torch.arange(side, device=image.device)
    corners = [(pixels[:, axis] - side // 2).clamp(0, image.shape[2 + axis] - side) for axis in (0, 1)]
    along = [corner[:, None] + steps for corner in corners]
    cases = torch.arange(len(image), device=image.device)[:, None, None]
    return image[cases, :, along[0][:, :, None], along[1][:, None, :]].permute(0, 3, 1, 2)
