from __future__ import annotations

import io
import os
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from bundle.dicom import DicomImage, bright_window_of, read_dicom, window_of
from bundle.dicom import decoding as decoding_module
from bundle.reader import ImageFileError, read_pixels
from tests.archives.dicom_files import save, write_dicom

pytestmark = pytest.mark.filterwarnings("ignore:End of file reached before delimiter")  # cut on purpose
LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
]


def noise(top: int = 4096, shape: tuple[int, int] = (48, 40)) -> NDArray[np.uint16]:
    values: NDArray[np.uint16] = np.random.default_rng(0).integers(0, top, shape).astype(np.uint16)
    values[0, :2] = 0, top - 1
    return values


def breast(shape: tuple[int, int] = (48, 40), top: int = 4000) -> NDArray[np.uint16]:
    """A left breast: bright at the left edge, the rest dark."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    distance = ((rows - shape[0] / 2) / (0.4 * shape[0])) ** 2 + (columns / (0.6 * shape[1])) ** 2
    return np.asarray(np.clip(1.2 - distance, 0, 1) * top, dtype=np.uint16)


def read(path: Path, values: NDArray[Any], **options: Any) -> DicomImage:
    """Write and read."""
    write_dicom(path / "a.dcm", values, **options)
    return read_dicom(path / "a.dcm")


def edit(path: Path, change: Callable[[Dataset], object], values: NDArray[np.uint16] | None = None) -> Path:
    """A file with ``change`` made to its attributes after it was written."""
    write_dicom(path / "a.dcm", breast() if values is None else values)
    dataset = pydicom.dcmread(path / "a.dcm")
    change(dataset)
    dataset.save_as(path / "a.dcm")
    return path / "a.dcm"


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize("top", [2**12, 2**16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda one: one.keyword)
def test_every_lossless_transfer_syntax_gives_the_pixels_back(
    syntax: uid.UID, top: int, monochrome1: bool, tmp_path: Path
) -> None:
    image = read(tmp_path, noise(top), transfer_syntax=syntax, monochrome1=monochrome1)
    np.testing.assert_array_equal(image.values, noise(top))
    assert image.values.dtype == np.dtype(np.uint16)
    assert not any("end" in note or "loss" in note or "bits" in note for note in image.notes)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm"), noise(top).T)


@pytest.mark.parametrize("syntax", [uid.JPEGLSNearLossless, uid.JPEG2000], ids=lambda one: one.keyword)
def test_lossy_compression_is_noted(syntax: uid.UID, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", breast())
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    options: dict[str, Any] = {"jls_error": 3} if syntax == uid.JPEGLSNearLossless else {"j2k_cr": [4]}
    dataset.compress(syntax, **options)
    dataset.save_as(tmp_path / "b.dcm")
    image = read_dicom(tmp_path / "b.dcm")
    assert "compressed with loss" in image.notes
    assert np.abs(image.values.astype(int) - breast()).max() < 60


def test_8_bit_baseline_jpeg_is_read(tmp_path: Path) -> None:
    grey = (breast() >> 4).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "jpeg", quality=95)

    def change(dataset: Dataset) -> None:
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = encapsulate([stream.getvalue() + b"\0" * (len(stream.getvalue()) % 2)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit

    image = read_dicom(edit(tmp_path, change))
    assert np.abs(image.values.astype(int) - grey).max() < 12
    assert image.notes == ("compressed with loss",)


@pytest.mark.skipif(find_spec("libjpeg") is not None, reason="its decoder, which is no dependency, is installed")
def test_12_bit_extended_jpeg_is_refused_with_what_to_do() -> None:
    with pytest.raises(ImageFileError, match=r"does not support 'JPEG Extended'.*Convert it .* or install pylibjpeg"):
        read_dicom(Path(str(get_testdata_file("JPGExtended.dcm"))))


def displayed(image: DicomImage) -> NDArray[np.float64]:
    """Grey levels 0 to 1 that a viewer shows, from what was read."""
    assert image.window is not None
    centre, width = image.window
    return np.clip((image.values.astype(np.float64) - (centre - width / 2)) / width, 0, 1)


def reference(path: Path, show: Callable[..., NDArray[Any]], top: float | None = None) -> NDArray[np.float64]:
    """The same from pydicom's functions: modality, then VOI, then polarity."""
    dataset = pydicom.dcmread(path)
    rescaled = apply_modality_lut(dataset.pixel_array, dataset)
    shown = show(rescaled.astype(int) if show is apply_voi else rescaled, dataset).astype(np.float64)
    full = np.arange(2 ** int(dataset.BitsStored))
    ends = (full - 2 ** (int(dataset.BitsStored) - 1) if dataset.PixelRepresentation else full)[[0, -1]]
    low, high = sorted(ends * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0)))
    low, high = (low, high) if top is None else (0, top)
    scaled = (shown - low) / (high - low)
    return 1 - scaled if dataset.PhotometricInterpretation == "MONOCHROME1" else scaled


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (0.5, 3.25)])
@pytest.mark.parametrize(
    ("function", "centre", "width"), [("LINEAR", 900, 701), ("LINEAR_EXACT", 900.5, 700), ("", 800, 2)]
)
def test_a_window_shows_what_pydicom_shows(
    function: str, centre: float, width: float, slope: float, intercept: float, monochrome1: bool, tmp_path: Path
) -> None:
    attributes = {"VOILUTFunction": function or None, "WindowCenter": centre, "WindowWidth": width}
    rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    image = read(tmp_path, noise(), monochrome1=monochrome1, **attributes, **rescale)
    np.testing.assert_allclose(displayed(image), reference(tmp_path / "a.dcm", apply_windowing), atol=1e-6)
    assert bright_window_of(image.header) == image.window


