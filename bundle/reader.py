"""Read one mammogram in any supported format as a (W, H) array."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from monai.config.type_definitions import PathLike
from monai.data.image_reader import ImageReader, ITKReader, NibabelReader, PILReader
from monai.data.utils import is_no_channel
from monai.utils.enums import MetaKeys, SpaceKeys
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from bundle.dicom.decoding import opened
from bundle.dicom.pixels import DicomImage, dicom_image, grey_values
from bundle.dicom.spacing import spacing_of
from bundle.image_file_error import ImageFileError
from bundle.limits import MAX_BYTES, require_bounded
from bundle.mammogram_meta import LATERALITY, MIRRORED, UPSIDE_DOWN, WINDOW
from bundle.memory_order import in_rows
from bundle.volume_header import require_sound_header

__all__ = ["SUFFIXES", "ImageFileError", "MammogramReader", "file_suffix", "read_pixels"]

#: File suffix (lower case, "" = none) -> the library that reads it.
SUFFIXES = MappingProxyType(
    dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"), "pillow")
    | dict.fromkeys((".nii", ".nii.gz"), "nibabel")
    | dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), "itk")
    | dict.fromkeys((".dcm", ".dicom", ".ima", ""), "pydicom")
)
#: What is kept of a file's header: nothing that could name a patient.
_KEPT_META = (
    *(MetaKeys.AFFINE.value, MetaKeys.ORIGINAL_AFFINE.value, MetaKeys.SPACE.value),
    *(LATERALITY, MIRRORED, UPSIDE_DOWN, WINDOW),
)
_BITS, _PHOTOMETRIC = 258, 262
"""Tags of TIFF: BitsPerSample and PhotometricInterpretation."""
_ONE_CHANNEL_MODES = ("L", "I", "F")


class _Loaded(NamedTuple):
    """What ``MammogramReader.read`` hands to ``get_data``: an opened image, or why there is none."""

    path: str
    reader: ImageReader | None
    image: Any
    error: ImageFileError | None


def file_suffix(path: PathLike) -> str:
    """The lower-case suffix by which the reader is chosen; ``.nii.gz`` counts as one.

    A name with an unknown suffix whose content starts as DICOM (as ``1.2.840.10008.1``) counts as having none.
    """
    name = Path(path).name.strip().lower()
    suffix = ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
    return "" if suffix not in SUFFIXES and _is_dicom(path) else suffix


def _is_dicom(path: PathLike) -> bool:
    if _found_at(path) != "file":  # opening a pipe would wait for ever
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _found_at(path: PathLike) -> str:
    """``file``, or what there is else; also of a text that no file can be called."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return "no such file"
    if stat.S_ISDIR(mode):
        return "a folder, expected a file"
    return "file" if stat.S_ISREG(mode) else "no regular file"


class _DicomReader(ImageReader):
    """One DICOM projection image, dense tissue bright, with its spacing and without patient geometry.

    Args:
        as_displayed: with the VOI LUT applied, and with the window and the orientation among the metadata.
    """

    def __init__(self, as_displayed: bool) -> None:
        self.as_displayed = as_displayed

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Chosen by ``MammogramReader`` alone."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> tuple[str, Dataset]:
        """The path and the object."""
        return str(data), opened(Path(str(data)))

    def get_data(self, img: tuple[str, Dataset]) -> tuple[NDArray[Any], dict[str, Any]]:
        """The pixels, (W, H), and the affine: the distance of columns and of rows in mm, or 1."""
        path, header = img
        if self.as_displayed:
            image = dicom_image(header, path)
            return image.values.T, _geometry(header) | _display(image)
        return grey_values(header, path).T, _geometry(header)


def _geometry(header: Dataset) -> dict[str, Any]:
    rows, columns = spacing_of(header) or (1.0, 1.0)
    affine = np.diag([columns, rows, 1.0, 1.0])
    return {MetaKeys.AFFINE: affine, MetaKeys.ORIGINAL_AFFINE: affine.copy(), MetaKeys.SPACE: SpaceKeys.RAS}


