"""The network compiled by NVIDIA's TensorRT, through MONAI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from monai.networks import trt_compile
from torch import nn

__all__ = ["compile_network"]

_PACKAGES = ("tensorrt", "polygraphy", "onnx", "onnxscript")


def compile_network(
    network: nn.Module, weights: str | Path, image_size: int | str, batch_size: int, precision: str = "fp32"
) -> nn.Module:
    """Let TensorRT run ``network`` on the GPU from its first batch on.

    The engine is built then, which takes minutes, and kept beside the weights for the next run; newer weights have it
    built again. MONAI alone would go on without TensorRT where that is missing.

    Args:
        network: moved to the GPU; its weights may be loaded later, before the first batch.
        weights: file of its weights, beside which the engine is kept.
        image_size: pixels a side of all images.
        batch_size: images in a batch, at most.
        precision: ``fp32``, ``tf32``, ``fp16`` or ``bf16``.

    Returns:
        The same network.

    Raises:
        RuntimeError: there is no NVIDIA GPU, or packages are missing.
        ValueError: images have different sizes.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing or not torch.cuda.is_available():
        found = f"packages missing here: {', '.join(missing)}" if missing else "torch finds no NVIDIA GPU here"
        raise RuntimeError(f"TensorRT cannot be used, {found}; run without configs/inference_trt.json")
    if not isinstance(image_size, int):
        raise ValueError(  # noqa: TRY004
            f"image_size is {image_size!r}: TensorRT compiles for one size; set a number of pixels, a multiple of 4, "
            "or run without configs/inference_trt.json"
        )
    file = Path(weights)
    arguments = {
        "precision": precision,
        "dynamic_batchsize": [1, batch_size, batch_size],
        "timestamp": int(file.stat().st_mtime) + 1 if file.is_file() else None,
    }
    return trt_compile(network.cuda(), f"{file}.{image_size}.{batch_size}.{precision}", args=arguments)
