from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser

from bundle.dicom import Kind
from bundle.reader import MammogramReader
from scripts.deploy_app.model import Model, Settings, find_model
from scripts.deploy_app.prepare_package import main
from tests.archives.dicom_files import write_dicom
from tests.conftest import ROOT

APP = ROOT / "scripts" / "deploy_app"
#: What the SDK cannot share with the bundle: see scripts/deploy_app/requirements.txt.
OTHER_VERSIONS = {"grpcio", "packaging", "protobuf"}


def make_bundle(root: Path, *weights: str) -> Path:
    for name in ("configs/metadata.json", "configs/inference.json", *(f"models/{one}" for one in weights)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        source = ROOT / name
        (root / name).write_bytes(source.read_bytes() if name.startswith("configs") else b"weights")
    return root


def config_of(folder: Path) -> ConfigParser:
    config = ConfigParser()
    config.read_config(folder / "configs" / "inference.json")
    return config


def test_a_bundle_folder_is_a_model_with_the_weights_that_the_sdk_prefers(tmp_path: Path) -> None:
    one = make_bundle(tmp_path / "one", "model.pt")
    assert find_model(one) == Model(one, one / "models" / "model.pt")
    both = make_bundle(tmp_path / "both", "model.pt", "model.ts")
    assert find_model(both).weights == both / "models" / "model.ts"


def test_a_model_is_found_where_a_package_keeps_it(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "models" / "cesm_virtual_contrast", "model.pt")
    assert find_model(tmp_path / "models").path == folder
    archive = tmp_path / "others" / "model" / "model.ts"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"weights")
    assert find_model(tmp_path / "others") == find_model(archive) == Model(archive, archive)


def test_no_model_no_weights_and_several_models_are_errors_that_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model at"):
        find_model(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="expected a bundle folder"):
        find_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"neither models/model\.ts nor models/model\.pt"):
        find_model(make_bundle(tmp_path / "empty"))
    for name in ("a", "b"):
        make_bundle(tmp_path / "several" / name, "model.pt")
    with pytest.raises(ValueError, match=r"2 models in .*: a, b"):
        find_model(tmp_path / "several")


def test_images_are_read_and_objects_made_as_the_inference_config_says(tmp_path: Path) -> None:
    model = find_model(make_bundle(tmp_path, "model.pt"))
    config = config_of(tmp_path)
    config["burn_in_notice"], config["accepted_kinds"] = True, [Kind.MAMMOGRAM.value]
    settings = Settings.of(model, config)
    assert list(settings.accepted) == ["mammogram"]
    assert (settings.objects.burn_in_notice, settings.objects.weights) == (True, str(model.weights))
    path = tmp_path / "low.dcm"
    values = np.arange(24 * 16, dtype=np.uint16).reshape(24, 16)
    write_dicom(path, values, laterality="L", monochrome1=True, window=(200, 300))
    reader = MammogramReader(as_displayed=True)
    pixels, meta = reader.get_data(reader.read(path))
    image = settings.load(str(path))
    assert np.array_equal(image.numpy(), pixels)
    assert {name: image.meta[name] for name in ("laterality", "mirrored")} == {
        name: meta[name] for name in ("laterality", "mirrored")
    }
    assert image.meta["filename_or_obj"] == str(path)


def test_a_preprocessing_that_does_not_begin_with_reading_is_refused(tmp_path: Path) -> None:
    model = find_model(make_bundle(tmp_path, "model.pt"))
    config = config_of(tmp_path)
    config["preprocessing#transforms"] = config["preprocessing#transforms"][2:]
    with pytest.raises(ValueError, match="begins with EnsureChannelFirstd, expected LoadImaged"):
        Settings.of(model, config)


def test_an_archive_whose_config_the_sdk_does_not_find_is_refused_as_it_would_run_without_preprocessing(
    tmp_path: Path,
) -> None:
    renamed = Model(tmp_path / "renamed.ts", tmp_path / "renamed.ts")
    with pytest.raises(ValueError, match="only under the name with which it was exported"):
        Settings.of(renamed, ConfigParser({"_meta_": {}}))


@pytest.mark.slow
def test_a_prepared_package_holds_all_the_code_that_the_application_imports(tmp_path: Path) -> None:
    output = tmp_path / "map"
    assert main(["--model", str(make_bundle(tmp_path / "bundle", "model.pt")), "--output", str(output)]) == 0
    imports = "from scripts.deploy_app import model; import bundle.version as made, bundle.dicom, bundle.inference"
    shown = "print(model.__file__); print(made.METADATA.is_file())"
    line = [sys.executable, "-c", f"{imports}; {shown}"]
    lines = subprocess.run(line, cwd=output / "app", capture_output=True, text=True, check=True).stdout.split()
    assert lines == [str(output / "app" / "scripts" / "deploy_app" / "model.py"), "True"]
    assert (output / "app" / "requirements.txt").is_file()
    assert (output / "app" / "__main__.py").is_file()


@pytest.mark.parametrize("name", ["", "model.ts"])
def test_a_prepared_package_holds_the_model_where_the_application_finds_it(name: str, tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "bundle", "model.pt")
    (source / "model.ts").write_bytes(b"weights")
    assert main(["--model", str(source / name), "--output", str(tmp_path / "map")]) == 0
    found = find_model(tmp_path / "map" / "models")
    assert found.weights.name == (name or "model.pt")
    assert found.path.is_dir() == (not name)


def test_a_package_is_not_prepared_over_another_nor_without_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_bundle(tmp_path / "bundle", "model.pt")
    assert main(["--model", str(source), "--output", str(tmp_path)]) == 2
    assert "remove it or give another --output" in capsys.readouterr().err
    assert main(["--model", str(tmp_path / "absent"), "--output", str(tmp_path / "map")]) == 2
    assert "no model at" in capsys.readouterr().err


def test_the_package_has_the_version_of_the_bundle() -> None:
    config = yaml.safe_load((APP / "app.yaml").read_text(encoding="utf-8"))
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "metadata.json")
    assert config["application"]["version"] == parser["version"]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([\w.-]+)==(\S+)", line) for line in lines if line and not line.startswith("#")]
    assert all(found)
    return {one[1].lower(): one[2] for one in found if one}


def test_the_application_has_the_versions_of_the_bundle_wherever_the_sdk_allows() -> None:
    own, shared = pins("scripts/deploy_app/requirements.txt"), pins("constraints.txt")
    assert own["monai-deploy-app-sdk"] == "4.0.0"
    assert {name for name in own if name in shared and own[name] != shared[name]} <= OTHER_VERSIONS
