"""configs/inference_trt.json changes the network of inference.json alone, and says what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from bundle import trt
from bundle.errors import root_cause
from bundle.networks import ResnetGenerator
from tests.workflow import CONFIGS, workflow


def test_the_overlay_only_adds_a_precision_and_replaces_the_network() -> None:
    base, both = ConfigParser(), ConfigParser()
    base.read_config(CONFIGS / "inference.json")
    both.read_config([str(CONFIGS / "inference.json"), str(CONFIGS / "inference_trt.json")])
    changed = {key for key in both.get() if both.get().get(key) != base.get().get(key) and not key.startswith("_")}
    assert changed == {"trt_precision", "network"}
    both.parse()
    referred = {value[1:] for value in both.get("network").values() if value.startswith("@")}
    assert referred == {"network_def", "model_path", "image_size", "batch_size", "trt_precision"}
    assert all(name in both for name in referred)


def test_a_run_without_tensorrt_ends_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorrt" else object())
    run = workflow("inference.json", "inference_trt.json", kind="infer", output_dir=str(tmp_path))
    with pytest.raises(RuntimeError) as error:
        run.parser.get_parsed_content("network")
    assert "packages missing here: tensorrt; run without" in str(root_cause(error.value))


def test_a_machine_without_a_gpu_and_images_of_many_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # noqa: ARG005
    network = ResnetGenerator(width=4, blocks=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="no NVIDIA GPU here"):
        trt.compile_network(network, "model.pt", 256, 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="image_size is 'native'"):
        trt.compile_network(network, "model.pt", "native", 4)


def test_an_engine_is_kept_for_each_setting_and_built_again_for_newer_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # noqa: ARG005
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ResnetGenerator, "cuda", lambda self: self)
    monkeypatch.setattr(trt, "trt_compile", lambda network, base_path, args: asked.update(args, path=base_path))  # noqa: ARG005
    weights = tmp_path / "model.pt"
    weights.touch()
    trt.compile_network(ResnetGenerator(width=4, blocks=1), weights, 256, 4, "fp16")
    assert asked["path"] == f"{weights}.256.4.fp16"
    assert (asked["precision"], asked["dynamic_batchsize"]) == ("fp16", [1, 4, 4])
    assert asked["timestamp"] >= weights.stat().st_mtime
