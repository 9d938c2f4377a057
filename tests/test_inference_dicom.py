"""configs/inference.json on DICOM archives and real files: a virtual DES for each low-energy image, none for others."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from torch import nn

from bundle.dicom import Kind
from bundle.networks import ResnetGenerator
from tests.archives.dicom_files import TAGS, write_dicom
from tests.archives.phantom import phantom_pairs
from tests.conftest import ROOT
from tests.dciodvfy import dicom_errors
from tests.workflow import workflow

WIDTH, HEIGHT = 50, 70


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), path)
    return path


@pytest.fixture
def infer(weights: Path, tmp_path: Path) -> Callable[..., dict[str, dict[str, str]]]:
    """Run configs/inference.json on a folder, and return its report by image and the exit code under ``""``."""

    def run(source: Path, output: Path | None = None, **options: Any) -> Any:
        output = output or tmp_path / "out"
        paths = {"bundle_root": str(ROOT), "dataset_dir": str(source), "output_dir": str(output)}
        small = {"network_def#width": 4, "network_def#blocks": 1, "image_size": 32, "device": "cpu"}
        settings: dict[str, Any] = {**paths, **small, "model_path": str(weights), **options}
        made = workflow("inference.json", kind="infer", **settings)
        code = 0
        try:
            made.run()
        except SystemExit as stop:
            code = int(stop.code or 0)
        with (output / "report.csv").open(newline="", encoding="utf-8") as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
        return {**rows, "": {"code": str(code)}}

    return run


@pytest.mark.parametrize("style", sorted(TAGS))
def test_an_archive_of_any_vendor_gives_one_object_for_each_low_energy_image_and_names_the_others(
    style: Any, tmp_path: Path, infer: Callable[..., Any]
) -> None:
    source = tmp_path / "archive"
    for number, pair in enumerate(phantom_pairs(2, 64)):
        how: dict[str, Any] = {"style": style, "laterality": pair.laterality, "view": pair.view}
        how["patient_id"] = f"PAT{pair.patient}"
        write_dicom(source / f"{number}/le", pair.image, monochrome1=number % 2 == 0, **how)
        write_dicom(source / f"{number}/he.dcm", pair.image, kind=Kind.HIGH_ENERGY, **how)
        write_dicom(source / f"{number}/rec.dcm", pair.label, kind=Kind.SUBTRACTED, window=(2105, 380), **how)
    rows = infer(source)
    images = {name: row for name, row in rows.items() if name}
    assert {name for name, row in images.items() if row["status"] == "done"} == {n for n in images if "le" in n}
    refused = {name: row["reason"] for name, row in images.items() if row["status"] == "refused"}
    assert {reason.split(":")[0] for name, reason in refused.items() if "he" in name} == {"high-energy image"}
    assert {reason.split(":")[0] for name, reason in refused.items() if "rec" in name} == {"subtracted image"}
    assert len(refused) == 2 * len(images) // 3
    assert rows[""]["code"] == "0"
    written = sorted(
        path
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and path.name not in {"report.csv", ".output.lock"}
    )
    assert len(written) == len(images) // 3
    for path in written:
        assert dicom_errors(path) == []
        made = pydicom.dcmread(path)
        original = pydicom.dcmread(source / path.relative_to(tmp_path / "out").with_name("le"))
        assert (made.Rows, made.Columns) == (original.Rows, original.Columns)
        for keyword in ("PatientID", "StudyInstanceUID", "ImagerPixelSpacing", "ImageLaterality", "PatientOrientation"):
            assert made[keyword].value == original[keyword].value
        assert list(made.ImageType) == ["DERIVED", "SECONDARY", "", "", "", "VIRTUAL_DES"]
        assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID


def test_a_folder_of_refused_images_alone_ends_with_exit_code_1(tmp_path: Path, infer: Callable[..., Any]) -> None:
    write_dicom(tmp_path / "in" / "a.dcm", phantom_pairs(1, 64)[0].label, kind=Kind.SUBTRACTED)
    rows = infer(tmp_path / "in")
    assert (rows["a.dcm"]["status"], rows[""]["code"]) == ("refused", "1")
    rows = infer(tmp_path / "in", accepted_kinds=["subtracted image"])
    assert (rows["a.dcm"]["status"], rows[""]["code"]) == ("done", "0")


class Copy(nn.Module):
    """Stands for the generator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize("laterality", ["L", "R"])
