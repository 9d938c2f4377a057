"""The generator's own speed at inference, beside the textbook's network with the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bundle.networks import ResnetGenerator
from bundle.strips import StripInferer
from scripts.benchmarking.measure import Row, compare, peak_memory, ratio
from scripts.benchmarking.plain_cyclegan import plain_generator
from scripts.benchmarking.step import computes_bf16
from scripts.exporting.graphs import onnx_runner, openvino_runner, require, write_onnx, write_openvino
from scripts.exporting.source import ROOT, Source

__all__ = ["rows"]

PART = "infer"
WIDTH, BLOCKS = 64, 9
WHOLE = (2560, 1280)
"""A mammogram at the resolution of a detector."""


def rows(size: int = 256, whole: tuple[int, int] | None = WHOLE, budget_s: float = 30.0) -> list[Row]:
    """Difference from plain, time of an image, and memory and time of a whole mammogram in strips."""
    ours, plain = _networks()
    image = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    expected = _translated(plain, image)
    contestants: dict[str, Callable[[], Any]] = {
        "plain": lambda: _translated(plain, image),
        "fp32": lambda: _translated(ours, image),
    }
    if computes_bf16():
        contestants["bf16"] = lambda: _translated(ours, image, amp=True)
    contestants |= _exported(ours, image)
    found = [
        Row(PART, f"{name}: largest difference from plain", float((run() - expected).abs().max()), "", limit)
        for name, run in contestants.items()
        if name != "plain"
        for limit in ["" if name == "bf16" else "<= 1e-4"]
    ]
    timings = compare(contestants, budget_s=budget_s)
    targets = {"fp32": ">= 1.15", "bf16": ">= 2.2"}
    for name in timings:
        if name != "plain":
            note = f"{timings[name]} against {timings['plain']}; {size} px"
            found.append(
                Row(PART, f"{name} against plain fp32", ratio(timings, "plain", name), "x", targets.get(name, ""), note)
            )
    if "bf16" not in timings:
        note = "this machine has no bfloat16 arithmetic"
        found.append(Row(PART, "bf16 against plain fp32", None, "x", targets["bf16"], note))
    return found + (_whole(whole) if whole else [])


def _networks() -> tuple[ResnetGenerator, nn.Module]:
    torch.manual_seed(0)
    ours = ResnetGenerator(width=WIDTH, blocks=BLOCKS).eval()
    plain = plain_generator(ours.state_dict(), WIDTH, BLOCKS).eval()
    ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ours, plain


def _translated(network: nn.Module, image: Tensor, amp: bool = False) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
        result: Tensor = network(image)
    return result.float()


def _exported(ours: ResnetGenerator, image: Tensor) -> dict[str, Callable[[], Tensor]]:
    """ONNX Runtime and OpenVINO with the graphs of `scripts/export.py`, where they are installed."""
    try:
        require("onnx", "onnxscript", "onnxruntime", "openvino")
    except ModuleNotFoundError:
        return {}
    words = dict.fromkeys(("name", "version", "intended_use"), "benchmark")
    source = Source(ROOT, Path(), "", {}, {}, words, ours)
    with tempfile.TemporaryDirectory() as folder:
        onnx, xml = Path(folder, "model.onnx"), Path(folder, "model.xml")
        write_onnx(source, onnx)
        write_openvino(source, xml)
        runners = {"ONNX Runtime": onnx_runner(onnx), "OpenVINO": openvino_runner(xml)}
    pixels = image.numpy()
    return {name: lambda run=run: torch.from_numpy(run(pixels)) for name, run in runners.items()}  # type: ignore[misc]


def _whole(size: tuple[int, int]) -> list[Row]:
    used = peak_memory(_in_strips, size) / 1e9
    what = f"a whole mammogram, {size[0]} x {size[1]}, in strips: memory"
    return [Row(PART, what, used, "GB", "", "the same image as in one piece: tests/test_strips.py")]


def _in_strips(size: tuple[int, int]) -> None:
    network, _ = _networks()
    with torch.inference_mode():
        StripInferer(1 << 20)(torch.rand(1, 1, *size), network)