def test_the_window_of_a_signed_image_shows_what_pydicom_shows(tmp_path: Path) -> None:
    stored = noise().astype(np.int16) - 2048

    def change(dataset: Dataset) -> None:
        dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, "MONOCHROME1"
        dataset.WindowCenter, dataset.WindowWidth = -100, 1500
        dataset.PixelData = (stored & 0x0FFF).astype(np.uint16).tobytes()  # the sign is in bit 11

    image = read_dicom(edit(tmp_path, change))
    np.testing.assert_array_equal(image.values, -1 - stored)
    np.testing.assert_allclose(displayed(image), reference(tmp_path / "a.dcm", apply_windowing), atol=1e-6)


@pytest.mark.parametrize("monochrome1", [False, True])
def test_a_sigmoid_window_is_applied_to_the_values(monochrome1: bool, tmp_path: Path) -> None:
    attributes = {"VOILUTFunction": "SIGMOID", "WindowCenter": 1800, "WindowWidth": 900}
    image = read(tmp_path, noise(), monochrome1=monochrome1, **attributes)
    np.testing.assert_allclose(displayed(image), reference(tmp_path / "a.dcm", apply_windowing), atol=1e-5)
    assert (image.window, "SIGMOID window applied" in image.notes) == ((32767.5, 65535), True)


def table(bits: int, first: int, entries: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [entries, first, bits]
    content = np.sqrt(np.linspace(0, 1, entries)) * (2**bits - 1)
    item.LUTData = content.astype("<u2").tobytes()
    return item


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize(("bits", "first", "entries"), [(12, 0, 4096), (16, 500, 2000), (10, 100, 256)])
def test_a_voi_lut_is_applied_to_the_values(
    bits: int, first: int, entries: int, monochrome1: bool, tmp_path: Path
) -> None:
    lut = {"VOILUTSequence": [table(bits, first, entries)], "WindowCenter": 5, "WindowWidth": 3}
    image = read(tmp_path, noise(), monochrome1=monochrome1, **lut)
    expected = reference(tmp_path / "a.dcm", apply_voi, top=2**bits - 1)
    np.testing.assert_allclose(displayed(image), expected, atol=1e-6)
    assert {"VOI LUT applied", "a window beside the VOI LUT: ignored"} <= set(image.notes)


def test_a_modality_lut_is_applied_before_the_window(tmp_path: Path) -> None:
    item = table(16, 0, 4096)
    item.ModalityLUTType = "US"
    image = read(tmp_path, noise(), ModalityLUTSequence=[item], RescaleSlope=None, RescaleIntercept=None)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.values, apply_modality_lut(dataset.pixel_array, dataset))