def _display(image: DicomImage) -> dict[str, Any]:
    """What ``bundle.mammogram_meta`` describes."""
    meta: dict[str, Any] = {MIRRORED: int(image.mirrored), UPSIDE_DOWN: int(image.upside_down)}
    meta |= {LATERALITY: image.laterality} if image.laterality else {}
    return meta | ({WINDOW: np.asarray(image.window)} if image.window else {})


def _require_all_bits(image: Image.Image) -> None:
    """Refuse what Pillow would change silently: it keeps the upper 8 bits of 16-bit colour."""
    path = getattr(image, "filename", "")
    channels = image.mode in ("RGB", "RGBA", "LA")
    sixteen = max(getattr(image, "tag_v2", {}).get(_BITS, (8,))) > 8
    sixteen |= image.format == "PNG" and any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    if channels and sixteen:
        raise ImageFileError(path, "16-bit colour, of which 8 bits would be lost", "Write it as one grey channel")
    if image.mode in ("I", "F") and _white_is_zero(image):
        remedy = "Write it with 0 as black (BlackIsZero)"
        raise ImageFileError(path, f"a TIFF with 0 as white, in numbers of kind {image.mode}", remedy)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF counts from white to black; Pillow turns only 1 and 8 bits round."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _one_page(image: Image.Image) -> Image.Image:
    """Decode a Pillow image now (a truncated file must fail here) in a mode that holds grey values."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise ValueError(f"{pages} pages in one file, expected one")
    require_bounded(getattr(image, "filename", ""), image.height, image.width, len(image.getbands()))
    _require_all_bits(image)
    image.load()
    if image.mode.startswith("I;16") and _white_is_zero(image):
        return Image.fromarray(2 ** int(image.tag_v2[_BITS][0]) - 1 - np.asarray(image))  # type: ignore[attr-defined]
    if image.mode == "1":
        return image.convert("L")
    if image.mode in _ONE_CHANNEL_MODES or image.mode.startswith("I;16") or image.mode in ("LA", "RGB", "RGBA"):
        return image
    return image.convert("RGB")


def _new_reader(suffix: str, as_displayed: bool) -> ImageReader:
    """A fresh MONAI reader: they keep state between ``read`` and ``get_data``, so threads must not share one."""
    library = SUFFIXES[suffix]
    if library == "pillow":
        return PILReader(converter=_one_page)
    if library == "nibabel":
        return NibabelReader()
    return ITKReader() if library == "itk" else _DicomReader(as_displayed)


def _open(path: str, as_displayed: bool = False) -> _Loaded:
    suffix = file_suffix(path)
    if (found := _found_at(path)) != "file":
        return _Loaded(path, None, None, ImageFileError(path, found, "Correct the path in the datalist"))
    if suffix not in SUFFIXES:
        known = " ".join(name or "(none: DICOM)" for name in SUFFIXES)
        return _Loaded(path, None, None, ImageFileError(path, f"unknown suffix {suffix!r}", f"Use one of {known}"))
    try:
        if SUFFIXES[suffix] == "itk":
            require_sound_header(path)
        reader = _new_reader(suffix, as_displayed)
        image = reader.read(path)
        if SUFFIXES[suffix] == "nibabel":
            _require_bounded_volume(path, image)
        return _Loaded(path, reader, image, None)
    except ImageFileError as error:
        return _Loaded(path, None, None, error)
    except Exception as error:  # the decoders raise whatever they like
        return _Loaded(path, None, None, _unreadable(path, suffix, error))


def _require_bounded_volume(path: str, image: Any) -> None:
    """The values of a NIfTI file are read later; what is skipped before them is unpacked too."""
    require_bounded(path, *image.shape)
    if not 0 <= image.dataobj.offset <= MAX_BYTES:
        raise ImageFileError(path, f"its values begin at byte {image.dataobj.offset}", "Write the image again")


def _unreadable(path: str, suffix: str, error: Exception) -> ImageFileError:
    reason = " ".join(str(error).replace(path, "the file").split())[:160] or type(error).__name__
    size = Path(path).stat().st_size
    return ImageFileError(
        path,
        f"cannot be decoded as {suffix or 'DICOM'} by {SUFFIXES[suffix]} ({size} bytes): {reason}",
        "The file is damaged or not an image: copy it again from its source, or leave the case out",
    )


def _one_channel(path: str, pixels: NDArray[Any], channels_last: bool) -> NDArray[Any]:
    """Bring decoded pixels to (W, H), or raise ``ImageFileError``."""
    if channels_last and pixels.ndim == 3:
        colour = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1]  # the rest is opacity
        if (colour != colour[..., :1]).any():
            raise ImageFileError(path, "a colour image, expected grey values", "Convert it to one grey channel")
        pixels = colour[..., 0]
    while pixels.ndim > 2 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        raise ImageFileError(
            path, f"an array of shape {pixels.shape}, expected one 2-D image", "Write each view into a file of its own"
        )
    return in_rows(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))


def _decoded(loaded: _Loaded) -> tuple[NDArray[Any], dict[str, Any]]:
    if loaded.error is not None or loaded.reader is None:
        raise loaded.error or ImageFileError(loaded.path, "no reader", "Report this as a bug")
    try:
        pixels, header = loaded.reader.get_data(loaded.image)
    except ImageFileError:
        raise
    except Exception as error:
        raise _unreadable(loaded.path, file_suffix(loaded.path), error) from error
    channels_last = not is_no_channel(header.get(MetaKeys.ORIGINAL_CHANNEL_DIM))
    pixels = _one_channel(loaded.path, np.asarray(pixels), channels_last)
    meta = {key: header[key] for key in _KEPT_META if key in header}
    meta[MetaKeys.SPATIAL_SHAPE.value] = np.asarray(pixels.shape)
    meta[MetaKeys.ORIGINAL_CHANNEL_DIM.value] = float("nan")
    return pixels, meta


def read_pixels(path: str | Path) -> NDArray[Any]:
    """The stored grey values of one image file.

    Args:
        path: a file whose suffix is in ``SUFFIXES``.

    Returns:
        (W, H) array in the file's own number type: x to the right first, y downwards second. DICOM files come with
        their modality LUT or rescale slope applied, MONOCHROME1 inverted, so that dense tissue is bright, and padding
        as dark as the darkest pixel; no window is applied.

    Raises:
        ImageFileError: missing, damaged, of an unknown kind, coloured, or not one 2-D image.
    """
    return _decoded(_open(str(path)))[0]


class MammogramReader(ImageReader):
    """MONAI image reader that chooses the library by the file's suffix and always gives one (W, H) image.

    MONAI's automatic choice depends on what is installed (with itk it gives (W, H, 1) for one DICOM file). Use it as
    ``LoadImaged(keys=..., reader="bundle.reader.MammogramReader")``. Trailing axes of size one are dropped, grey
    stored as RGB(A) becomes one channel, 16 bits are kept; the metadata are the affine and the shape only.

    DICOM files come as stored, for data lists that state the window. With ``as_displayed`` they come with their VOI LUT
    or SIGMOID window applied, and a linear window, the laterality and the orientation are in the metadata
    (``bundle.mammogram_meta``): what ``prepare_data.py`` does to a data set's images is then left to the transforms.

    Errors are raised from ``get_data``: ``LoadImage`` answers an error in ``read`` by silently trying other readers.
    """

    def __init__(self, as_displayed: bool = False) -> None:
        self.as_displayed = as_displayed

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether this reader takes the file, or all of the files."""
        names = [filename] if isinstance(filename, (str, os.PathLike)) else filename
        return all(file_suffix(name) in SUFFIXES for name in names)

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> _Loaded:
        """Open one file. ``data`` is a path, or a sequence holding one path."""
        names = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        if len(names) != 1:
            error = ImageFileError(str(names[:1]), f"{len(names)} files for one image, expected one", "Give one path")
            return _Loaded(str(names[:1]), None, None, error)
        return _open(str(names[0]), self.as_displayed)

    def get_data(self, img: _Loaded) -> tuple[NDArray[Any], dict[str, Any]]:
        """The pixels, (W, H), and the metadata of what ``read`` opened.

        Raises:
            ImageFileError: as ``read_pixels``.
        """
        return _decoded(img)
