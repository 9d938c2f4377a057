"""The network as ONNX and as OpenVINO's intermediate representation, for batches and images of any size."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from bundle.files import atomic_path
from bundle.networks import InstanceNorm
from scripts.exporting.comparison import Run, check_agreement
from scripts.exporting.source import Source

__all__ = ["onnx_runner", "openvino_runner", "require", "write_onnx", "write_openvino"]

INPUT, OUTPUT = "image", "pred"
_EXAMPLE = (2, 1, 64, 80)


def require(*modules: str) -> None:
    """Refuse to begin without the packages of the extra ``export``.

    Raises:
        ModuleNotFoundError: naming what is missing and how to get it.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"{', '.join(missing)} not installed: pip install -c constraints.txt '.[export]'")


def write_onnx(source: Source, path: Path) -> list[str]:
    """Write the network as ONNX and compare ONNX Runtime with the eager network.

    Input ``image`` and output ``pred`` have the shape ``(batch, 1, 4 * w, 4 * h)`` with any batch, w and h.

    Returns:
        The differences, one line a shape.

    Raises:
        DifferenceError: ONNX Runtime computes something else; ``path`` is left as it was.
    """
    with atomic_path(path) as unfinished:
        _convert(source, unfinished)
        return check_agreement("ONNX Runtime", source.network, onnx_runner(unfinished))


def write_openvino(source: Source, path: Path) -> list[str]:
    """Write the network as ``path`` (.xml) and its weights beside it (.bin), in float32, and compare.

    Returns:
        The differences, one line a shape.

    Raises:
        DifferenceError: OpenVINO computes something else; the files are left as they were.
    """
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        onnx, xml = Path(folder, "model.onnx"), Path(folder, path.name)
        _convert(source, onnx)
        model = openvino.Core().read_model(onnx)
        model.set_rt_info(source.weights_sha256, "weights_sha256")
        openvino.save_model(model, xml, compress_to_fp16=False)
        lines = check_agreement("OpenVINO", source.network, openvino_runner(xml))
        path.unlink(missing_ok=True)  # never the old graph beside the new weights
        xml.with_suffix(".bin").replace(path.with_suffix(".bin"))
        xml.replace(path)
    return lines


class _PlainInstanceNorm(nn.Module):
    """What an instance norm without parameters computes, of operations that sum exactly enough.

    The formats have one operation for it, whose error in float32 grows with the number of pixels: trained weights
    differed at 512 x 320 by 8e-5 in ONNX Runtime and 4e-4 in OpenVINO. With means of the means of rows it is 2e-6.
    """

    def __init__(self, eps: float = InstanceNorm.eps) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - _mean(x)
        return centred * torch.rsqrt(_mean(centred.square()) + self.eps)


def _mean(x: Tensor) -> Tensor:
    # that only one of the two keeps its axis stops OpenVINO from making one of them
    return x.mean(3, keepdim=True).mean(2).unsqueeze(3)


def _with_plain_norms(network: nn.Module) -> nn.Module:
    changed = copy.deepcopy(network)
    for parent in list(changed.modules()):
        for name, child in parent.named_children():
            if isinstance(child, InstanceNorm) or _is_plain(child):
                setattr(parent, name, _PlainInstanceNorm(child.eps))
    return changed.eval()


def _is_plain(layer: nn.Module) -> TypeGuard[nn.InstanceNorm2d]:
    """Whether it is torch's own instance norm, as networks of libraries have it, and has nothing learned."""
    return isinstance(layer, nn.InstanceNorm2d) and not layer.affine and not layer.track_running_stats


def _convert(source: Source, path: Path) -> None:
    import onnx

    sides = {0: Dim("batch"), 2: 4 * Dim("w"), 3: 4 * Dim("h")}
    with _quiet():
        torch.onnx.export(
            _with_plain_norms(source.network),
            (torch.rand(_EXAMPLE),),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(sides,),
            dynamo=True,
            external_data=False,
        )
    model = onnx.load(path)
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]  # call stacks with folders of this machine
    described = {name: str(source.metadata[name]) for name in ("name", "version", "intended_use")}
    onnx.helper.set_model_props(model, {**described, "weights_sha256": source.weights_sha256})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's progress notes and its advice on packages that are not needed out of the output."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def onnx_runner(path: Path) -> Run:
    """The graph in ONNX Runtime on the CPU, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run([OUTPUT], {INPUT: image})[0]
        return output

    return run


def openvino_runner(xml: Path) -> Run:
    """The graph in OpenVINO on the CPU, in float32, with as many threads as torch."""
    import openvino

    # by default OpenVINO calculates in bfloat16 where the processor can
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(xml, "CPU", exact)

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = compiled({INPUT: image})[OUTPUT]
        return output

    return run
