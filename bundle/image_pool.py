"""A history of generated images for the discriminators (Shrivastava et al. 2017, section 2.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["ImagePool"]


class ImagePool:
    """Show a discriminator old generated images half of the time.

    The pool fills up with the first ``size`` images. From then on each incoming image is, with probability 1/2, kept in
    the place of a random stored one, which is returned instead. Size 0 returns every batch unchanged.

    Args:
        size: images to remember, 50 in the original CycleGAN, 0 in the paper group's released code.
        seed: of the pool's own random numbers, which live on the CPU so that no step waits for the GPU.

    Raises:
        ValueError: if ``size`` is negative.
    """

    def __init__(self, size: int = 0, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"pool size is {size}; use 0 for no pool, 50 as the original CycleGAN")
        self.size = size
        self.images: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, batch: Tensor) -> Tensor:
        """Exchange some images of ``batch``, ``(B, C, W, H)``; the result carries no gradient."""
        batch = batch.detach()
        if self.size == 0:
            return batch
        return torch.stack([self._exchange(image) for image in batch])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        keep, place = torch.rand(2, generator=self._generator).tolist()
        if keep < 0.5:
            return image
        index = int(place * self.size)
        old, self.images[index] = self.images[index], image.clone()
        return old

    def state_dict(self) -> dict[str, Any]:
        """The stored images and the state of the random numbers."""
        return {"images": [image.cpu() for image in self.images], "rng": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any], device: torch.device | None = None) -> None:
        """Restore what :meth:`state_dict` returned, with the images on ``device``."""
        self.images = [image.to(device) for image in state["images"][: self.size]]
        self._generator.set_state(state["rng"])
