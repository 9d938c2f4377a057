"""scripts/export.py writes what computes the same as the network, with all that others need to run it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data.torchscript_utils import load_net_with_metadata

from bundle.files import sha256_of
from bundle.networks import ResnetGenerator
from scripts.config_values import overrides_of
from scripts.export import main
from scripts.exporting import comparison, graphs
from tests.conftest import ROOT
from tests.workflow import CONFIGS, environment

TINY_NETWORK = ["--network_def#width", "4", "--network_def#blocks", "1"]
SMALL = ((2, 32, 48), (1, 20, 36))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    path = tmp_path / "model.pt"
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def _small_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SHAPES", SMALL)


def export(weights: Path, *options: str) -> int:
    return main(["--model-path", str(weights), *options, *TINY_NETWORK])


def network(weights: Path) -> ResnetGenerator:
    made = ResnetGenerator(width=4, blocks=1).eval()
    made.load_state_dict(torch.load(weights, weights_only=True))
    return made


def extra(path: Path) -> dict[str, Any]:
    """The JSON files inside, read as MONAI Deploy does: from a folder named as the file."""
    with zipfile.ZipFile(path) as archive:
        prefix = f"{path.stem}/extra/"
        names = [name for name in archive.namelist() if name.startswith(prefix)]
        return {name.removeprefix(prefix): json.loads(archive.read(name)) for name in names}


def test_the_torchscript_computes_the_same_for_any_batch_and_size(weights: Path) -> None:
    assert export(weights) == 0
    files = {"metadata.json": "", "inference.json": ""}
    module = torch.jit.load(str(weights.with_suffix(".ts")), _extra_files=files)
    image = torch.rand(3, 1, 28, 64)
    with torch.inference_mode():
        torch.testing.assert_close(module(image), network(weights)(image), rtol=0, atol=1e-6)
    of_these_weights = json.loads((CONFIGS / "metadata.json").read_text()) | {"eval_metrics": {}}
    assert json.loads(files["metadata.json"]) == of_these_weights


def test_the_config_inside_builds_the_network_of_the_weights(weights: Path) -> None:
    export(weights, "--image_size", "64")
    inside = extra(weights.with_suffix(".ts"))
    config = inside["inference.json"]
    made = ConfigParser(config=copy.deepcopy(config)).get_parsed_content("network_def")
    made.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    original = json.loads((CONFIGS / "inference.json").read_text())
    assert config["image_size"] == 64
    assert {key for key in original if original[key] != config[key]} == {"network_def", "image_size"}
    assert inside["export.json"]["weights_sha256"] == sha256_of(weights)


def test_monai_reads_the_torchscript_with_its_metadata(weights: Path) -> None:
    export(weights)
    _, metadata, files = load_net_with_metadata(str(weights.with_suffix(".ts")), more_extra_files=("inference.json",))
    assert metadata["name"] == "CESM virtual contrast"
    assert "preprocessing" in json.loads(files["inference.json"])


def test_weights_in_16_bits_stay_so_and_give_the_same(weights: Path, tmp_path: Path) -> None:
    half = tmp_path / "half" / "model.pt"
    half.parent.mkdir()
    torch.save(network(weights).half().state_dict(), half)
    assert [export(weights), export(half)] == [0, 0]
    module = torch.jit.load(str(half.with_suffix(".ts")))
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float16}
    image = torch.rand(1, 1, 28, 64)
    with torch.inference_mode():
        torch.testing.assert_close(module(image), network(half)(image), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_same_weights_give_the_same_bytes_and_no_folder_of_this_machine(weights: Path, tmp_path: Path) -> None:
    digests = set()
    for seed in ("1", "2"):
        line = [sys.executable, "scripts/export.py", "--model-path", str(weights), *TINY_NETWORK]
        environ = {**environment(), "PYTHONHASHSEED": seed}
        subprocess.run(line, cwd=ROOT, env=environ, check=True, capture_output=True)
        digests.add(sha256_of(weights.with_suffix(".ts")))
    assert len(digests) == 1
    with zipfile.ZipFile(weights.with_suffix(".ts")) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert not [place for place in (str(ROOT), sys.prefix, str(tmp_path)) if place.encode() in content]


def test_check_tells_whether_the_torchscript_is_of_these_weights_and_configs(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["--check", "--model-path", str(weights)]
    assert main(check) == 1
    assert "there is no" in capsys.readouterr().out
    export(weights)
    assert main(check) == 0
    assert main([*check, "--network_def#width", "8"]) == 1
    assert "inference.json inside" in capsys.readouterr().out
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), weights)
    assert main(check) == 1
    assert "is of other weights" in capsys.readouterr().out


@pytest.mark.slow
def test_onnx_and_openvino_take_any_batch_and_size_and_agree(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(weights, "--onnx", "--openvino") == 0
    assert {line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if "difference" in line} == {
        "TorchScript", "ONNX Runtime 2 x 1 x 32 x 48", "ONNX Runtime 1 x 1 x 20 x 36", "OpenVINO",
    }  # fmt: skip
    session = onnxruntime.InferenceSession(str(weights.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(weights.with_suffix(".xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 1, 64, 64), (3, 1, 28, 52)):
        image = torch.rand(shape)
        with torch.inference_mode():
            expected = network(weights)(image).numpy()
        np.testing.assert_allclose(session.run(["pred"], {"image": image.numpy()})[0], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(compiled({"image": image.numpy()})["pred"], expected, rtol=0, atol=1e-5)
    model = onnx.load(weights.with_suffix(".onnx"))
    assert {one.key: one.value for one in model.metadata_props}["weights_sha256"] == sha256_of(weights)
    assert str(ROOT).encode() not in weights.with_suffix(".onnx").read_bytes()


def test_a_form_that_differs_is_refused_and_the_earlier_file_stays(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = weights.with_suffix(".ts")
    earlier.write_bytes(b"earlier")
    monkeypatch.setattr(comparison, "TOLERANCE", -1.0)
    assert export(weights) == 1
    assert "TorchScript differs from the network by" in capsys.readouterr().err
    assert earlier.read_bytes() == b"earlier"
    assert sorted(path.name for path in weights.parent.iterdir()) == ["model.pt", "model.ts"]


def test_a_result_that_is_not_a_number_or_has_another_shape_is_a_difference() -> None:
    tiny = ResnetGenerator(width=4, blocks=1).eval()
    with pytest.raises(comparison.DifferenceError, match="nan"):
        comparison.check_agreement("X", tiny, lambda image: image * np.float32("nan"))
    with pytest.raises(comparison.DifferenceError, match=r"shape \(2, 1, 32, 47\)"):
        comparison.check_agreement("X", tiny, lambda image: image[..., 1:])


def test_the_plain_norm_is_the_norm_of_torch() -> None:
    image = torch.rand(2, 3, 40, 24) * 5 + 3
    torch.testing.assert_close(graphs._PlainInstanceNorm()(image), torch.nn.InstanceNorm2d(3, eps=1e-5)(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network_def#width", "8"], "does not fit the network"),
        (["--network_def#widht", "8"], "unexpected keyword argument 'widht'"),
        (["--imagesize", "64"], "did you mean --image_size"),
        (["--onx"], "expected values of the config as --name value"),
        (["--amp", "false"], "write False"),
    ],
)
def test_what_cannot_be_exported_is_named(
    weights: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model-path", str(weights), *TINY_NETWORK[2:], *options]) == 2
    assert message in capsys.readouterr().err
    assert not weights.with_suffix(".ts").exists()


def test_missing_weights_are_named_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model-path", str(tmp_path / "model.pt")]) == 2
    assert "train first" in capsys.readouterr().err


def test_missing_packages_are_named_before_anything_is_written(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # noqa: ARG005
    assert export(weights, "--onnx") == 2
    assert "onnx, onnxscript, onnxruntime not installed: pip install" in capsys.readouterr().err
    assert not weights.with_suffix(".ts").exists()


def test_overrides_are_read_as_monai_reads_them() -> None:
    read = overrides_of(["--image_size", "64", "--image_window=[1,2]", "--device", "cpu"])
    assert read == {"image_size": 64, "image_window": [1, 2], "device": "cpu"}


def bundle_command(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "monai.bundle", *words, "--config_file", "configs/inference.json"]
    return subprocess.run(
        [*line, "--meta_file", "configs/metadata.json", *TINY_NETWORK],
        cwd=ROOT, env={**environment(), "PYTHONPATH": "."}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_commands_of_monai_export_and_verify_the_network(weights: Path, tmp_path: Path) -> None:
    verified = bundle_command("verify_net_in_out", "--net_id", "network_def", "--device", "cpu")
    assert verified.returncode == 0, verified.stderr[-2000:]
    assert "verified with no error" in verified.stdout + verified.stderr
    target = tmp_path / "monai.ts"
    exported = bundle_command("ckpt_export", "--filepath", str(target), "--ckpt_file", str(weights))
    assert exported.returncode == 0, exported.stderr[-2000:]
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(torch.jit.load(str(target))(image), network(weights)(image))
