"""Networks of Seg-CycleGAN: the ResNet generator and the PatchGAN discriminator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from monai.networks.layers.factories import Act
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from bundle.convolution import Convolution, TransposedConvolution
from bundle.moments import normalised

__all__ = [
    "InstanceNorm",
    "PatchGAN",
    "ResnetBlock",
    "ResnetGenerator",
    "ServedNetwork",
    "normal_init",
    "published_state_dict",
]


class InstanceNorm(nn.Module):
    """Instance normalisation without parameters, quick on the CPU in channels-last memory.

    ``y = (x - mean) / sqrt(var + eps)`` over the pixels of each channel of each image, as ``torch.nn.InstanceNorm2d``.
    ``instance_norm`` would copy everything back to contiguous memory on the CPU: there each image goes through
    ``bundle.moments``, which is exact at any size.

    Shapes: ``(B, C, W, H)`` in and out. ``W * H`` must exceed 1.
    """

    eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape ``(B, C, W, H)``."""
        if torch.jit.is_scripting() or x.device.type != "cpu":
            return functional.instance_norm(x, eps=1e-5)
        if x.shape[2] * x.shape[3] == 1:
            raise ValueError(f"one pixel for each channel, expected more to normalise by (shape {tuple(x.shape)})")
        return self._each(x)

    @torch.jit.unused
    def _each(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return functional.instance_norm(x, eps=self.eps)
        parts = [normalised(image, self.eps) for image in x.split(1)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _conv_block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        Convolution(channels, channels, 3),
        InstanceNorm(),
        nn.ReLU(inplace=True),
        nn.ReflectionPad2d(1),
        Convolution(channels, channels, 3),
        InstanceNorm(),
    )


class ResnetBlock(nn.Module):
    """``x + f(x)`` with two reflection-padded 3x3 convolutions (Johnson et al. 2016). Shape ``(B, C, W, H)`` kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = _conv_block(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to ``x``."""
        residual: Tensor = self.conv_block(x)
        return x + residual


def _layers(in_channels: int, out_channels: int, width: int, blocks: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), Convolution(in_channels, width, 7), InstanceNorm(), nn.ReLU(True)]
    for scale in (1, 2):
        down = Convolution(width * scale, width * scale * 2, 3, stride=2, padding=1)
        layers += [down, InstanceNorm(), nn.ReLU(True)]
    layers += [ResnetBlock(width * 4) for _ in range(blocks)]
    for scale in (4, 2):
        up = TransposedConvolution(width * scale, width * scale // 2, 3, stride=2, padding=1, output_padding=1)
        layers += [up, InstanceNorm(), nn.ReLU(True)]
    return [*layers, nn.ReflectionPad2d(3), Convolution(width, out_channels, 7)]


class ServedNetwork(nn.Module):
    """A network whose weights are loaded as a whole or not at all."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load all weights or none, even where a server asks for less with ``strict=False``, as MONAI Label does.

        It would serve random weights for a checkpoint of a whole training, which shares no name with the network.

        Raises:
            RuntimeError: a tensor is missing, unknown or of another shape.
        """
        known = self.state_dict().keys()
        if not strict and known != state_dict.keys():
            found, expected = (", ".join([*names][:3]) or "nothing" for names in (state_dict, known))
            raise RuntimeError(
                f"weights of another network: they hold {found}, ..., expected {expected}, ... Use the model.pt that "
                "training wrote, a raw state dict, and the network_def of that training"
            )
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


class ResnetGenerator(ServedNetwork):
    """The CycleGAN generator: two down-samplings, residual blocks, two up-samplings (11.37 M parameters by default).

    Layer order and parameter names are those of the published CycleGAN ResNet, so that its checkpoints load after
    :func:`published_state_dict`; the biases before the parameter-free norms are kept for the same reason.

    Shapes: ``(B, in_channels, W, H)`` to ``(B, out_channels, W, H)``; W and H are multiples of 4, at least 16.
    Range: input as the data are scaled; output (0, 1) for ``sigmoid``, (-1, 1) for ``tanh``.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        width: channels after the first layer (``ngf`` in the CycleGAN literature).
        blocks: residual blocks, 9 for 256 px and above.
        output_range: ``sigmoid`` for images in [0, 1] (all configs of this bundle), ``tanh`` for images in [-1, 1]
            (published checkpoints).
        checkpointing: recompute the maps between the residual blocks, and before and after them, in the backward pass:
            less memory, about a third more time.

    Raises:
        ValueError: if ``output_range``, ``width`` or ``blocks`` is not usable.

    Source: Zhu et al. 2017 (arXiv 1703.10593), appendix 7.2; Johnson et al. 2016.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        blocks: int = 9,
        output_range: Literal["sigmoid", "tanh"] = "sigmoid",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if output_range not in ("sigmoid", "tanh"):
            raise ValueError(f"output_range is {output_range!r}; use 'sigmoid' ([0, 1]) or 'tanh' ([-1, 1])")
        if width < 1 or blocks < 0:
            raise ValueError(f"width is {width} and blocks is {blocks}; width must be at least 1 and blocks at least 0")
        final = nn.Sigmoid() if output_range == "sigmoid" else nn.Tanh()
        self.model = nn.Sequential(*_layers(in_channels, out_channels, width, blocks), final)
        self.checkpointing = checkpointing
        normal_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate ``x`` of shape ``(B, in_channels, W, H)`` into the other domain."""
        if torch.jit.is_scripting() or not (self.checkpointing and x.requires_grad | self.training):
            translated: Tensor = self.model(x)
            return translated
        return self._forward_checkpointed(x)

    @torch.jit.unused
    def _forward_checkpointed(self, x: Tensor) -> Tensor:
        """Keep only what lies between the residual blocks: at full size nothing but the image and the result."""
        layers = list(self.model)
        blocks = [i for i, layer in enumerate(layers) if isinstance(layer, ResnetBlock)]
        ends = [*blocks, blocks[-1] + 1 if blocks else len(layers) // 2, len(layers)]
        for start, end in zip([0, *ends], ends, strict=False):
            part = nn.Sequential(*layers[start:end])
            x = checkpoint(part, x, use_reentrant=False) if torch.is_grad_enabled() else part(x)
        return x


class PatchGAN(PatchDiscriminator):
    """MONAI's PatchGAN returning only its logits: one number per 70x70 patch (2.76 M parameters at width 64).

    Shapes: ``(B, in_channels, W, H)`` to ``(B, 1, w, h)`` with ``w = W / 8 - 2``; W and H at least 32.
    Range: raw logits, no sigmoid; ``LeastSquaresLoss(sigmoid=True)`` gives the released code's variant.

    Args:
        in_channels: channels of the image to judge.
        width: channels after the first layer.
        layers: convolutions between the first and the last, 3 for 70x70 patches.

    Source: Isola et al. 2017 (arXiv 1611.07004), appendix 6.1.2.
    """

    def __init__(self, in_channels: int = 1, width: int = 64, layers: int = 3) -> None:
        super().__init__(
            spatial_dims=2,
            channels=width,
            in_channels=in_channels,
            num_layers_d=layers,
            norm=("INSTANCE", {"affine": False}),
            activation=(Act.LEAKYRELU, {"negative_slope": 0.2, "inplace": True}),
            bias=True,
        )
        _use_own_layers(self)
        normal_init(self)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Judge ``x``; the features in between are not kept."""
        for layer in self.children():
            x = layer(x)
        return x


def _use_own_layers(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.InstanceNorm2d):
            setattr(module, name, InstanceNorm())
        elif isinstance(child, nn.Conv2d):
            sizes = (
                child.in_channels,
                child.out_channels,
                child.kernel_size[0],
                child.stride[0],
                int(child.padding[0]),
            )
            setattr(module, name, Convolution(*sizes))
        else:
            _use_own_layers(child)


def normal_init(module: nn.Module, std: float = 0.02) -> None:
    """Draw every convolution weight from normal(0, ``std``) and set biases to 0 (Zhu et al. 2017, section 7.1)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def published_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a published CycleGAN generator checkpoint that :class:`ResnetGenerator` loads strictly.

    Drops the ``module.`` prefix of ``DataParallel`` and the running statistics that old releases stored for their
    instance norms, which never used them.

    Args:
        state: the checkpoint, parameter names to tensors.
    """
    unused = re.compile(r"\.(running_mean|running_var|num_batches_tracked)$")
    return {name.removeprefix("module."): tensor for name, tensor in state.items() if not unused.search(name)}
