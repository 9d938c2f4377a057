"""The MONAI Deploy application on an archive, beside the bundle's own inference. `make deploy-test` runs it.

Its name keeps it out of `make test`: it needs a second environment, .venv-deploy, and a stack of 32 MiB.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from pydicom.misc import is_dicom

from bundle.dicom import Kind
from bundle.networks import ResnetGenerator
from tests.archives.dicom_archive import write_archive
from tests.archives.dicom_files import write_dicom
from tests.archives.phantom import phantom_pairs
from tests.conftest import ROOT
from tests.workflow import environment

PYTHON = ROOT / ".venv-deploy" / "bin" / "python"
APP = ROOT / "scripts" / "deploy_app" / "app.py"
STOCK_APP = ROOT / "tests" / "deploy" / "stock_app.py"
#: Of a virtual DES object: 12 bits. The SDK cuts 0..255 off to whole numbers, 4095 / 255 levels apart.
LEVELS, STOCK_STEP = 4095, 4095 / 255


class Result(NamedTuple):
    """What a run wrote, by path in its output folder, its exit status and its log."""

    pixels: dict[str, NDArray[np.int64]]
    status: int
    log: str


def objects_in(folder: Path) -> dict[str, Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and is_dicom(path))
    return {path.relative_to(folder).as_posix(): path for path in files}


def run(line: list[str], output: Path, cwd: Path = ROOT) -> Result:
    done = subprocess.run(line, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=600)
    pixels = {name: pydicom.dcmread(path).pixel_array.astype(np.int64) for name, path in objects_in(output).items()}
    return Result(pixels, done.returncode, done.stdout + done.stderr)


def run_app(app: Path, source: Path, model: Path, output: Path) -> Result:
    output.mkdir()
    return run([str(PYTHON), str(app), "-i", str(source), "-o", str(output), "-m", str(model)], output)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four vendors' studies with everything that lies in an archive, and the cases that a selector gets wrong."""
    root = tmp_path_factory.mktemp("data") / "archive"
    write_archive(root)
    pair = phantom_pairs(6, 64)[20]
    tall = np.concatenate([pair.image, pair.image[:20]])
    for kind in (Kind.SUBTRACTED, Kind.LOW_ENERGY, Kind.HIGH_ENERGY):  # all of a view in one series
        write_dicom(root / "one_series" / kind.name, pair.image, kind=kind, SeriesInstanceUID="1.2.826.99.1")
    turned: dict[str, Any] = {"laterality": "L", "PatientOrientation": ["P", "L"], "style": "standard"}
    write_dicom(root / "turned" / "low.dcm", tall[::-1, ::-1], monochrome1=True, window=(1800, 2200), **turned)
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle folder with a tiny network that has learnt nothing."""
    root = tmp_path_factory.mktemp("bundle") / "cesm_virtual_contrast"
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "bundle").symlink_to(ROOT / "bundle")
    (root / "models").mkdir()
    path = root / "configs" / "inference.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["network_def"] |= {"width": 4, "blocks": 1}
    path.write_text(json.dumps(config | {"image_size": 64, "device": "$torch.device('cpu')"}), encoding="utf-8")
    torch.manual_seed(0)
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), root / "models" / "model.pt")
    return root


@pytest.fixture(scope="module")
def torchscript(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchscript") / "model.ts"
    line = [sys.executable, "-m", "monai.bundle", "ckpt_export", "network_def", "--filepath", str(path)]
    line += ["--ckpt_file", "models/model.pt", "--meta_file", "configs/metadata.json"]
    line += ["--config_file", "configs/inference.json", "--input_shape", "[1,1,64,64]"]
    subprocess.run(line, cwd=bundle, env=environment() | {"PYTHONPATH": str(bundle)}, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def reference(archive: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What the bundle's own inference makes of the archive."""
    output = tmp_path_factory.mktemp("reference")
    line = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    return run([*line, "--dataset_dir", str(archive), "--output_dir", str(output)], output, cwd=bundle)


