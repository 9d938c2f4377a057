"""Networks of libraries are generators like the bundle's own: any size, [0, 1], each image alone, exported."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import AttentionUnet, UNet
from PIL import Image
from torch import nn

from bundle.checkpoint import save_atomically
from bundle.unit_range import UnitRange
from scripts.export import main
from scripts.exporting import comparison, graphs
from tests.workflow import CONFIGS, run, train_options, workflow

GENERATORS = ("unet", "segresnet")
SMALLER: dict[str, dict[str, Any]] = {
    "unet": {"network_def#network#channels": [4, 8, 8, 8, 8]},
    "segresnet": {"network_def#network#init_filters": 8},
}


def built(name: str, **options: Any) -> UnitRange:
    """The generator of an overlay, made small."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "inference.json"), str(CONFIGS / f"{name}.yaml")])
    for key, value in (SMALLER[name] | options).items():
        parser[key] = value
    parser.parse()
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, UnitRange)
    return network


def options_for(name: str, dataset: Path, output: Path, **options: Any) -> dict[str, Any]:
    """As for any tiny training, without the values of the ResNet that is no longer there."""
    made = train_options(dataset, output, **options)
    return {key: value for key, value in made.items() if not key.startswith("network_def#")} | SMALLER[name]


@pytest.mark.parametrize("name", GENERATORS)
def test_any_size_comes_back_in_its_size_and_in_0_to_1(name: str) -> None:
    network = built(name).eval()
    for shape in ((2, 1, 32, 32), (1, 1, 36, 52), (1, 1, 33, 47)):
        result = network(20 * torch.randn(shape))
        assert result.shape == shape
        assert 0 <= result.min() < result.max() <= 1


@pytest.mark.parametrize("name", GENERATORS)
def test_an_image_is_translated_as_if_it_were_alone_also_in_training(name: str) -> None:
    network = built(name).double().train()
    images = torch.rand(3, 1, 40, 48, dtype=torch.float64)
    alone = torch.cat([network(image) for image in images.split(1)])
    torch.testing.assert_close(network(images), alone, rtol=0, atol=1e-10)


def test_an_image_of_a_size_that_the_network_takes_is_not_changed_on_its_way_there() -> None:
    network = UnitRange(nn.Identity(), 8)
    x = torch.rand(1, 1, 24, 16)
    torch.testing.assert_close(network(x), x.sigmoid())
    torch.testing.assert_close(network(x[..., :13]), x[..., :13].sigmoid())


def test_a_u_net_can_give_the_background_its_place_at_once() -> None:
    """With one normalised channel as output, half of all pixels would stay above 0.4 whatever the head's bias is."""
    network = built("unet")
    image = torch.rand(1, 1, 32, 32)
    nn.init.constant_(network.head.bias, -8.0)  # type: ignore[arg-type]
    assert network(image).max() < 0.05


def test_what_is_added_at_the_far_edges_repeats_them() -> None:
    seen: list[torch.Tensor] = []
    network = UnitRange(nn.Identity(), 8)
    network.network.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = torch.rand(1, 1, 6, 7)
    network(x)
    assert seen[0].shape == (1, 1, 8, 8)
    torch.testing.assert_close(seen[0][..., :6, :7], x)
    torch.testing.assert_close(seen[0][..., 6:, :7], x[..., -1:, :].expand(1, 1, 2, 7))
    torch.testing.assert_close(seen[0][..., :6, 7:], x[..., -1:])


def test_a_network_that_would_mix_images_is_refused() -> None:
    with pytest.raises(ValueError, match="AttentionUnet with batch norms"):
        UnitRange(AttentionUnet(2, 1, 1, (4, 8), (2,)))
    with pytest.raises(ValueError, match="multiple is 0"):
        UnitRange(nn.Identity(), 0)


def test_weights_of_another_network_are_never_served_where_a_server_asks_for_less() -> None:
    network = built("unet")
    other = built("segresnet").state_dict()
    with pytest.raises(RuntimeError, match="weights of another network"):
        network.load_state_dict(other, strict=False)
    network.load_state_dict(built("unet").state_dict(), strict=False)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_weight_takes_part_as_processes_that_train_together_need(name: str) -> None:
    network = built(name)
    network(torch.rand(1, 1, 32, 32)).square().sum().backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("name", GENERATORS)
def test_it_is_trained_evaluated_and_applied_with_the_same_overlay(
    name: str, tiny_dataset: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "run"
    workflow("train.json", f"{name}.yaml", **options_for(name, tiny_dataset, whole, max_epochs=1)).run()
    options = options_for(name, tiny_dataset, whole, resamples=100)
    workflow("train.json", f"{name}.yaml", "evaluate.json", run_id="evaluating", **options).run()
    assert (whole / "summary.json").is_file()
    applied = tmp_path / "virtual"
    paths = {"dataset_dir": str(tiny_dataset / "LE"), "output_dir": str(applied), "image_size": "32", "device": "cpu"}
    paths |= {"model_path": str(whole / "model.pt")} | {key: str(value) for key, value in SMALLER[name].items()}
    files = str(["configs/inference.json", f"configs/{name}.yaml"])
    line = [word for key, value in paths.items() for word in (f"--{key}", value)]
    finished = run("-m", "monai.bundle", "run", "--config_file", files, *line)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert set(pd.read_csv(applied / "report.csv")["status"]) == {"done"}
    assert np.asarray(Image.open(applied / "01_virtual_des.png")).shape == (40, 32)


@pytest.fixture
def _small_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SHAPES", ((2, 32, 48), (1, 36, 52)))


@pytest.mark.usefixtures("_small_comparison")
@pytest.mark.parametrize(("name", "form"), [("unet", "--onnx"), ("segresnet", None)])
def test_it_is_exported_with_its_overlay_for_any_size(
    name: str, form: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shallow = {"network_def#network#strides": [2, 2], "network_def#network#channels": [4, 8, 8]}
    options = {"unet": shallow, "segresnet": SMALLER["segresnet"]}[name]
    weights = tmp_path / "model.pt"
    save_atomically(built(name, **options).state_dict(), weights)
    smaller = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    line = ["--model-path", str(weights), "--config", str(CONFIGS / f"{name}.yaml"), *smaller]
    assert main([*line, *([form] if form else [])]) == 0
    assert main(["--model-path", str(weights), "--check"]) == 0
    printed = capsys.readouterr().out
    assert "TorchScript  1 x 1 x 36 x 52" in printed
    if form:
        assert "ONNX Runtime 1 x 1 x 36 x 52" in printed
        operations = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
        assert "InstanceNormalization" not in operations


def test_an_overlay_that_inference_does_not_know_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--model-path", str(tmp_path / "model.pt"), "--config", str(CONFIGS / "quickstart.yaml")]
    assert main(line) == 2
    assert "discriminator_a_def#width is no value of the config" in capsys.readouterr().err
    assert main(["--model-path", str(tmp_path / "model.pt"), "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_a_norm_with_numbers_of_its_own_is_exported_as_it_is() -> None:
    network = UNet(2, 1, 1, (4, 8), (2,), norm=("INSTANCE", {"affine": True}))
    plain = graphs._with_plain_norms(copy.deepcopy(network))
    assert sum(isinstance(layer, nn.InstanceNorm2d) for layer in plain.modules()) > 0
