"""Image files that would take all memory, end the process or hang are refused with their name."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from bundle.dicom import decoding
from bundle.dicom.codestream import is_plain_jpeg, stream_size
from bundle.dicom.reading import read_elements
from bundle.image_file_error import ImageFileError
from bundle.limits import MAX_BYTES, MAX_PIXELS, require_bounded_zip
from bundle.reader import read_pixels
from scripts.fuzzing.dicom_elements import Element, base, encoded, whole
from scripts.fuzzing.inputs_dicom import _patched_size
from scripts.prepare.direction import direction_of
from scripts.prepare.segmentation import Drawing, LesionMask

ROWS, COLUMNS, PIXELS = 0x00280010, 0x00280011, 0x7FE00010
META = "NDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
NRRD = "NRRD0004\ntype: uchar\ndimension: 2\nsizes: 4 4\nencoding: raw\n\n"


def read_pixels_of(path: Path, content: bytes) -> NDArray[Any]:
    path.write_bytes(content)
    return read_pixels(path)


def refused(path: Path, content: bytes) -> ImageFileError:
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=path.name) as error:
        read_pixels(path)
    return error.value


def test_a_dicom_header_that_claims_too_many_pixels_is_refused_with_the_limit(tmp_path: Path) -> None:
    file = base(RLELossless)
    for tag in (ROWS, COLUMNS):
        file = file.with_element(Element(tag, b"US", b"\xff\xff"))
    assert str(MAX_PIXELS) in refused(tmp_path / "a.dcm", whole(file)).problem
    many_samples = base(RLELossless).with_element(Element(0x00280002, b"US", b"\xff\xff"))
    many_samples = many_samples.with_element(Element(ROWS, b"US", b"\xff\x7f"))
    assert str(MAX_PIXELS) in refused(tmp_path / "b.dcm", whole(many_samples)).problem


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit], ids=lambda one: one.name)
def test_compressed_pixels_of_another_size_than_the_header_says_are_never_decoded(
    syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "pydicom_pixel_array", lambda *_, **__: pytest.fail("decoded"))
    file = base(syntax)
    pixels = file.elements[-1]
    content = whole(file.with_element(replace(pixels, value=_patched_size(pixels.value, 60_000, 60_000))))
    assert "60000 rows of 60000" in refused(tmp_path / "a.dcm", content).problem


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path) -> None:
    file = base(DeflatedExplicitVRLittleEndian)
    squeeze = zlib.compressobj(9, wbits=-15)
    start = squeeze.compress(encoded([*file.elements[:-1], Element(PIXELS, b"OW", b"", 2 * MAX_BYTES)]))
    zeros = b"".join(squeeze.compress(bytes(2**24)) for _ in range(2 + MAX_BYTES // 2**24))
    content = whole(replace(file, elements=()))[:-2] + start + zeros + squeeze.flush()
    assert len(content) < MAX_BYTES / 500
    assert f"more than {MAX_BYTES} bytes" in refused(tmp_path / "a.dcm", content).problem
    with pytest.raises(ImageFileError, match="mask"):  # segmentations have a way of their own
        LesionMask((Drawing(tmp_path / "a.dcm", "mask", (1,)),), "1.2.3").read((4, 4))


def test_an_element_that_claims_gigabytes_is_read_to_the_end_of_the_file_only(tmp_path: Path) -> None:
    file = base(RLELossless).with_element(Element(0x00104000, b"LT", b"x", 5))
    (tmp_path / "a.dcm").write_bytes(whole(file).replace(b"LT\x05\0", b"UT\0\0\xf0\xff\xff\x7f"))
    read_elements(tmp_path / "a.dcm", force=True)


def test_the_size_is_found_behind_other_segments_and_in_boxes() -> None:
    frame = b"\xff\xc3\x00\x0b\x10\x00\x07\x00\x05\x01\x01\x11\x00"
    assert stream_size(b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff" + frame) == (7, 5, 1)
    siz = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + struct.pack(">8I", 9, 8, 2, 1, 9, 8, 0, 0) + b"\x00\x01"
    assert stream_size(b"\0\0\0\x0cjP  " + siz) == (7, 7, 1)
    for nothing in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", siz[:20], b"\xff\xd8\xff\xe0\x00\x00" * 3):
        assert stream_size(nothing) is None


def test_a_damaged_jpeg_at_which_gdcm_ends_the_process_never_reaches_it(tmp_path: Path) -> None:
    file = base(JPEGLosslessSV1)
    pixels = file.elements[-1]
    assert read_pixels_of(tmp_path / "sound.dcm", whole(file)).max() > 0
    scan = pixels.value.find(b"\xff\xda")
    gap = pixels.value[:scan] + b"\xa9" * 34 + pixels.value[scan:]
    twice = pixels.value[:scan] + pixels.value[scan : scan + 10] + pixels.value[scan:]
    for number, value in enumerate((gap, twice)):
        size = len(value) - 24  # of the one fragment, behind the empty table of offsets
        content = value[:12] + size.to_bytes(4, "little") + value[16:]
        error = refused(tmp_path / f"{number}.dcm", whole(file.with_element(replace(pixels, value=content))))
        assert "JPEG" in error.problem


@pytest.mark.parametrize("kind", [b"OB", b"ZZ", b"O\xff"])
def test_an_element_of_pixels_without_value_or_kind_is_no_pixel_data(kind: bytes, tmp_path: Path) -> None:
    empty = base(JPEGBaseline8Bit).with_element(Element(PIXELS, kind, b""))
    assert refused(tmp_path / "a.dcm", whole(empty)).problem == "no pixel data"


def test_only_one_whole_scan_is_a_plain_jpeg() -> None:
    frame, scan, end = b"\xff\xc3\x00\x04ab", b"\xff\xda\x00\x03cv\xff\x00w\xff\xd0", b"\xff\xd9"
    assert is_plain_jpeg(b"\xff\xd8" + frame + scan + end + b"\0")
    wrong = (frame + frame + scan + end, scan + end, frame + scan, frame + b"x" + scan + end, frame + scan + scan + end)
    assert not any(is_plain_jpeg(b"\xff\xd8" + one) for one in (*wrong, frame + b"\xff" + scan + end, b""))


def test_a_png_that_claims_too_many_pixels_is_refused_before_its_values_are_unpacked(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 16, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    assert str(MAX_PIXELS) in refused(tmp_path / "a.png", content).problem


@pytest.mark.parametrize("place", ["sides", "offset"])
def test_a_nifti_file_that_claims_too_much_is_refused(place: str, tmp_path: Path) -> None:
    header = bytearray(nibabel.Nifti1Image(np.zeros((4, 4, 1), np.int16), np.eye(4)).to_bytes())
    if place == "sides":
        struct.pack_into("<4h", header, 40, 2, 32_000, 32_000, 1)
    else:
        struct.pack_into("<f", header, 108, 1e12)
    assert refused(tmp_path / "a.nii.gz", gzip.compress(bytes(header))).remedy


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mhd", META.replace("NDims = 2", "NDims = -2")),
        ("a.mhd", META.replace("4 4", "100000 100000")),
        ("a.mhd", META.replace("4 4", "4 4 4")),
        ("a.mhd", META.replace("LOCAL", "a%s%n.raw 1 9 1")),
        ("a.mhd", META.replace("LOCAL", "../secret.raw")),
        ("a.mhd", META.replace("LOCAL", "/etc/passwd")),
        ("a.mhd", META.replace("LOCAL", "LIST")),
        ("a.mhd", "NRRD0004\n" + META.replace("NDims = 2", "NDims = -2")),
        ("a.mha", "Comment = " + "x" * 5000 + "\n" + META),
        ("a.mha", "TransformMatrix = 1 0 0\n" + META),
        ("a.mha", META.replace("MET_UCHAR", "MET_STRING")),
        ("a.nrrd", NRRD.replace("4 4", "100000 100000")),
        ("a.nrrd", NRRD.replace("dimension: 2", "dimension: 99999999999999999999")),
        ("a.nrrd", NRRD.replace("uchar", "block")),
        ("a.nhdr", NRRD.replace("raw\n", "raw\ndata file: /etc/passwd\n")),
        ("a.nhdr", NRRD.replace("raw\n", "raw\ndata file: LIST\n")),
        ("a.nhdr", NRRD.replace("raw\n", "raw\ndata file: a%03d.raw 1 9 1\n")),
    ],
)
def test_headers_at_which_itk_ends_the_process_or_reads_elsewhere_never_reach_it(
    name: str, header: str, tmp_path: Path
) -> None:
    refused(tmp_path / name, header.encode() + bytes(16))
    with pytest.raises(ImageFileError, match=name):
        direction_of(tmp_path / name)


def test_sound_headers_of_both_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(range(16)))
    texts = {"a.mha": META, "a.nrrd": NRRD, "b.mhd": META.replace("LOCAL", "a.raw")}
    texts["b.nhdr"] = NRRD.replace("raw\n", "raw\ndata file: a.raw\n")
    for name, text in texts.items():
        inside = b"" if name.startswith("b") else bytes(range(16))
        (tmp_path / name).write_bytes(text.encode() + inside)
        assert read_pixels(tmp_path / name)[1, 0] == 1, name


def test_a_zip_of_zeros_is_known_by_its_directory(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(2**20))
    require_bounded_zip(tmp_path / "a.zip", 2**20)
    with pytest.raises(ValueError, match=r"a\.zip unpacks to 1048576 bytes, expected at most 999"):
        require_bounded_zip(tmp_path / "a.zip", 999)
