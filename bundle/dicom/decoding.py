"""From a DICOM file to its stored pixel values, and an error that helps where there are none."""

from __future__ import annotations

import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array as pydicom_pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from bundle.dicom.codestream import StreamSize, is_plain_jpeg, stream_size
from bundle.dicom.header import number, text, values
from bundle.dicom.reading import read_elements
from bundle.image_file_error import ImageFileError
from bundle.limits import MAX_PIXELS

__all__ = ["decoded", "opened", "require_bounded"]

# What pydicom warns about is either repaired, noted or an error here; its filters are shared by all threads.
warnings.filterwarnings("ignore", module=r"pydicom\.")

_UNSUPPORTED = "Convert it to Explicit VR Little Endian with a DICOM tool, or install pylibjpeg-libjpeg (a GPL decoder)"
_DAMAGED = "The file is damaged: copy it again from its source, or leave it out"
_NOT_AN_IMAGE = "Give an image file"
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))
#: Compressions whose code stream ends with the same two bytes: all kinds of JPEG.
_JPEG = "1.2.840.10008.1.2.4."
#: JPEG-LS and JPEG 2000: two thirds and four fifths of the time that the first of pydicom's own order takes.
_QUICKEST = dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pyjpegls")
_QUICKEST |= dict.fromkeys((JPEG2000Lossless, JPEG2000), "pylibjpeg") | {JPEGBaseline8Bit: "pillow"}
_BY_GDCM = frozenset(f"{_JPEG}{number}" for number in (51, 57, 70))
"""Kinds of JPEG that gdcm alone decodes, which ends the process at some damaged streams."""
_END_OF_STREAM = b"\xff\xd9"


def opened(path: Path, pixels: bool = True) -> Dataset:
    """Read a file, also one without the 128 bytes of preamble; with ``pixels=False`` all but its pixel data.

    Raises:
        ImageFileError: absent, not DICOM, or without image.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise ImageFileError(path, "cannot be read: a folder, a pipe or a device", "Give an image file")
    try:
        header = _read(path, stop_before_pixels=not pixels)
    except OSError as error:
        raise ImageFileError(path, f"cannot be read: {error.strerror or error}", "Correct the path") from error
    except Exception as error:  # pydicom raises whatever a damaged file leads to
        raise ImageFileError(path, f"cannot be read as DICOM: {_line(error)}", _DAMAGED) from error
    if "DirectoryRecordSequence" in header:
        raise ImageFileError(path, "a DICOMDIR, which lists images and is none", "Give one of the images it lists")
    return header


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _read(path: Path, stop_before_pixels: bool) -> Dataset:
    try:
        return read_elements(path, stop_before_pixels=stop_before_pixels)
    except InvalidDicomError:
        header = read_elements(path, stop_before_pixels=stop_before_pixels, force=True)
    if "SOPClassUID" not in header and "Rows" not in header:
        size = path.stat().st_size
        raise InvalidDicomError(f"neither preamble nor image attributes found ({size} bytes)")
    if "TransferSyntaxUID" not in header.file_meta:
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return header


def decoded(header: Dataset, path: Path) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The stored values, (H, W) integers without what other bits may hold, and what was noticed.

    Raises:
        ImageFileError: no pixel data, truncated, more than one frame, coloured, or compressed in an unknown way.
    """
    _check(header, path)
    try:
        pixels = _pixel_array(header)
    except MemoryError as error:
        raise ImageFileError(
            path, f"needs more memory than there is: {_line(error)}", "Use a larger machine"
        ) from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the decoders raise whatever they like; one in Rust panics, which is no Exception
        remedy = _UNSUPPORTED if "does not support" in str(error) else _DAMAGED
        raise ImageFileError(path, f"its pixels cannot be decoded: {_line(error)}", remedy) from error
    pixels = _grey(pixels, header, path)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    clean = _used_bits(pixels, header)
    notes: tuple[str, ...] = (
        () if clean is pixels or np.array_equal(clean, pixels) else ("bits above BitsStored were in use: ignored",)
    )
    if _transfer_syntax(header) in _LOSSY or text(header, "LossyImageCompression") == "01":
        notes += ("compressed with loss",)
    return clean, notes


def _pixel_array(header: Dataset) -> NDArray[Any]:
    """The pixels by one of pydicom's decoders: gdcm, which ends the process at some streams, where no other can."""
    syntax = _transfer_syntax(header)
    plugin = _QUICKEST.get(syntax, "")
    if plugin in get_decoder(syntax).available_plugins:
        return pydicom_pixel_array(header, correct_unused_bits=False, decoding_plugin=plugin)
    return pydicom_pixel_array(header, correct_unused_bits=False)


