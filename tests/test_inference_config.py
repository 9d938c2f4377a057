"""configs/inference.json prepares an image as training does, and ends with an exit code that says what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms.compose import Compose
from PIL import Image

from bundle.data import checked_cases
from bundle.networks import ResnetGenerator
from bundle.phantom import make_phantom
from tests.conftest import ROOT
from tests.workflow import CONFIGS, workflow


def prepared(config: str, transforms: str, item: dict[str, Any], **options: Any) -> torch.Tensor:
    """The LE tensor that the transforms under an id of a config make of an item."""
    parser = ConfigParser()
    parser.read_config(CONFIGS / config)
    parser.update(options)
    steps = parser.get_parsed_content(transforms)
    done = (steps if isinstance(steps, Compose) else Compose(steps))(item)
    return torch.as_tensor(done["image"])


def assert_prepared_alike(case: dict[str, Any], **inference_options: Any) -> None:
    for size in (256, 32):
        trained = prepared("train.json", "train#deterministic_transforms", case, image_size=size)
        applied = prepared(
            "inference.json", "preprocessing", {"image": case["image"]}, image_size=size, **inference_options
        )
        assert torch.equal(applied, trained)
        assert trained.shape == (1, size, size)
        assert trained.min() == 0


def test_a_phantom_image_is_prepared_as_in_training(tmp_path: Path) -> None:
    make_phantom(tmp_path, patients=3, size=64, num_folds=3, workers=1, progress=False)
    for case in checked_cases(tmp_path)[:4]:
        assert_prepared_alike(case)


@pytest.mark.parametrize("laterality", ["L", "R"])
def test_an_image_with_a_window_is_prepared_as_in_training_once_inference_is_told_the_window(
    tmp_path: Path, laterality: str
) -> None:
    pixels = np.zeros((40, 30), np.uint16)
    breast = np.random.default_rng(0).integers(1800, 3000, (30, 20))
    pixels[5:35, :20] = breast
    image, label = tmp_path / "le.png", tmp_path / "des.png"
    Image.fromarray(pixels if laterality == "L" else pixels[:, ::-1].copy()).save(image)
    Image.fromarray(pixels).save(label)
    case = {"image": str(image), "label": str(label), "laterality": laterality, "image_window": [2361, 850]}
    assert_prepared_alike(case, image_window=[2361, 850])
    told, untold = (
        prepared("inference.json", "preprocessing", {"image": str(image)}, image_window=window)
        for window in ([2361, 850], None)
    )
    assert not torch.allclose(told, untold, atol=0.1)


def test_a_run_with_a_broken_image_writes_the_others_and_ends_with_exit_code_1(tmp_path: Path) -> None:
    source, weights = tmp_path / "LE", tmp_path / "model.pt"
    source.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 24), np.uint8)).save(source / "good.png")
    (source / "broken.png").write_bytes((source / "good.png").read_bytes()[:60])
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), weights)
    options: dict[str, Any] = {
        "bundle_root": str(ROOT),
        "dataset_dir": str(source),
        "model_path": str(weights),
        "device": "cpu",
    }
    options |= {"network_def#width": 4, "network_def#blocks": 1, "image_size": 32}
    run = workflow("inference.json", kind="infer", output_dir=str(tmp_path / "out"), **options)
    with pytest.raises(SystemExit) as stop:
        run.run()
    assert stop.value.code == 1
    assert (tmp_path / "out" / "good_virtual_des.png").is_file()
    assert "broken.png,failed" in (tmp_path / "out" / "report.csv").read_text()
    (source / "broken.png").unlink()
    with pytest.warns(UserWarning, match="dataloader.* is empty"):
        workflow("inference.json", kind="infer", output_dir=str(tmp_path / "out"), **options).run()
