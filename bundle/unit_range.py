"""Networks of libraries as generators of this bundle: any image size in, intensities in [0, 1] out."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from bundle.networks import ServedNetwork

__all__ = ["UnitRange"]


class UnitRange(ServedNetwork):
    """A network between a padding to sizes that it takes and a sigmoid, such as MONAI's U-Nets.

    Shapes: ``(B, C, W, H)`` to what the network makes of it, with the same W and H. Range: output (0, 1).

    A CycleGAN step sends several images at once and counts on each being translated on its own: choose a network with
    instance or group norms. With batch norms one image would change the others.

    Args:
        network: keeps the size of images whose sides are multiples of ``multiple``; its output has no activation.
        multiple: 16 for a network that halves an image four times.
        features: channels of the network's output, of which one 1x1 convolution makes the image; None where the output
            is one channel already. MONAI's U-Net needs it: it normalises its last channels, of which one alone would
            have its mean and contrast taken away.

    Raises:
        ValueError: if ``multiple`` is below 1, or the network has batch norms.
    """

    def __init__(self, network: nn.Module, multiple: int = 16, features: int | None = None) -> None:
        super().__init__()
        if multiple < 1:
            raise ValueError(f"multiple is {multiple}; expected 1 or more")
        if any(isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm) for layer in network.modules()):
            raise ValueError(
                f"a {type(network).__name__} with batch norms: each image must be translated on its own; set norm to "
                "INSTANCE, or take a network whose norms can be chosen"
            )
        self.network, self.multiple = network, multiple
        self.head = nn.Identity() if features is None else nn.Conv2d(features, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Translate ``x``."""
        width, height = x.shape[2], x.shape[3]
        right, below = -width % self.multiple, -height % self.multiple
        # Also where there is nothing to pad: an exported graph takes images of any size.
        padded = functional.pad(x, [0, below, 0, right], mode="replicate")
        result: Tensor = self.head(self.network(padded)).sigmoid()
        return result[:, :, :width, :height]
