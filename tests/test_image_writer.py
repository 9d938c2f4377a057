"""The virtual DES is written like its source: format, sample depth, grid, spacing, orientation."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle import image_writer
from bundle.image_writer import WRITABLE_SUFFIXES, split_name, to_samples, write_like_source
from bundle.reader import SUFFIXES, read_pixels

COLUMNS, ROWS = 5, 7


@pytest.fixture
def pred() -> NDArray[np.float32]:
    """(W, H) in 0..255 with values between the 8-bit steps and one bright pixel away from the centre."""
    image = np.linspace(0, 200, COLUMNS * ROWS, dtype=np.float32).reshape(COLUMNS, ROWS)
    image[1, 5] = 255
    return image


def write_source(path: Path, dtype: Any) -> Path:
    """A source file with COLUMNS x ROWS pixels, in the format its suffix names."""
    pixels = np.arange(COLUMNS * ROWS).reshape(ROWS, COLUMNS).astype(dtype)
    if path.name.endswith((".nii", ".nii.gz")):
        affine = np.diag([-0.07, 0.09, 1.0, 1.0])
        affine[:3, 3] = (3, 4, 5)
        nibabel.save(nibabel.Nifti1Image(pixels.T[..., None], affine), path)
    elif path.suffix in {".nrrd", ".nhdr", ".mha", ".mhd"}:
        image = itk.image_from_array(pixels[None])
        image.SetSpacing([0.07, 0.09, 1.5])
        image.SetOrigin([1.0, 2.0, 3.0])
        image.SetDirection(itk.matrix_from_array(np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])))
        itk.imwrite(image, str(path))
    else:
        Image.fromarray(pixels).save(path)
    return path


def expected_samples(pred: NDArray[np.float32], dtype: Any) -> NDArray[Any]:
    if np.dtype(dtype).kind == "f":
        return pred / 255
    top = 255 if np.dtype(dtype).itemsize == 1 else 65535
    return np.floor(pred.astype(np.float64) / 255 * top + 0.5)


@pytest.mark.parametrize(
    ("suffix", "dtype", "written"),
    [
        (".png", np.uint8, np.uint8),
        (".png", np.uint16, np.uint16),
        (".bmp", np.uint8, np.uint8),
        (".tif", np.uint8, np.uint8),
        (".tiff", np.uint16, np.uint16),
        (".tif", np.float32, np.float32),
        (".nii", np.uint8, np.uint8),
        (".nii.gz", np.int16, np.uint16),
        (".nii.gz", np.float32, np.float32),
        (".nrrd", np.uint8, np.uint8),
        (".nrrd", np.uint16, np.uint16),
        (".nhdr", np.uint16, np.uint16),
        (".mha", np.int16, np.uint16),
        (".mhd", np.float64, np.float32),
    ],
)
def test_the_bundle_reader_reads_back_the_prediction_in_the_depth_of_the_source(
    tmp_path: Path, pred: NDArray[np.float32], suffix: str, dtype: Any, written: Any
) -> None:
    source, target = write_source(tmp_path / f"in{suffix}", dtype), tmp_path / "deep" / "er" / f"out{suffix}"
    write_like_source(pred, source, target)
    found = read_pixels(target)
    assert found.dtype == written
    np.testing.assert_allclose(found, expected_samples(pred, dtype), atol=1e-6)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_a_jpeg_is_close_to_the_prediction(tmp_path: Path, suffix: str) -> None:
    source = write_source(tmp_path / f"in{suffix}", np.uint8)
    smooth = np.linspace(20, 220, COLUMNS * ROWS, dtype=np.float32).reshape(COLUMNS, ROWS)
    write_like_source(smooth, source, tmp_path / f"out{suffix}")
    assert np.abs(read_pixels(tmp_path / f"out{suffix}").astype(float) - smooth).max() < 8


def test_every_suffix_of_the_reader_but_dicom_can_be_written() -> None:
    assert set(SUFFIXES) - set(WRITABLE_SUFFIXES) == {".dcm", ".dicom", ".ima", ""}


def test_nifti_keeps_shape_and_affine_and_drops_free_text(tmp_path: Path, pred: NDArray[np.float32]) -> None:
    source = write_source(tmp_path / "in.nii.gz", np.int16)
    image: Any = nibabel.load(source)
    image.header["descrip"] = b"Jane Doe"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nibabel.save(image, source)
    write_like_source(pred, source, tmp_path / "out.nii.gz")
    result: Any = nibabel.load(tmp_path / "out.nii.gz")
    assert result.shape == (COLUMNS, ROWS, 1)
    np.testing.assert_array_equal(result.affine, image.affine)
    assert not result.header.extensions
    assert result.header["descrip"].item() == b"virtual DES"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_itk_formats_keep_spacing_origin_and_direction(tmp_path: Path, pred: NDArray[np.float32], suffix: str) -> None:
    source = write_source(tmp_path / f"in{suffix}", np.uint16)
    write_like_source(pred, source, tmp_path / f"out{suffix}")
    before, after = itk.imread(str(source)), itk.imread(str(tmp_path / f"out{suffix}"))
    for get in ("GetSpacing", "GetOrigin"):
        np.testing.assert_allclose(np.asarray(getattr(after, get)()), np.asarray(getattr(before, get)()))
    np.testing.assert_array_equal(
        itk.array_from_matrix(after.GetDirection()), itk.array_from_matrix(before.GetDirection())
    )
    assert itk.size(after) == itk.size(before)


def test_a_png_keeps_the_resolution_and_the_side_that_is_up(tmp_path: Path, pred: NDArray[np.float32]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((ROWS, COLUMNS), np.uint8)).save(tmp_path / "in.png", dpi=(300, 300), exif=exif)
    write_like_source(pred, tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert image.getexif()[0x0112] == 6


def test_colour_sources_give_one_grey_channel(tmp_path: Path, pred: NDArray[np.float32]) -> None:
    Image.fromarray(np.zeros((ROWS, COLUMNS, 3), np.uint8)).save(tmp_path / "in.png")
    write_like_source(pred, tmp_path / "in.png", tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == "L"


def test_values_outside_the_range_are_clipped() -> None:
    outside = np.array([[-3.0, 300.0]], np.float32)
    assert to_samples(outside, np.uint8).tolist() == [[0, 255]]
    assert to_samples(outside, np.int16).tolist() == [[0, 65535]]
    assert to_samples(outside, np.float64).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        to_samples(np.array([[value]], np.float32), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".nii.gz", ".mha"])
def test_a_prediction_on_another_grid_is_refused_and_nothing_is_left(
    tmp_path: Path, pred: NDArray[np.float32], suffix: str
) -> None:
    source = write_source(tmp_path / f"in{suffix}", np.uint8)
    with pytest.raises(ValueError, match=r"7 columns x 5 rows but the source has 5 x 7.*Invertd"):
        write_like_source(np.ascontiguousarray(pred.T), source, tmp_path / "out" / f"x{suffix}")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_source_that_itk_cannot_read_is_named_so(tmp_path: Path, pred: NDArray[np.float32]) -> None:
    (tmp_path / "in.mha").write_text("not an image")
    with pytest.raises(ValueError, match="itk finds no reader"):
        write_like_source(pred, tmp_path / "in.mha", tmp_path / "out.mha")


def test_dicom_cannot_be_written(tmp_path: Path, pred: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=r"'\.dcm' cannot be written; expected \.png"):
        write_like_source(pred, tmp_path / "a.dcm", tmp_path / "b.dcm")


def test_a_writer_that_dies_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, pred: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_pred: NDArray[np.float32], _source: Path, target: Path) -> None:
        target.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    source, target = write_source(tmp_path / "in.png", np.uint8), tmp_path / "out.png"
    target.write_bytes(b"before")
    monkeypatch.setitem(image_writer.FORMAT_WRITERS, "pillow", half)
    with pytest.raises(OSError, match="No space left"):
        write_like_source(pred, source, target)
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path, pred: NDArray[np.float32]) -> None:
    source = write_source(tmp_path / "in.mhd", np.uint8)
    (tmp_path / ".out.mhd.partial").mkdir()
    (tmp_path / ".out.mhd.partial" / "out.zraw").write_bytes(b"half")
    write_like_source(pred, source, tmp_path / "out.mhd")
    np.testing.assert_array_equal(read_pixels(tmp_path / "out.mhd"), np.rint(pred))
    assert not (tmp_path / ".out.mhd.partial").exists()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.1.nii.gz", ("a.1", ".nii.gz")),
        ("B.PNG", ("B", ".PNG")),
        ("P1 .jpg", ("P1 ", ".jpg")),
        ("1.2.tif", ("1.2", ".tif")),
    ],
)
def test_file_names_are_split_before_the_suffix_that_names_the_format(name: str, parts: tuple[str, str]) -> None:
    assert split_name(Path(name)) == parts


def test_a_full_disk_is_told_with_the_name_of_the_file(
    tmp_path: Path, pred: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(image_writer.FORMAT_WRITERS, "pillow", no_room)
    target = tmp_path / "b.png"
    with pytest.raises(OSError, match=r"b\.png cannot be written: No space left on device"):
        write_like_source(pred, tmp_path / "a.png", target)
    assert list(tmp_path.iterdir()) == []
