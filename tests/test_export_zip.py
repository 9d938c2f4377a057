"""The zip for the model zoo holds what users of the weights need, is the same each time, and fits its weights."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import monai.bundle
import pytest
import torch

from bundle.files import sha256_of
from bundle.networks import ResnetGenerator
from scripts.exporting.source import Source, read_source
from scripts.exporting.zoo_zip import NAME, write_zip, zip_path
from tests.conftest import ROOT

OVERRIDES = {"network_def#width": 4, "network_def#blocks": 1, "image_size": 32}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    torch.manual_seed(5)
    weights = tmp_path / "weights" / "best.pt"
    weights.parent.mkdir()
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), weights)
    weights.with_suffix(".ts").write_bytes(b"torchscript")
    return read_source(weights, OVERRIDES)


def zipped(source: Source, folder: Path, url: str | None = None, megabytes: float = 25) -> dict[str, bytes]:
    path = zip_path(source, folder)
    write_zip(source, source.weights.with_suffix(".ts"), path, url, megabytes)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert all(name.startswith(f"{NAME}/") for name in archive.namelist())
        return {name.removeprefix(f"{NAME}/"): archive.read(name) for name in archive.namelist()}


def test_the_zip_holds_code_configs_documents_licence_and_weights_and_nothing_else(
    source: Source, tmp_path: Path
) -> None:
    content = zipped(source, tmp_path)
    places = {name.split("/")[0] for name in content}
    assert places == {"bundle", "configs", "docs", "models", "LICENSE", "requirements.txt", "sbom.cdx.json"}
    assert {name for name in content if name.startswith("models/")} == {
        "models/README.md", "models/model.pt", "models/model.ts",
    }  # fmt: skip
    assert content["models/model.pt"] == source.weights.read_bytes()
    assert {"configs/metadata.json", "docs/README.md", "docs/data_license.txt"} <= content.keys()
    assert content["bundle/networks.py"] == (ROOT / "bundle" / "networks.py").read_bytes()
    assert not [name for name in content if "__pycache__" in name or "/." in name]
    assert zip_path(source, tmp_path).name == f"{NAME}_v{source.metadata['version']}.zip"


def test_the_requirements_are_the_versions_of_the_metadata(source: Source, tmp_path: Path) -> None:
    lines = zipped(source, tmp_path)["requirements.txt"].decode().splitlines()
    assert {"torch==2.13.0", "monai==1.6.1", f"numpy=={source.metadata['numpy_version']}"} <= set(lines)
    assert len(lines) == 3 + len(source.metadata["required_packages_version"])


def test_two_zips_of_the_same_files_are_the_same_bytes(source: Source, tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        (ROOT / "LICENSE").touch()
        zipped(source, tmp_path / name)
        digests.add(sha256_of(zip_path(source, tmp_path / name)))
    assert len(digests) == 1
    with zipfile.ZipFile(zip_path(source, tmp_path / "one")) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {(entry.date_time, entry.external_attr >> 16) for entry in entries} == {((1980, 1, 1, 0, 0, 0), 0o100644)}


def test_the_configs_inside_build_the_network_of_the_weights(source: Source, tmp_path: Path) -> None:
    content = zipped(source, tmp_path)
    for name in ("train.json", "inference.json"):
        original = json.loads((ROOT / "configs" / name).read_text())
        inside = json.loads(content[f"configs/{name}"])
        assert (inside["network_def"]["width"], inside["network_def"]["blocks"], inside["image_size"]) == (4, 1, 32)
        assert {key for key in original if original[key] != inside[key]} == {"network_def", "image_size"}


def test_the_model_card_and_its_figures_go_with_the_weights_that_they_are_about_alone(
    source: Source, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(ROOT / "configs", root / "configs")
    for name in ("LICENSE", "models/README.md", "models/model_card/README.md", "models/model_card/cases.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("other weights")
    others = zipped(read_source(source.weights, OVERRIDES, root), tmp_path)
    assert not [name for name in others if "model_card" in name]
    assert json.loads(others["configs/metadata.json"])["eval_metrics"] == {}
    (root / "models/model_card/README.md").write_text(f"about {source.weights_sha256}")
    own = zipped(read_source(source.weights, OVERRIDES, root), tmp_path)
    inside = {name for name in own if "model_card" in name}
    assert inside == {"models/model_card/README.md", "models/model_card/cases.csv"}
    assert json.loads(own["configs/metadata.json"]) == json.loads((ROOT / "configs" / "metadata.json").read_text())


def test_large_weights_are_named_in_a_file_from_which_monai_downloads_them(source: Source, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "model.pt").write_bytes(source.weights.read_bytes())
    content = zipped(source, tmp_path, url=served.as_uri() + "/", megabytes=0.001)
    assert "models/model.pt" not in content
    assert content["models/model.ts"] == b"torchscript"
    downloaded = tmp_path / "downloaded"
    (downloaded / "models").mkdir(parents=True)
    (downloaded / "large_files.yml").write_bytes(content["large_files.yml"])
    monai.bundle.download_large_files(bundle_path=str(downloaded))
    assert (downloaded / "models" / "model.pt").read_bytes() == source.weights.read_bytes()
    assert f"hash_val: {source.weights_sha256}\n  hash_type: sha256" in content["large_files.yml"].decode()


def test_large_weights_without_an_address_are_refused_with_both_remedies(source: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"best\.pt .*--weights-url.*--max-megabytes"):
        zipped(source, tmp_path, megabytes=0.001)
    assert not zip_path(source, tmp_path).exists()
