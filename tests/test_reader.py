from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
import tifffile
from monai.transforms.compose import Compose
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.utility.dictionary import EnsureChannelFirstd
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from bundle.reader import ImageFileError, MammogramReader, read_pixels

MARKED = np.zeros((5, 7), dtype=np.uint16)  # (W, H)
MARKED[1, 6] = 40000


def write_dicom(path: Path, pixels: NDArray[np.uint16], photometric: str = "MONOCHROME2") -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Columns, dataset.Rows = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = photometric
    dataset.ImagerPixelSpacing = [0.2, 0.1]
    dataset.PixelData = pixels.T.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def write_image(path: Path, pixels: NDArray[np.uint16]) -> None:
    if path.suffix in (".png", ".tif"):
        Image.fromarray(pixels.T).save(path)
    elif path.name.endswith((".nii", ".nii.gz")):
        nibabel.Nifti1Image(pixels[..., None], np.eye(4)).to_filename(path)
    elif path.suffix in (".nrrd", ".mha"):
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(pixels.T)), str(path))
    else:
        write_dicom(path, pixels)


NAMES = ["a.png", "a.tif", "a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.dcm", "no_suffix", "1.2.840.1"]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_16_bit_pixels_with_x_first(name: str, tmp_path: Path) -> None:
    write_image(tmp_path / name, MARKED)
    pixels = read_pixels(tmp_path / name)
    np.testing.assert_array_equal(pixels, MARKED)
    assert pixels.dtype.itemsize == 2


@pytest.mark.parametrize("name", NAMES)
def test_load_image_gives_one_channel_of_the_same_pixels(name: str, tmp_path: Path) -> None:
    write_image(tmp_path / name, MARKED)
    load = Compose([LoadImaged("image", reader="bundle.reader.MammogramReader"), EnsureChannelFirstd("image")])
    image = load({"image": str(tmp_path / name)})["image"]
    assert image.shape == (1, 5, 7)
    np.testing.assert_array_equal(image[0].numpy(), MARKED)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_grey_stored_otherwise_becomes_one_channel(mode: str, tmp_path: Path) -> None:
    grey = np.zeros((6, 4), dtype=np.uint8)
    grey[2, 3] = 255
    Image.fromarray(grey).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), grey.T)


def test_monochrome1_is_inverted_so_that_dense_tissue_is_bright(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", (65535 - MARKED).astype(np.uint16), "MONOCHROME1")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm"), MARKED)


