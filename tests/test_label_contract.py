"""What MONAI Label reads out of the bundle, and the two steps that serve it. `make label-test` asks the real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.io.dictionary import LoadImaged
from PIL import Image

from bundle.dicom import Kind
from bundle.image_file_error import ImageFileError
from bundle.monai_label import LabelResultd, LabelSourced
from bundle.networks import ResnetGenerator
from tests.archives.dicom_files import write_dicom
from tests.conftest import TINY
from tests.workflow import CONFIGS, workflow

PIXELS = np.arange(24 * 16, dtype=np.uint16).reshape(24, 16)


def test_the_first_input_and_output_are_named_and_numbered_as_the_server_expects() -> None:
    metadata = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))
    data = metadata["network_data_format"]
    (image, entry), (pred, result) = (next(iter(data[side].items())) for side in ("inputs", "outputs"))
    assert (image, pred) == ("image", "pred")
    assert len(entry["spatial_shape"]) == 2
    assert {int(number): name for number, name in result["channel_def"].items()} == {0: "virtual DES"}


def test_the_name_of_the_bundle_makes_no_other_task_of_it() -> None:
    words = ("deepedit", "deepgrow", "detection", "segmentation", "classification")
    assert not any(word in "cesm_virtual_contrast" for word in words)


def test_the_inference_config_gives_what_the_server_takes_from_it() -> None:
    parser = ConfigParser()
    parser.read_config(CONFIGS / "inference.json")
    parser["bundle_root"], parser["device"] = "/elsewhere", "cpu"
    parser["network_def#width"], parser["network_def#blocks"] = 4, 1
    assert isinstance(parser.get_parsed_content("network_def"), ResnetGenerator)
    before, after = (parser.get_parsed_content(name) for name in ("preprocessing", "postprocessing"))
    assert isinstance(before, Compose)
    assert isinstance(after, Compose)
    assert isinstance(before.transforms[0], LabelSourced)
    assert isinstance(before.transforms[1], LoadImaged)
    assert isinstance(after.transforms[-1], LabelResultd)


def write_pair(folder: Path, number: int) -> dict[str, str]:
    paths = {key: folder / f"{key}{number}.png" for key in ("image", "label")}
    for path in paths.values():
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 32), np.uint8)).save(path)
    return {key: str(path) for key, path in paths.items()}


@pytest.mark.parametrize("validating", [0, 1])
def test_a_training_on_pairs_alone_rewrites_the_weights_it_began_with(tmp_path: Path, validating: int) -> None:
    """The overrides are those of MONAI Label's BundleTrainTask, its checkpoint loader included."""
    pairs = [write_pair(tmp_path, number) for number in range(3)]
    model, network = tmp_path / "model.pt", {"width": 4, "blocks": 1}
    first = ResnetGenerator(width=4, blocks=1).state_dict()
    torch.save(first, model)
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": str(model),
        "load_dict": {"model": "$@network"},
        "strict": False,
    }
    handlers = [loader, *ConfigParser.load_config_file(CONFIGS / "train.json")["train"]["handlers"]]
    options: dict[str, Any] = {
        **TINY,
        "bundle_root": str(CONFIGS.parent),
        "dataset_dir": str(tmp_path / "none"),
        "output_dir": str(tmp_path / "run"),
        "model_path": str(model),
        "device": "cpu",
        "learning_rate": 1e-3,
        "train#trainer#max_epochs": 1,
        "train#dataset#data": pairs[validating:],
        "validate#dataset#data": pairs[:validating],
        "train#handlers": handlers,
    }
    options |= {f"network_def#{name}": value for name, value in network.items()}
    made = workflow("train.json", **options)
    made.run()
    rewritten = torch.load(model, weights_only=True)
    ResnetGenerator(width=4, blocks=1).load_state_dict(rewritten, strict=True)
    moved = torch.cat([(rewritten[name] - first[name]).flatten() for name in first]).abs()
    assert 0 < moved.max() < 0.05  # trained on from the weights that were there, and not from new ones


def test_items_of_others_pass_both_steps_unchanged(tmp_path: Path) -> None:
    item = {"image": str(tmp_path / "DES.png"), "pred": torch.zeros(1, 4, 6)}
    assert LabelSourced("image")(item) == item
    assert LabelResultd("pred")(item) == item


def request(path: Path, **params: Any) -> dict[str, Any]:
    source = MetaTensor(torch.zeros(1, 4, 6), meta={"spatial_shape": np.array([4, 6])})
    return {"image_path": str(path), "image": source, "pred": torch.full((1, 4, 6), 7.6), **params}


@pytest.mark.parametrize("name", ["a.b.png", "a.JPG", "a.tiff"])
def test_the_result_of_a_picture_is_a_picture_in_rounded_bytes(name: str) -> None:
    done = LabelResultd("pred")(request(Path(name)))
    assert done["pred"].shape == (4, 6)
    assert done["pred"].unique().tolist() == [8]
    assert done["result_dtype"] == "uint8"
    assert done["result_extension"] == Path(name).suffix.lower()


@pytest.mark.parametrize(
    ("name", "extension"), [("a.nii.gz", ".nii.gz"), ("a.mha", ".mha"), ("1.2.840.99", ".nii.gz"), ("a.dcm", ".nii.gz")]
)
def test_the_result_of_anything_else_is_one_slice_of_a_volume(name: str, extension: str) -> None:
    done = LabelResultd("pred")(request(Path(name)))
    assert done["pred"].shape == (1, 4, 6, 1)
    assert done["result_extension"] == extension
    assert list(done["image"].meta["spatial_shape"]) == [4, 6, 1]
    assert done["pred"].unique().tolist() == [pytest.approx(7.6)]


def test_the_format_and_number_type_that_a_request_asks_for_are_kept() -> None:
    done = LabelResultd("pred")(request(Path("a.png"), result_extension=".nii.gz", result_dtype="uint16"))
    assert (done["result_extension"], done["result_dtype"]) == (".nii.gz", "uint16")
    assert done["pred"].unique().tolist() == [8]


def test_of_a_dicom_series_the_low_energy_image_is_taken(tmp_path: Path) -> None:
    series = tmp_path / "1.2.840.99"
    write_dicom(series / "1.dcm", PIXELS, kind=Kind.SUBTRACTED)
    write_dicom(series / "2.dcm", PIXELS)
    take = LabelSourced("image")
    assert take({"image": str(series), "image_path": str(series)})["image"] == str(series / "2.dcm")
    write_dicom(series / "3.dcm", PIXELS)
    with pytest.raises(ImageFileError, match=r"2 images \(2.dcm, 3.dcm\), expected one"):
        take({"image": str(series), "image_path": str(series)})


@pytest.mark.parametrize("name", ["rec.dcm", "case_DES.png", "absent.png"])
def test_another_kind_of_image_is_refused_by_its_reason(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".dcm"):
        write_dicom(path, PIXELS, kind=Kind.SUBTRACTED)
    elif "DES" in name:
        Image.fromarray(PIXELS).save(path)
    with pytest.raises(ImageFileError, match="subtracted image" if path.exists() else "no image"):
        LabelSourced("image")({"image": str(path), "image_path": str(path)})


def test_a_result_that_lies_beside_the_image_does_not_stop_a_request(tmp_path: Path) -> None:
    for name in ("case.png", "case_virtual_des.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    path = str(tmp_path / "case.png")
    assert LabelSourced("image")({"image": path, "image_path": path})["image"] == path