@pytest.mark.parametrize("kind", ["bundle", "torchscript"])
def test_the_application_writes_what_the_inference_of_the_bundle_writes(
    kind: str, archive: Path, reference: Result, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result = run_app(APP, archive, request.getfixturevalue(kind), tmp_path / "out")
    assert sorted(result.pixels) == sorted(reference.pixels), result.log[-5000:]
    worst = max(int(abs(result.pixels[name] - reference.pixels[name]).max()) for name in result.pixels)
    print(f"{kind}: {len(result.pixels)} objects, largest difference {worst} of {LEVELS}")
    assert worst <= 1


def test_the_bundle_serves_the_operator_of_the_sdk_as_it_is(
    archive: Path, bundle: Path, reference: Result, tmp_path: Path
) -> None:
    result = run_app(STOCK_APP, archive, bundle, tmp_path / "out")
    assert sorted(result.pixels) == sorted(reference.pixels), result.log[-5000:]
    worst = max(int(abs(result.pixels[name] - reference.pixels[name]).max()) for name in result.pixels)
    print(f"8 bits: largest difference {worst} of {LEVELS}")
    assert 1 < worst <= STOCK_STEP + 1


def test_the_archive_gives_one_object_for_each_low_energy_image_on_its_grid_and_names_the_others(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "study", tmp_path / "out"
    for folder in ("one_series", "turned", "rest_of_it"):
        shutil.copytree(archive / folder, source / folder)
    result = run_app(APP, source, bundle, output)
    assert result.status == 0, result.log[-5000:]
    named = {"turned/low_virtual_des.dcm", "one_series/LOW_ENERGY_virtual_des", "rest_of_it/FFDM01_virtual_des.dcm"}
    assert set(result.pixels) == named | {"rest_of_it/renamed.copy_virtual_des"}
    left_out = {line.split("left out: ")[1] for line in result.log.splitlines() if "left out: " in line}
    for name, words in {
        "one_series/SUBTRACTED": "subtracted image",
        "one_series/HIGH_ENERGY": "high-energy image",
        "rest_of_it/RAW01.dcm": "image for processing",
        "rest_of_it/TOMO01.dcm": "tomosynthesis",
        "rest_of_it/ULTRA1.dcm": "other object",
    }.items():
        assert [one for one in left_out if one.startswith(f"{source / name}: {words}")], left_out
    low, made = (
        pydicom.dcmread(folder / "turned" / name)
        for folder, name in ((source, "low.dcm"), (output, "low_virtual_des.dcm"))
    )
    for keyword in ("Rows", "Columns", "ImagerPixelSpacing", "PatientOrientation", "StudyInstanceUID", "PatientID"):
        assert made[keyword].value == low[keyword].value
    assert made.ImageType[-1] == "VIRTUAL_DES"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == low.SOPInstanceUID


def test_a_damaged_image_is_named_and_the_others_are_made(archive: Path, bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "study"
    shutil.copytree(archive / "turned", source)
    whole = (source / "low.dcm").read_bytes()
    (source / "cut.dcm").write_bytes(whole[:-3000])
    result = run_app(APP, source, bundle, tmp_path / "out")
    assert (list(result.pixels), result.status) == (["low_virtual_des.dcm"], 1), result.log[-5000:]
    assert f"{source / 'cut.dcm'}: " in result.log


def test_a_study_without_a_low_energy_image_is_an_error_that_says_so(
    archive: Path, bundle: Path, tmp_path: Path
) -> None:
    source = tmp_path / "study"
    source.mkdir()
    shutil.copy(archive / "rest_of_it" / "HE01.dcm", source)
    result = run_app(APP, source, bundle, tmp_path / "out")
    assert (result.pixels, result.status) == ({}, 1)
    assert "no low-energy image and no ordinary mammogram" in result.log