def _transfer_syntax(header: Dataset) -> UID:
    return UID(str(getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID") or ImplicitVRLittleEndian))


def _check(header: Dataset, path: Path) -> None:
    """Refuse what the decoders would answer late, at great cost, or not at all."""
    if not any(values(header, "PixelData")):
        problem, remedy = (
            "no pixel data",
            f"{_NOT_AN_IMAGE}; an image that lacks its end has none either: copy it again",
        )
        raise ImageFileError(path, problem, remedy)
    if (frames := int(number(header, "NumberOfFrames") or 0)) > 1:
        raise ImageFileError(
            path, f"{frames} frames in one file, expected one", "Use the single 2-D views of the study"
        )
    _check_stream(header, path)
    require_bounded(header, path)
    _check_bits(header, path)


def require_bounded(header: Dataset, path: Path) -> None:
    """Refuse an object with pixels that would take more memory than those of any mammogram.

    A table of offsets for single frames is removed: the decoders then take the frames that are looked at here.

    Raises:
        ImageFileError: too many pixels, or compressed ones of another size than the header says.
    """
    names = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")
    rows, columns, samples, frames = (int(number(header, name) or 0) for name in names)
    _require_few(rows, columns, samples or 1, frames or 1, path)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        header.pop(keyword, None)
    if _transfer_syntax(header).startswith(_JPEG):
        for size in _stream_sizes(header, max(1, frames), path):
            if size[:2] != (rows, columns):
                found = f"compressed pixels in {size.rows} rows of {size.columns}, its header says {rows} of {columns}"
                raise ImageFileError(path, found, _DAMAGED)
            _require_few(*size, max(1, frames), path)


def _require_few(rows: int, columns: int, samples: int, frames: int, path: Path) -> None:
    if min(rows, columns, samples, frames) < 1 or rows * columns * samples * frames > MAX_PIXELS:
        more = ((samples, "samples"), (frames, "frames"))
        what = f"{rows} rows of {columns} pixels" + "".join(f", {count} {name}" for count, name in more if count != 1)
        raise ImageFileError(path, f"{what}: expected at least one pixel and at most {MAX_PIXELS}", _DAMAGED)


def _check_bits(header: Dataset, path: Path) -> None:
    allocated, stored, high = _bits(header)
    signed = number(header, "PixelRepresentation")
    if allocated not in (8, 16, 32) or not 1 <= stored <= high + 1 <= allocated or signed not in (0, 1):
        found = f"{allocated} bits allocated, {stored} stored, high bit {high}, PixelRepresentation {signed}"
        raise ImageFileError(path, f"{found}: no grey image", _DAMAGED)


def _bits(header: Dataset) -> tuple[int, int, int]:
    allocated = int(number(header, "BitsAllocated") or 0)
    stored = int(number(header, "BitsStored") or allocated)
    high = number(header, "HighBit")
    return allocated, stored, stored - 1 if high is None else int(high)


def _check_stream(header: Dataset, path: Path) -> None:
    syntax = _transfer_syntax(header)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        known = "Convert it to Explicit VR Little Endian with a DICOM tool"
        raise ImageFileError(path, f"compressed as {syntax.name}, which cannot be decoded", known) from error
    if not decoder.is_available:
        missing = f"compressed as {syntax.name}, for which no decoder is installed"
        raise ImageFileError(path, missing, "Install them: pip install -c constraints.txt .")
    # Behind it there may be a byte of padding and the delimiter of the sequence.
    if syntax.startswith(_JPEG) and _END_OF_STREAM not in header.PixelData[-16:]:
        raise ImageFileError(path, "its compressed pixels lack their end", _DAMAGED)


def _stream_sizes(header: Dataset, frames: int, path: Path) -> list[StreamSize]:
    """The sizes that the compressed frames say they have: the decoders make room for these."""
    try:
        streams = list(islice(generate_frames(header.PixelData, number_of_frames=frames), frames))
    except Exception as error:  # pydicom says what it likes about damaged fragments
        raise ImageFileError(path, f"its compressed pixels are damaged: {_line(error)}", _DAMAGED) from error
    if _transfer_syntax(header) in _BY_GDCM and not all(map(is_plain_jpeg, streams)):
        raise ImageFileError(path, "its compressed pixels are not one whole JPEG scan", _DAMAGED)
    found = [stream_size(one) for one in streams]
    if None in found or not found:
        raise ImageFileError(path, "its compressed pixels do not say how many they are", _DAMAGED)
    return [size for size in found if size is not None]


def _grey(pixels: NDArray[Any], header: Dataset, path: Path) -> NDArray[Any]:
    photometric = text(header, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        raise ImageFileError(path, "a colour image (palette), expected grey values", "Convert it to one grey channel")
    while pixels.ndim > 2 and 1 in (pixels.shape[0], pixels.shape[-1]):
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        if (pixels != pixels[..., :1]).any():
            raise ImageFileError(path, "a colour image, expected grey values", "Convert it to one grey channel")
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        raise ImageFileError(path, f"an array of shape {pixels.shape}, expected one 2-D image", _NOT_AN_IMAGE)
    return pixels


def _fits(pixels: NDArray[Any], bits: int) -> bool:
    """Whether all values are numbers of so many bits; a fifth of the time that cutting the others off takes."""
    if pixels.dtype.kind == "u":
        return int(pixels.max(initial=0)) < 1 << bits
    half = 1 << (bits - 1)
    return -half <= int(pixels.min(initial=0)) and int(pixels.max(initial=0)) < half


def _used_bits(pixels: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """The values of the bits from HighBit down, BitsStored of them; the rest may hold an old overlay, or rubbish."""
    allocated, stored, high = _bits(header)
    width = 8 * pixels.dtype.itemsize
    if stored == width or allocated != width or (high == stored - 1 and _fits(pixels, stored)):
        return pixels
    if _transfer_syntax(header).startswith(_JPEG):
        high = stored - 1  # decoders of code streams give the value itself
    return (pixels << (width - 1 - high)) >> (width - stored)
