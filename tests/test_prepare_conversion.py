from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle.reader import ImageFileError, read_pixels
from scripts.prepare.conversion import Case, RefusedError, Settings, converted
from scripts.prepare.registration import Alignment
from scripts.prepare.sources import DicomImageFile, DicomInPlace, FileImage, FileMask, report_name
from scripts.prepare.stored import storing
from scripts.prepare.view import LeftOut, Pixels, View
from scripts.prepare.workers import prepare
from tests.archives.pairs import SHAPE, Made, breast, lesion, write, write_dicom
from tests.archives.phantom import phantom_pairs

NATIVE = Settings(Path("unused"), size=None)


def made(image: NDArray[Any], label: NDArray[Any], /, **about: Any) -> View:
    view = View(
        "P0_L_CC", "P0", "L", "CC", Made(Path("a/le.png"), Pixels(image)), Made(Path("a/des.png"), Pixels(label))
    )
    return replace(view, **about)


def case_of(view: View, settings: Settings = NATIVE) -> Case:
    return converted(view, settings)[0]


def refusal(view: View, settings: Settings = NATIVE) -> LeftOut:
    with pytest.raises(RefusedError) as caught:
        converted(view, settings)
    return caught.value.left_out


def write_format(path: Path, pixels: NDArray[np.uint16]) -> None:
    if path.name.endswith(".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(pixels.T.astype(np.int16), np.diag([0.1, 0.1, 1, 1])), path)
    elif path.suffix in (".nrrd", ".mha"):
        itk.imwrite(itk.image_from_array(pixels), str(path))
    elif path.suffix == ".dcm":
        write_dicom(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


FORMATS = (".png", ".tif", ".nii.gz", ".nrrd", ".mha", ".dcm")


@pytest.mark.parametrize("suffix", FORMATS)
def test_native_16_bit_values_of_every_format_are_written_as_they_are(suffix: str, tmp_path: Path) -> None:
    image, label = breast(0)
    for name, pixels in (("le", image), ("des", label)):
        write_format(tmp_path / f"{name}{suffix}", pixels)
    view = made(image, label, image=FileImage(tmp_path / f"le{suffix}"), label=FileImage(tmp_path / f"des{suffix}"))
    prepare(view, Settings(tmp_path / "out", None))
    for part, pixels in (("LE", image), ("DES", label)):
        written = np.asarray(Image.open(tmp_path / "out" / part / "P0_L_CC.png"))
        assert written.dtype == np.uint16
        np.testing.assert_array_equal(written, pixels)


@pytest.mark.parametrize("suffix", [*FORMATS, ".jpg"])
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:0], lambda data: b"x" * len(data)]
)
def test_a_damaged_file_of_every_format_is_refused_by_name(
    suffix: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    image, label = breast(0)
    file = tmp_path / f"le{suffix}"
    write_format(file, (image // 16).astype(np.uint8) if suffix == ".jpg" else image)
    file.write_bytes(damage(file.read_bytes()))
    left_out = refusal(made(image, label, image=FileImage(file)))
    assert left_out.name == "P0_L_CC"
    assert left_out.file == str(file)
    assert left_out.reason.startswith("LE: ")
    assert left_out.remedy


def test_8_bit_values_are_spread_over_16_bits_with_their_full_range_as_window() -> None:
    image, label = ((one // 16).astype(np.uint8) for one in breast(0))
    case = case_of(made(image, label))
    np.testing.assert_array_equal(case.pixels["image"], image.astype(int) * 257)
    assert case.entry["image_window"] == [127.5 * 257, 255 * 257]
    view = made(image, label, label=Made(Path("des"), Pixels(label, window=(100.0, 50.0))))
    assert case_of(view).entry["label_window"] == [100 * 257, 50 * 257]


@pytest.mark.parametrize(
    "change", [lambda v: v - 2000.0, lambda v: v / 4000.0, lambda v: v * 1e6, lambda v: v.astype(np.int32) - 5]
)
def test_other_values_are_mapped_with_their_window_and_the_way_back_is_kept(
    change: Callable[[NDArray[Any]], NDArray[Any]],
) -> None:
    image, label = breast(0)
    source = change(image.astype(np.float64))
    limits = change(np.array([2000.0, 3000.0]))
    window = (float(limits.mean()), float(limits[1] - limits[0]))
    case = case_of(made(image, label, image=Made(Path("le"), Pixels(source, window))))
    slope, intercept = case.entry["info"]["image_rescale"]
    assert case.pixels["image"].dtype == np.uint16
    np.testing.assert_allclose(case.pixels["image"] * slope + intercept, source, atol=slope / 2 * 1.001)
    centre, width = case.entry["image_window"]
    np.testing.assert_allclose(np.array([centre - width / 2, centre + width / 2]) * slope + intercept, limits)
    assert "image_rescale" not in case_of(made(image, label)).entry.get("info", {})


def test_whole_numbers_beyond_the_range_keep_their_steps() -> None:
    values = np.array([[-1000, 3000], [0, 5]], dtype=np.int16)
    assert storing(values).values(values).tolist() == [[0, 4000], [1000, 1005]]
    assert storing(values).back() == [1.0, -1000.0]


def test_mirrored_and_upside_down_sources_come_out_upright() -> None:
    image, label = breast(0)
    upright = case_of(made(image, label, mask=_Given(lesion())))
    turned = made(
        image,
        label,
        image=Made(Path("le"), Pixels(image[:, ::-1], mirrored=True)),
        label=Made(Path("des"), Pixels(label[::-1, ::-1], mirrored=True, upside_down=True)),
        mask=_Given(lesion()[:, ::-1]),
        label_mask=_Given(lesion()[::-1, ::-1]),
    )
    case = case_of(turned)
    for key in ("image", "label", "mask"):
        np.testing.assert_array_equal(case.pixels[key], upright.pixels[key])
    np.testing.assert_array_equal(case.pixels["label_mask"], upright.pixels["mask"])


@dataclass(frozen=True)
class _Given:
    mask: NDArray[np.bool_]
    paths: tuple[Path, ...] = ()

    def read(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        assert shape == SHAPE
        return self.mask


def test_the_size_is_that_of_the_longer_side_and_the_aspect_stays() -> None:
    image, label = breast(0)
    view = made(image, label, mask=_Given(lesion()), image=Made(Path("le"), Pixels(image, pixel_mm=0.1)))
    case = case_of(view, replace(NATIVE, size=36))
    assert {key: pixels.shape for key, pixels in case.pixels.items()} == dict.fromkeys(
        ("image", "label", "mask"), (36, 30)
    )
    assert case.entry["info"] == {"pixel_mm": pytest.approx(0.1 * 48 / 36, abs=1e-6)}
    inside = case.pixels["image"][10:26, 2:16].mean()
    assert inside == pytest.approx(image[14:34, 3:21].mean(), rel=0.02)


def test_a_des_with_another_frame_is_brought_onto_the_grid_of_the_le() -> None:
    pair = phantom_pairs(1, 192)[0]
    drawn = np.zeros(pair.label.shape, dtype=np.bool_)
    drawn[90:110, 30:50] = True
    frame = ((12, 4), (0, 8))  # the same pixels 12 rows further down
    view = made(pair.image, np.pad(pair.label, frame), label_mask=Shaped(np.pad(drawn, frame)))
    case = case_of(view)
    assert case.facts["registered"]
    assert case.facts["overlap_after"] > 0.9 > case.facts["overlap_before"]
    assert case.facts["shift_y"] == pytest.approx(-12, abs=3)
    assert case.pixels["label"].shape == case.pixels["image"].shape
    assert np.abs(np.subtract(case.pixels["image"].shape, pair.image.shape)).max() <= 3
    drawn = drawn[tuple(slice(start, start + length) for start, length in _cut(case))]
    overlap = (case.pixels["label_mask"] & drawn).sum() / (case.pixels["label_mask"] | drawn).sum()
    assert overlap > 0.7


def _cut(case: Case) -> list[tuple[int, int]]:
    """First row or column of the LE that was written, and how many of them."""
    starts = (max(0, math.ceil(case.facts[key] - 0.5)) for key in ("shift_y", "shift_x"))
    return list(zip(starts, case.pixels["image"].shape, strict=True))


def test_what_only_one_of_the_two_images_shows_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    aligned = Alignment(1.0, 0.0, 6.0, 0.92, 0.99, registered=True)
    monkeypatch.setattr("scripts.prepare.conversion.align", lambda *_: aligned)
    image, label = breast(0)
    lesions = [np.zeros(SHAPE, dtype=np.bool_) for _ in range(2)]
    lesions[0][2:4, 20:30] = lesions[0][20:30, 10:20] = lesions[1][20:30, 10:20] = True
    view = made(image, label[6:, :-3], mask=Shaped(lesions[0]), label_mask=Shaped(lesions[1][6:, :-3]))
    case = case_of(view)
    assert (case.facts["shift_x"], case.facts["shift_y"], case.facts["scale"]) == (0, 6, 1)
    np.testing.assert_array_equal(case.pixels["image"], image[6:, :-3])
    np.testing.assert_array_equal(case.pixels["label"], label[6:, :-3])
    np.testing.assert_array_equal(case.pixels["mask"], lesions[1][6:, :-3])
    assert (case.facts["image_width"], case.facts["width"]) == (SHAPE[1], SHAPE[1] - 3)


def test_images_of_different_parts_are_refused_with_their_overlap() -> None:
    image, label = breast(0)
    half = np.where(np.indices(SHAPE)[0] < 24, label, 0).astype(np.uint16)
    left_out = refusal(made(image, half))
    assert re.search(r"DES: the breasts in LE and DES overlap by 0\.\d{3}, expected at least 0\.9", left_out.reason)
    assert "--min-overlap" in left_out.remedy


@dataclass(frozen=True)
class Shaped:
    mask: NDArray[np.bool_]
    paths: tuple[Path, ...] = ()

    def read(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        assert shape == self.mask.shape
        return self.mask


def test_masks_without_a_lesion_are_no_masks_unless_the_other_has_one() -> None:
    image, label = breast(0)
    empty = np.zeros(SHAPE, dtype=np.bool_)
    assert "mask" not in case_of(made(image, label, mask=_Given(empty), label_mask=_Given(empty))).entry
    case = case_of(made(image, label, mask=_Given(empty), label_mask=_Given(lesion())))
    assert not case.pixels["mask"].any()
    assert case.pixels["label_mask"].any()


def _with(image: NDArray[Any], value: float) -> NDArray[Any]:
    changed = image.astype(np.float32)
    changed[3, 4] = value
    return changed


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda image: np.full_like(image, 7), "every pixel is 7, an empty image"),
        (lambda image: _with(image, np.nan), "holds NaN or infinite values"),
        (lambda image: _with(image, np.inf), "holds NaN or infinite values"),
        (lambda image: image[:4], "40x4 pixels, expected at least 8 a side"),
        (lambda image: image[None], "pixels, expected"),
    ],
)
def test_an_image_without_content_is_refused(spoil: Callable[[Any], Any], reason: str) -> None:
    image, label = breast(0)
    for left_out in (refusal(made(spoil(image), label)), refusal(made(image, spoil(label)))):
        assert reason in left_out.reason
        assert left_out.remedy


def test_one_image_as_le_and_des_is_refused() -> None:
    image, _ = breast(0)
    assert "same pixels as the LE" in refusal(made(image, image.copy())).reason


def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    image, label = breast(0)
    grey = np.where(lesion(), np.uint8(255), np.uint8(3))
    grey[0] = 0
    for name, pixels, reason in (
        ("small", lesion()[:-1], "a mask of 40x47 pixels, its image has 40x48"),
        ("grey", grey, "not a binary mask (values from 0 to 255"),
    ):
        file = write(tmp_path / f"{name}.png", pixels)
        left_out = refusal(made(image, label, mask=FileMask(file)))
        assert left_out.file == str(file)
        assert left_out.reason == f"mask: {reason}" or left_out.reason.startswith(f"mask: {reason}")
    np.testing.assert_array_equal(FileMask(write(tmp_path / "good.png", lesion())).read(SHAPE), lesion())


def test_whatever_a_decoder_raises_is_a_refusal_that_hides_the_path() -> None:
    image, label = breast(0)

    @dataclass(frozen=True)
    class Failing:
        path: Path = Path("/archive/DOE^JANE/1.dcm")

        def read(self) -> Pixels:
            raise KeyError(f"no tag in {self.path}")

    left_out = refusal(made(image, label, image=Failing()))
    assert "KeyError" in left_out.reason
    assert left_out.file == "1.dcm"
    assert "DOE" not in f"{left_out}"


def test_reports_name_the_file_as_its_source_says() -> None:
    assert report_name(FileImage(Path("/a/b.png"))) == "/a/b.png"
    for kind in (FileImage, FileMask, DicomInPlace, DicomImageFile):
        assert report_name(kind(Path("/a/b.png"), shown="a/b.png")) == "a/b.png"
    assert report_name(Made(Path("/a/b.png"), Pixels(np.zeros((2, 2))))) == "b.png"
    assert report_name(_Given(lesion())) == ""


def test_pixel_distances_come_from_the_formats_that_know_them(tmp_path: Path) -> None:
    image, _ = breast(0)
    for suffix, expected in ((".png", None), (".nii.gz", 0.1), (".nrrd", None)):
        write_format(tmp_path / f"le{suffix}", image)
        assert FileImage(tmp_path / f"le{suffix}").read().pixel_mm == expected
    write_dicom(tmp_path / "le.dcm", image, ImagerPixelSpacing=[0.07, 0.07])
    assert FileImage(tmp_path / "le.dcm").read().pixel_mm == 0.07


@pytest.mark.parametrize("inverse", [False, True])
def test_the_window_of_a_dicom_that_stays_fits_the_values_that_training_reads(inverse: bool, tmp_path: Path) -> None:
    image, _ = breast(0)
    stored = 4095 - image if inverse else image
    attributes = {"PhotometricInterpretation": "MONOCHROME1" if inverse else "MONOCHROME2"}
    # LINEAR_EXACT, stored values 1095 to 2095 or, counted from the other end, 2000 to 3000
    centre = 1595 if inverse else 2500
    write_dicom(
        tmp_path / "le.dcm", stored, **attributes, WindowCenter=centre, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT"
    )
    found = DicomInPlace(tmp_path / "le.dcm").read()
    assert found.window == pytest.approx((2500, 1000))
    np.testing.assert_array_equal(found.values, read_pixels(tmp_path / "le.dcm").T)
    np.testing.assert_array_equal(found.values, image)
    assert DicomInPlace(tmp_path / "le.dcm", (1.0, 2.0)).read().window == (1.0, 2.0)


def test_facts_describe_the_case() -> None:
    image, label = breast(0)
    about = {"label": "malignant", "density": "C", "age": np.int64(50)}
    view = made(
        image, label, mask=_Given(lesion()), info=about, image=Made(Path("le"), Pixels(image, (3000.0, 2000.0)))
    )
    case = case_of(view)
    facts = case.facts
    assert list(facts)[:7] == ["name", "patient_id", "laterality", "view", "label", "density", "vendor"]
    assert (facts["label"], facts["density"], facts["vendor"]) == ("malignant", "C", "")
    assert (facts["image_width"], facts["image_height"], facts["width"], facts["height"]) == (40, 48, 40, 48)
    assert (facts["mask_pixels"], facts["mask_regions"], facts["label_mask_pixels"]) == (42, 2, 0)
    area = int((image > 0).sum())
    assert facts["mask_percent"] == pytest.approx(100 * 42 / area, rel=0.1)
    assert len(facts["image_histogram"]) == len(facts["label_histogram"]) == 64
    assert sum(facts["image_histogram"]) == pytest.approx(area, rel=0.1)
    assert (facts["image_window"], facts["label_window"]) == ([3000, 2000], None)
    assert (facts["registered"], facts["scale"], facts["overlap_after"]) == (False, 1.0, 1.0)
    assert facts["image_digest"] != facts["label_digest"]
    assert case.entry["info"] == {"label": "malignant", "density": "C", "age": 50}


def test_images_that_stay_are_described_and_only_named(tmp_path: Path) -> None:
    image, label = breast(0)
    view = made(
        image,
        label,
        image=FileImage(write(tmp_path / "le.png", (image // 16).astype(np.uint8))),
        label=FileImage(write(tmp_path / "des.png", label)),
        mask=FileMask(write(tmp_path / "mask.png", lesion())),
    )
    case = case_of(view, Settings(tmp_path, in_place=True, min_overlap=0))
    assert case.pixels == {}
    assert case.entry == {
        "image": "le.png",
        "label": "des.png",
        "mask": "mask.png",
        "patient_id": "P0",
        "laterality": "L",
        "view": "CC",
        "image_window": [127.5, 255.0],
    }
    larger = replace(view, label=FileImage(write(tmp_path / "larger.png", np.pad(label, 4))))
    left_out = refusal(larger, Settings(tmp_path, in_place=True, min_overlap=0))
    assert "different sizes: 40x48 and 48x56 pixels" in left_out.reason
    assert "--size" in left_out.remedy
    turned = replace(view, image=Made(tmp_path / "le.png", Pixels(image, mirrored=True)))
    assert "--size" in refusal(turned, Settings(tmp_path, in_place=True, min_overlap=0)).remedy


def test_a_file_is_decoded_by_the_readers_rules(tmp_path: Path) -> None:
    colour = np.zeros((20, 20, 3), dtype=np.uint8)
    colour[..., 0] = 9
    with pytest.raises(ImageFileError, match="colour"):
        FileImage(write(tmp_path / "colour.png", colour)).read()