@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize("orientation", [None, ["P", "L"], ["A", "FR"], ["P", "HL"]])
def test_a_bright_dot_of_the_source_lies_on_the_same_pixel_of_the_object(
    laterality: str, monochrome1: bool, orientation: list[str] | None, tmp_path: Path, monkeypatch: Any,
    infer: Callable[..., Any],
) -> None:  # fmt: skip
    monkeypatch.setattr(ResnetGenerator, "forward", Copy.forward)
    values = np.full((HEIGHT, WIDTH), 400, np.uint16)
    values[10:60, 5:40] = 900
    row, column = 23, 31
    values[row - 2 : row + 3, column - 2 : column + 3] = 3000
    how: dict[str, Any] = {} if orientation is None else {"PatientOrientation": orientation}
    write_dicom(tmp_path / "in" / "le.dcm", values, laterality=laterality, monochrome1=monochrome1, **how)
    infer(tmp_path / "in", image_size=128)
    pixels = pydicom.dcmread(tmp_path / "out" / "le_virtual_des.dcm").pixel_array
    assert pixels.shape == values.shape
    centre = np.argwhere(pixels > 0.9 * pixels.max()).mean(axis=0)
    np.testing.assert_allclose(centre, (row, column), atol=0.3)
    assert pixels.max() > 0.95 * 4095


@pytest.mark.parametrize("size", ["native", 64])
def test_native_size_copies_every_pixel_of_every_shape(
    size: Any, tmp_path: Path, monkeypatch: Any, infer: Callable[..., Any]
) -> None:
    monkeypatch.setattr(ResnetGenerator, "forward", Copy.forward)
    rng = np.random.default_rng(0)
    sources = {}
    for name, shape in {"a": (70, 50), "b": (33, 61), "c": (17, 18)}.items():
        sources[name] = rng.integers(0, 4096, shape).astype(np.uint16)
        sources[name].flat[:2] = 0, 4095
        write_dicom(tmp_path / "in" / f"{name}.dcm", sources[name], laterality="R")
    infer(tmp_path / "in", image_size=size)
    errors = [
        np.abs(pydicom.dcmread(tmp_path / "out" / f"{name}_virtual_des.dcm").pixel_array.astype(int) - values).max()
        for name, values in sources.items()
    ]
    assert max(errors) <= 1 if size == "native" else max(errors) > 1