def test_an_unusable_voi_lut_is_ignored_with_a_note(tmp_path: Path) -> None:
    short = table(12, 0, 4096)
    short.LUTData = b"123456"
    image = read(tmp_path, noise(), VOILUTSequence=[short], window=(50.0, 20.0))
    np.testing.assert_array_equal(image.values, noise())
    noted = "the VOI LUT cannot be used (3 entries, expected 4096): ignored" in image.notes
    assert (image.window, noted) == ((50, 20), True)


WINDOWS: list[tuple[dict[str, Any], tuple[float, float] | None, str]] = [
    ({"WindowCenter": [100, 200], "WindowWidth": [51, 5]}, (99.5, 50), "2 windows: the first is used"),
    ({"WindowCenter": 100, "WindowWidth": 0}, None, "a window of width 0 shows nothing: ignored"),
    ({"WindowCenter": 100, "WindowWidth": 1}, None, "a window of width 1 shows nothing: ignored"),
    ({"WindowCenter": 100, "WindowWidth": -4, "VOILUTFunction": "LINEAR_EXACT"}, None, "width -4"),
    ({"WindowCenter": 100}, None, "WindowCenter and WindowWidth are not both numbers: ignored"),
    (
        {"WindowCenter": 100, "WindowWidth": 9, "VOILUTFunction": "CUBIC"},
        (99.5, 8),
        "VOILUTFunction is unknown: taken as LINEAR",
    ),
    ({"WindowCenter": 100, "WindowWidth": 9, "VOILUTFunction": "SIGMOID"}, None, "SIGMOID window applied"),
]


@pytest.mark.parametrize(("attributes", "window", "note"), WINDOWS, ids=lambda value: str(value)[:50])
def test_odd_windows_are_ignored_or_repaired_with_a_note(
    attributes: dict[str, Any], window: tuple[float, float] | None, note: str, tmp_path: Path
) -> None:
    image = read(tmp_path, noise(), **attributes)
    assert window_of(image.header) == window
    assert any(note in one for one in image.notes)