def test_pixel_spacing_of_a_projection_becomes_the_affine(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", MARKED)
    affine = LoadImaged("image", reader=MammogramReader)({"image": str(tmp_path / "a.dcm")})["image"].affine
    np.testing.assert_allclose(np.diag(affine.numpy()), [0.1, 0.2, 1, 1])
    assert np.count_nonzero(affine.numpy()) == 4


def colour(path: Path) -> None:
    Image.fromarray(np.stack([np.eye(9, dtype=np.uint8) * n for n in (1, 2, 3)], -1)).save(path)


def truncated(path: Path) -> None:
    write_image(path, np.random.default_rng(0).integers(0, 9999, (64, 64)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:4000])


def two_pages(path: Path) -> None:
    page = Image.fromarray(MARKED.T)
    page.save(path, save_all=True, append_images=[page])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "colour.png": (colour, "a colour image, expected grey values"),
    "truncated.png": (truncated, "cannot be decoded as .png by pillow"),
    "text.png": (lambda path: path.write_text("hello"), "cannot be decoded as .png"),
    "text.dcm": (lambda path: path.write_text("hello"), "cannot be read as DICOM"),
    "text.nrrd": (lambda path: path.write_text("hello"), "cannot be decoded as .nrrd by itk"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "0 bytes"),
    "pages.tif": (two_pages, "2 pages in one file"),
    "volume.nii": (lambda path: nibabel.Nifti1Image(np.ones((4, 4, 3)), np.eye(4)).to_filename(path), "(4, 4, 3)"),
    "notes.txt": (lambda path: path.write_text("hello"), "unknown suffix '.txt'"),
    "folder.png": (lambda path: path.mkdir(), "a folder, expected a file"),
    "absent.png": (lambda _: None, "no such file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unusable_file_is_named_with_reason_and_remedy(name: str, tmp_path: Path) -> None:
    write, reason = BROKEN[name]
    write(tmp_path / name)
    with pytest.raises(ImageFileError) as error:
        read_pixels(tmp_path / name)
    assert error.value.path == tmp_path / name
    assert reason in error.value.problem
    assert error.value.remedy


@pytest.mark.parametrize("name", ["colour.png", "truncated.png", "volume.nii", "notes.txt"])
def test_load_image_raises_our_error_and_tries_no_other_reader(name: str, tmp_path: Path) -> None:
    BROKEN[name][0](tmp_path / name)
    load = LoadImaged("image", reader="bundle.reader.MammogramReader")
    with pytest.raises(ImageFileError, match=name):
        load({"image": str(tmp_path / name)})


def test_one_reader_serves_one_file_only(tmp_path: Path) -> None:
    reader = MammogramReader()
    assert reader.verify_suffix([tmp_path / "a.png", "b.NRRD"])
    assert not reader.verify_suffix(tmp_path / "a.txt")
    with pytest.raises(ImageFileError, match="2 files for one image"):
        reader.get_data(reader.read(["a.png", "b.png"]))


def test_real_dicom_and_jpeg_files_are_read(shared_data: Path) -> None:
    film = read_pixels(shared_data / "cbis-ddsm-dicom" / "1-280.dcm")
    assert (film.shape, film.dtype) == ((2624, 4736), np.dtype(np.uint16))
    grey_as_rgb = next((shared_data / "cdd-cesm-originals").rglob("P3_L_DM_MLO.jpg"))
    assert read_pixels(grey_as_rgb).shape == (1671, 2549)


def png_of_16_bits(path: Path, pixels: NDArray[np.uint16], kind: int) -> None:
    """A PNG of 16-bit channels, (H, W, channels), which Pillow cannot write; 2 is RGB, 4 grey and alpha, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_is_refused_for_pillow_would_keep_8_bits(channels: int, tmp_path: Path) -> None:
    grey = np.repeat(MARKED.T[..., None], channels, axis=-1)
    png_of_16_bits(tmp_path / "a.png", grey, {2: 4, 3: 2, 4: 6}[channels])
    files = [tmp_path / "a.png"]
    if channels == 3:
        files += [tmp_path / "a.tif", tmp_path / "planes.tif"]
        tifffile.imwrite(files[1], grey, photometric="rgb")
        tifffile.imwrite(files[2], np.moveaxis(grey, -1, 0), photometric="rgb", planarconfig="separate")
    for file in files:
        with pytest.raises(ImageFileError, match="16-bit colour") as error:
            read_pixels(file)
        assert error.value.path == file
        assert error.value.remedy == "Write it as one grey channel"


@pytest.mark.parametrize("number", [np.uint8, np.uint16])
def test_a_tiff_that_counts_from_white_is_turned_round(number: Any, tmp_path: Path) -> None:
    values: NDArray[Any] = np.arange(35).reshape(5, 7).astype(number)
    stored = np.iinfo(number).max - values
    tifffile.imwrite(tmp_path / "a.tif", stored.T, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "b.tif", values.T, photometric="minisblack")
    for name in ("a.tif", "b.tif"):
        pixels = read_pixels(tmp_path / name)
        np.testing.assert_array_equal(pixels, values)
        assert pixels.dtype == number


def test_a_tiff_that_counts_from_white_in_floats_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", MARKED.T.astype(np.float32), photometric="miniswhite")
    with pytest.raises(ImageFileError):
        read_pixels(tmp_path / "a.tif")