def test_the_window_of_a_file_is_that_of_its_training_case(
    tmp_path: Path, monkeypatch: Any, infer: Callable[..., Any]
) -> None:
    monkeypatch.setattr(ResnetGenerator, "forward", Copy.forward)
    values = np.linspace(0, 4095, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    write_dicom(tmp_path / "in" / "le.dcm", values, window=(2000, 1000))
    infer(tmp_path / "in", image_size="native")
    found = pydicom.dcmread(tmp_path / "out" / "le_virtual_des.dcm").pixel_array
    expected = (np.clip(values, 1500, 2500) - 1500.0) / 1000 * 4095
    np.testing.assert_allclose(found, expected, atol=1)


def test_two_hundred_files_with_forty_broken_ones_give_160_results_and_name_the_40(
    tmp_path: Path, infer: Callable[..., Any]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    pair = phantom_pairs(1, 64)[0]
    for number in range(160):
        if number % 2:
            write_dicom(source / f"{number:03d}.dcm", pair.image, patient_id=f"P{number}")
        else:
            Image.fromarray(pair.image).save(source / f"{number:03d}.png")
    whole_png, whole_dicom = (source / "000.png").read_bytes(), (source / "001.dcm").read_bytes()
    damages: list[Callable[[], tuple[str, bytes]]] = [
        lambda: (".png", whole_png[: len(whole_png) // 2]),
        lambda: (".png", b""),
        lambda: (".png", b"text"),
        lambda: (".jpg", whole_png[:50]),
        lambda: (".dcm", whole_dicom[: len(whole_dicom) - 3000]),
        lambda: (".dcm", whole_dicom[:200]),
        lambda: (".dcm", bytes(128) + b"DICM"),
        lambda: (".dcm", b"no dicom at all"),
        lambda: (".nii.gz", b"\x1f\x8b broken"),
        lambda: (".mha", b"ObjectType = Image\nNDims = 2\n"),
    ]
    for number in range(40):
        suffix, content = damages[number % len(damages)]()
        (source / f"broken_{number:02d}{suffix}").write_bytes(content)
    rows = infer(source)
    failed = {name for name, row in rows.items() if row.get("status") == "failed"}
    assert failed == {path.name for path in source.glob("broken_*")}
    assert all(rows[name]["reason"] for name in failed)
    assert sum(row.get("status") == "done" for row in rows.values()) == 160
    assert rows[""]["code"] == "1"
    written = [path.name for path in (tmp_path / "out").iterdir() if path.name != ".output.lock"]
    assert len(written) == 161
    again = infer(source)
    assert sum(row.get("status") == "skipped" for row in again.values()) == 160


def test_other_low_energy_file_names_of_public_data_sets_are_told_from_the_others(
    tmp_path: Path, infer: Callable[..., Any]
) -> None:
    picture = Image.fromarray(phantom_pairs(1, 64)[0].image.astype(np.uint8))
    expected = {
        "LE/P1_L_CC.png": "done",
        "DES/P1_L_CC.png": "refused",
        "mask/P1_L_CC.png": "refused",
        "Low energy images of CDD-CESM/P1_L_DM_MLO.jpg": "done",
        "Subtracted images of CDD-CESM/P1_L_CM_MLO.jpg": "refused",
        "P1_R_CM_CC.jpg": "refused",
        "Low Energy/P1_22_RCC_LOW_ENERGY.png": "done",
        "Recombined/P1_22_RCC_RECOMBINED.png": "refused",
        "images des patientes/description.png": "done",
    }
    for name in expected:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "in" / name)
    assert {name: row["status"] for name, row in infer(tmp_path / "in").items() if name} == expected
    assert infer(tmp_path / "in" / "DES", tmp_path / "other")["P1_L_CC.png"]["status"] == "refused"


def test_real_film_and_full_size_images_give_one_result_each_and_the_subtracted_ones_none(
    shared_data: Path, tmp_path: Path, infer: Callable[..., Any]
) -> None:
    source = tmp_path / "in"
    shutil.copytree(shared_data / "cbis-ddsm-dicom", source / "film", symlinks=False)
    originals = source / "originals"
    shutil.copytree(shared_data / "cdd-cesm-originals", originals)
    rows = {name: row for name, row in infer(source).items() if name}
    done = {name for name, row in rows.items() if row["status"] == "done"}
    assert done == {name for name in rows if name.endswith(".dcm") or "_DM_" in name}
    assert {row["status"] for name, row in rows.items() if name not in done} == {"refused"}
    for name in done:
        output = tmp_path / "out" / rows[name]["output"]
        if output.suffix == ".dcm":
            assert dicom_errors(output) == []
            made, original = pydicom.dcmread(output), pydicom.dcmread(source / name)
            assert made.pixel_array.shape == (original.Rows, original.Columns)
            assert "Secondary Capture" in rows[name]["reason"]
        else:
            with Image.open(output) as after, Image.open(source / name) as before:
                assert after.size == before.size