def test_a_window_that_is_no_number_is_ignored_with_a_note(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", noise(), window=(1111.0, 22.0))
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content.replace(b"1111", b"what"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = read_dicom(tmp_path / "a.dcm")
    assert image.window is None
    assert "WindowCenter and WindowWidth are not both numbers: ignored" in image.notes


def test_an_inverted_presentation_shape_inverts_and_is_noted(tmp_path: Path) -> None:
    image = read(tmp_path, 4095 - breast(), PresentationLUTShape="INVERSE", WindowCenter=1000, WindowWidth=101)
    np.testing.assert_array_equal(image.values, breast())
    noted = "MONOCHROME2 with PresentationLUTShape INVERSE: inverted" in image.notes
    assert (image.window, noted) == ((4095 - 999.5, 100), True)


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize(("value", "limit"), [(4095, None), (4000, 4095), (4095, 4000)])
def test_padding_gets_the_darkest_value(value: int, limit: int | None, monochrome1: bool, tmp_path: Path) -> None:
    values = np.clip(breast(), 50, 3000).astype(np.uint16)
    written = values.copy()
    written[:, 30:] = 4095
    if limit is not None:
        written[:, 35:] = 4003
    if monochrome1:
        value, limit = 4095 - value, None if limit is None else 4095 - limit
    image = read(tmp_path, written, monochrome1=monochrome1, PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
    values[:, 30:] = values.min()
    np.testing.assert_array_equal(image.values, values)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm"), values.T)


def test_a_mask_whose_background_is_padding_stays_a_mask(tmp_path: Path) -> None:
    mask = (breast() > 2000).astype(np.uint16) * 255
    write_dicom(tmp_path / "a.dcm", mask, PixelPaddingValue=0)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.dcm"), mask.T)


def test_blank_strips_at_the_edges_become_dark(tmp_path: Path) -> None:
    values = breast(top=3000)
    framed = values.copy()
    framed[:, -3:], framed[:2] = 4095, 4095
    image = read(tmp_path, framed, monochrome1=True)
    values[:2] = 0
    np.testing.assert_array_equal(image.values, values)
    assert image.notes == (f"{3 * 48 + 2 * 37} pixels in blank strips at the edges were made dark",)


def test_bits_beyond_the_stored_ones_are_ignored(tmp_path: Path) -> None:
    rubbish = (breast() | (noise(16) << 12)).astype(np.uint16)
    image = read_dicom(edit(tmp_path, lambda dataset: setattr(dataset, "PixelData", rubbish.tobytes())))
    np.testing.assert_array_equal(image.values, breast())
    assert image.notes == ("bits above BitsStored were in use: ignored",)


def test_values_in_the_high_bits_are_brought_down(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        dataset.HighBit, dataset.PixelData = 15, ((breast() << 4) | 5).astype(np.uint16).tobytes()

    np.testing.assert_array_equal(read_dicom(edit(tmp_path, change)).values, breast())


SPACINGS: list[tuple[dict[str, Any], float | None]] = [
    ({}, 0.1),
    ({"EstimatedRadiographicMagnificationFactor": 1.25}, 0.08),
    ({"EstimatedRadiographicMagnificationFactor": 0}, 0.1),
    ({"PixelSpacing": [0.09, 0.09], "EstimatedRadiographicMagnificationFactor": 1.25}, 0.09),
    ({"PixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25}, 0.08),
    ({"PixelSpacing": [0.07, 0.07], "ImagerPixelSpacing": None}, 0.07),
    ({"ImagerPixelSpacing": [0, 0]}, None),
    ({"ImagerPixelSpacing": None, "NominalScannedPixelSpacing": [0.05, 0.05]}, 0.05),
    ({"ImagerPixelSpacing": None}, None),
]


@pytest.mark.parametrize(("attributes", "expected"), SPACINGS, ids=lambda value: str(value)[:60])
def test_the_size_of_a_pixel_is_that_in_the_breast(
    attributes: dict[str, Any], expected: float | None, tmp_path: Path
) -> None:
    found = read(tmp_path, breast(), **attributes).pixel_mm
    assert found == (None if expected is None else pytest.approx(expected))


def colour(dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = np.random.default_rng(0).integers(0, 256, (48, 40, 3)).astype(np.uint8).tobytes()


def frames(dataset: Dataset) -> None:
    dataset.NumberOfFrames, dataset.PixelData = 2, dataset.PixelData * 2


def attributes(**changes: Any) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)

    return change


def directory(dataset: Dataset) -> None:
    dataset.DirectoryRecordSequence = []


REFUSED: dict[str, tuple[Callable[[Dataset], object], str]] = {
    "no pixels": (lambda dataset: delattr(dataset, "PixelData"), "no pixel data"),
    "truncated": (lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:2000]), "cannot be decoded"),
    "colour": (colour, "a colour image"),
    "frames": (frames, "2 frames in one file, expected one"),
    "vast": (attributes(Rows=65535, Columns=65535), "65535 rows of 65535 pixels"),
    "empty": (attributes(Rows=0), "0 rows of 40 pixels"),
    "palette": (attributes(PhotometricInterpretation="PALETTE COLOR"), "a colour image (palette)"),
    "bits": (attributes(BitsStored=17), "17 stored"),
    "one bit": (attributes(BitsAllocated=1, BitsStored=1, HighBit=0), "1 bits allocated"),
    "oblong": (attributes(ImagerPixelSpacing=[0.1, 0.2]), "pixels 0.5 times as high as wide"),
    "aspect": (attributes(ImagerPixelSpacing=None, PixelAspectRatio=[2, 1]), "pixels 2 times as high as wide"),
    "directory": (directory, "a DICOMDIR"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_grey_image_is_refused_with_reason_and_remedy(name: str, tmp_path: Path) -> None:
    change, reason = REFUSED[name]
    path = edit(tmp_path, change)
    tracemalloc.start()
    with pytest.raises(ImageFileError) as error:
        read_dicom(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.value.path == path
    assert reason in error.value.problem
    assert error.value.remedy
    assert peak < 20e6


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless], ids=lambda one: one.keyword)
def test_a_false_size_in_a_compressed_file_costs_no_memory(syntax: uid.UID, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", breast(), transfer_syntax=syntax)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(tmp_path / "a.dcm")
    tracemalloc.start()
    with pytest.raises(ImageFileError):
        read_dicom(tmp_path / "a.dcm")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda one: one.keyword)
def test_a_file_cut_short_is_refused_in_every_transfer_syntax(syntax: uid.UID, share: float, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", noise(), transfer_syntax=syntax)
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageFileError, match=r"a\.dcm"):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize("syntax", [one for one in LOSSLESS if one.is_encapsulated], ids=lambda one: one.keyword)
def test_a_code_stream_cut_short_is_refused(syntax: uid.UID, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", noise(), transfer_syntax=syntax)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    [stream] = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([stream[: len(stream) // 4 * 2]])
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(ImageFileError, match=r"a\.dcm"):
        read_dicom(tmp_path / "a.dcm")


def test_what_is_no_dicom_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("hello " * 100)
    (tmp_path / "empty.dcm").write_bytes(b"")
    for name in ("text.dcm", "empty.dcm", "absent.dcm", "."):
        with pytest.raises(ImageFileError) as error:
            read_dicom(tmp_path / name)
        assert error.value.remedy


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", breast(), transfer_syntax=uid.ImplicitVRLittleEndian)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.preamble = None
    del dataset.file_meta
    dataset.save_as(tmp_path / "b.dcm", implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_dicom(tmp_path / "b.dcm").values, breast())


def test_one_frame_and_grey_stored_as_colour_are_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, breast(), NumberOfFrames=1).values, breast())
    grey = (breast() >> 4).astype(np.uint8)

    def change(dataset: Dataset) -> None:
        colour(dataset)
        dataset.PixelData = np.repeat(grey[..., None], 3, axis=2).tobytes()

    np.testing.assert_array_equal(read_dicom(edit(tmp_path, change)).values, grey)


def test_a_missing_decoder_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(tmp_path / "a.dcm", breast(), transfer_syntax=uid.JPEG2000Lossless)
    monkeypatch.setattr(decoding_module, "get_decoder", lambda _: SimpleNamespace(is_available=False))
    with pytest.raises(ImageFileError, match=r"JPEG 2000.*no decoder is installed\. .*pip install"):
        read_dicom(tmp_path / "a.dcm")


def test_an_unknown_transfer_syntax_is_named(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True

    path = edit(tmp_path, change)
    with pytest.raises(ImageFileError, match="MPEG2"):
        read_dicom(path)


def test_8_bit_values_are_inverted_within_8_bits(tmp_path: Path) -> None:
    grey = (breast() >> 4).astype(np.uint8)
    dataset = write_dicom(tmp_path / "a.dcm", breast(), monochrome1=True, bits=8)
    dataset.BitsAllocated = 8
    save(tmp_path / "b.dcm", dataset, 255 - grey)
    image = read_dicom(tmp_path / "b.dcm")
    np.testing.assert_array_equal(image.values, grey)


@pytest.mark.filterwarnings("ignore")  # pydicom has much to say about it
def test_damage_anywhere_in_a_file_gives_an_image_or_a_named_error(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", breast(), window=(900.0, 500.0))
    content = (tmp_path / "a.dcm").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in random.integers(132, len(content) - 2 * breast().size, 4):
            damaged[place] = random.integers(256)
        (tmp_path / "b.dcm").write_bytes(damaged)
        with suppress(ImageFileError):
            read_dicom(tmp_path / "b.dcm")


class Panic(BaseException):
    """What pylibjpeg-rle, which is written in Rust, raises on some damaged data."""


def test_a_decoder_that_panics_is_a_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(*_: object, **__: object) -> None:
        raise Panic("index out of bounds")

    write_dicom(tmp_path / "a.dcm", noise(), transfer_syntax=uid.RLELossless)
    monkeypatch.setattr(decoding_module, "pydicom_pixel_array", panic)
    with pytest.raises(ImageFileError, match="cannot be decoded: index out of bounds"):
        read_dicom(tmp_path / "a.dcm")


def test_the_header_keeps_everything_but_the_pixels(tmp_path: Path) -> None:
    header = read(tmp_path, breast(), patient_id="P7").header
    assert header.PatientID == "P7"
    assert "PixelData" not in header


@pytest.mark.parametrize("name", ["pipe", "pipe.dcm"])
def test_a_pipe_is_refused_and_never_opened(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ImageFileError, match="a pipe or a device"):
        read_dicom(tmp_path / name)
    with pytest.raises(ImageFileError, match="no regular file"):
        read_pixels(tmp_path / name)
