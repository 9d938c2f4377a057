"""The list of contents in a zip (SBOM) is valid CycloneDX and true to the weights, the pins and the licences."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from bundle.files import sha256_of
from bundle.networks import ResnetGenerator
from scripts.export import main
from scripts.exporting.sbom import SBOM
from scripts.exporting.source import Source, read_source
from scripts.exporting.zoo_zip import NAME, write_zip, zip_path
from scripts.supply.environments import read_pins
from scripts.supply.inventory import read_inventory


@pytest.fixture
def source(tmp_path: Path) -> Source:
    weights = tmp_path / "weights" / "model.pt"
    weights.parent.mkdir()
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), weights)
    weights.with_suffix(".ts").write_bytes(b"torchscript")
    return read_source(weights, {"network_def#width": 4, "network_def#blocks": 1})


def sbom_in(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{NAME}/{SBOM}").decode()


@pytest.fixture
def text(source: Source, tmp_path: Path) -> str:
    write_zip(source, source.weights.with_suffix(".ts"), zip_path(source, tmp_path), None, 25)
    return sbom_in(zip_path(source, tmp_path))


@pytest.fixture
def content(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def test_it_follows_the_schema_of_cyclonedx_1_6_and_the_validator_would_say_otherwise(text: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"type": "library"', '"type": "book"', 1)) is not None


def test_it_names_the_bundle_with_version_and_licence_and_the_hash_of_both_forms_of_the_weights(
    content: dict[str, Any], source: Source
) -> None:
    bundle = content["metadata"]["component"]
    assert (bundle["name"], bundle["version"]) == (NAME, source.metadata["version"])
    assert bundle["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    hashes = {one["name"]: one["hashes"] for one in bundle["components"]}
    assert hashes["models/model.pt"] == [{"alg": "SHA-256", "content": source.weights_sha256}]
    assert hashes["models/model.ts"][0]["content"] == sha256_of(source.weights.with_suffix(".ts"))


def test_every_package_has_its_pinned_version_address_and_licence(content: dict[str, Any]) -> None:
    pins = read_pins("constraints.txt")
    licences = {one.key: one.licence for one in read_inventory()}
    for one in content["components"]:
        name, version = canonicalize_name(one["name"]), one["version"]
        assert version == pins[name].version
        address = PackageURL.from_string(one["purl"])
        assert (address.type, canonicalize_name(address.name), address.version) == ("pypi", name, version)
        said = one["licenses"][0]
        assert said.get("expression", said.get("license", {}).get("id")) == licences[name, version]


def test_what_is_needed_is_complete_and_reached_from_the_bundle(content: dict[str, Any], source: Source) -> None:
    needs = {one["ref"]: one.get("dependsOn", []) for one in content["dependencies"]}
    reached, waiting = set[str](), [NAME]
    while waiting:
        ref = waiting.pop()
        waiting += [one for one in needs[ref] if one not in reached]
        reached |= set(needs[ref])
    assert reached == {one["bom-ref"] for one in content["components"]}
    names = {canonicalize_name(one["name"]) for one in content["components"]}
    assert {canonicalize_name(name) for name in source.metadata["required_packages_version"]} <= names
    assert {"torch", "monai", "numpy"} <= names
    assert not {"pytest", "ray", "onnx"} & names  # not needed to train or to apply


def test_it_tells_nothing_of_time_and_machine_and_changes_with_the_weights(text: str, source: Source) -> None:
    again = source.weights.parent / "again"
    write_zip(source, source.weights.with_suffix(".ts"), zip_path(source, again), None, 25)
    assert sbom_in(zip_path(source, again)) == text
    assert not [place for place in (str(source.weights.parent), str(source.root)) if place in text]
    assert "timestamp" not in json.loads(text)["metadata"]
    source.weights.with_suffix(".ts").write_bytes(b"another")
    write_zip(source, source.weights.with_suffix(".ts"), zip_path(source, again), None, 25)
    assert json.loads(sbom_in(zip_path(source, again)))["serialNumber"] != json.loads(text)["serialNumber"]


def test_the_hash_beside_the_zip_is_what_sha256sum_checks(text: str, source: Source, tmp_path: Path) -> None:
    path = zip_path(source, tmp_path)
    check = ["sha256sum", "--check", f"{path.name}.sha256"]
    assert text
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    path.write_bytes(path.read_bytes() + b"more")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1


def test_a_zip_without_the_packages_that_write_the_list_is_refused_before_anything_is_written(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = source.weights.with_suffix(".ts").read_bytes()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # noqa: ARG005
    assert main(["--model-path", str(source.weights), "--zip", str(tmp_path / "zip")]) == 2
    assert "cyclonedx, packageurl not installed: pip install" in capsys.readouterr().err
    assert source.weights.with_suffix(".ts").read_bytes() == earlier
    assert not (tmp_path / "zip").exists()
