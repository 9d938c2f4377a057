"""Valid DICOM mammograms as lists of encoded elements, which can be changed without any library objecting."""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

__all__ = ["SYNTAXES", "Element", "File", "base", "encoded", "item", "sequence"]

SYNTAXES = (
    *(ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian),
    *(RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEG2000, JPEGBaseline8Bit, JPEGLosslessSV1),
)
_LONG = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV")
UNDEFINED = 0xFFFFFFFF
_MAGIC = b"\0" * 128 + b"DICM"


@dataclass(frozen=True)
class Element:
    """One element; ``length`` is what is written as such, by default that of the value."""

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None


@dataclass(frozen=True)
class File:
    """A DICOM file in parts; ``start`` is preamble and magic word."""

    meta: tuple[Element, ...]
    elements: tuple[Element, ...]
    syntax: UID
    start: bytes = _MAGIC

    def with_element(self, new: Element) -> File:
        """The file with an element in place of the one with its tag, or added."""
        others = [one for one in self.elements if one.tag != new.tag]
        return replace(self, elements=tuple(sorted([*others, new], key=lambda one: one.tag)))


def encoded(elements: Iterable[Element], explicit: bool = True, order: str = "little") -> bytes:
    """The bytes of elements in one of the uncompressed transfer syntaxes."""
    parts = []
    for one in elements:
        length = len(one.value) if one.length is None else one.length
        side: Any = order
        parts += [(one.tag >> 16).to_bytes(2, side), (one.tag & 0xFFFF).to_bytes(2, side)]
        if explicit and one.vr in _LONG:
            parts += [one.vr, b"\0\0", length.to_bytes(4, side)]
        elif explicit:
            parts += [one.vr, (length & 0xFFFF).to_bytes(2, side)]
        else:
            parts.append(length.to_bytes(4, side))
        parts.append(one.value)
    return b"".join(parts)


def item(content: bytes, undefined: bool = False) -> bytes:
    """An item of a sequence, little endian."""
    if undefined:
        return b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + content + b"\xfe\xff\x0d\xe0\0\0\0\0"
    return b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content


def sequence(tag: int, items: Iterable[bytes], undefined: bool = False) -> Element:
    """A sequence of encoded items, little endian."""
    content = b"".join(item(one, undefined) for one in items)
    if undefined:
        return Element(tag, b"SQ", content + b"\xfe\xff\xdd\xe0\0\0\0\0", UNDEFINED)
    return Element(tag, b"SQ", content)


def whole(file: File) -> bytes:
    """The bytes of the file."""
    explicit, order = file.syntax != ImplicitVRLittleEndian, "big" if file.syntax == ExplicitVRBigEndian else "little"
    body = encoded(file.elements, explicit, order)
    if file.syntax == DeflatedExplicitVRLittleEndian:
        squeeze = zlib.compressobj(wbits=-15)
        body = squeeze.compress(body) + squeeze.flush()
    meta = encoded(file.meta)
    return file.start + encoded([Element(0x00020000, b"UL", len(meta).to_bytes(4, "little"))]) + meta + body


def _pixels(bits: int) -> NDArray[Any]:
    """A breast at the left edge, (40, 36)."""
    y, x = np.mgrid[:40, :36]
    inside = (x / 26) ** 2 + ((y - 20) / 18) ** 2 < 1
    values = np.where(inside, 2 ** (bits - 2) + 3 * x + 5 * y, 0)
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def _header(subtracted: bool, bits: int) -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.Modality = "1.2.840.10008.5.1.4.1.1.1.2", "MG"
    header.SOPInstanceUID, header.StudyInstanceUID = f"1.2.3.4.{1 + subtracted}", "1.2.3.4"
    header.SeriesInstanceUID = f"1.2.3.4.5.{1 + subtracted}"
    header.PatientID, header.PatientName, header.PatientBirthDate = "P1", "Doe^Jane", "19600101"
    header.StudyDate = header.AcquisitionDate = header.ContentDate = "20240102"
    header.StudyTime, header.AcquisitionTime, header.ContentTime = "101400", "101500", "101600"
    kind = "SUBTRACTION\\" if subtracted else "\\LOW_ENERGY"
    header.ImageType = f"DERIVED\\PRIMARY\\POST_CONTRAST\\{kind}".split("\\")
    header.Manufacturer, header.ManufacturerModelName = "HOLOGIC, Inc.", "Selenia"
    header.PresentationIntentType, header.KVP, header.BodyPartExamined = "FOR PRESENTATION", 29, "BREAST"
    header.ImageLaterality, header.ViewPosition, header.PatientOrientation = "L", "MLO", ["A", "FR"]
    header.ImagerPixelSpacing, header.PixelPaddingValue = [0.1, 0.1], 0
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
    header.Rows, header.Columns, header.BitsAllocated = 40, 36, 8 if bits == 8 else 16
    header.BitsStored, header.HighBit = bits, bits - 1
    header.WindowCenter, header.WindowWidth, header.VOILUTFunction = 2000, 1000, "LINEAR"
    header.RescaleIntercept, header.RescaleSlope, header.RescaleType = 0, 1, "US"
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID, header.file_meta.MediaStorageSOPInstanceUID = UID("1.2"), UID("1.2.3")
    return header


def _written(header: Dataset, bits: int, syntax: UID) -> bytes:
    values = _pixels(bits)
    header.file_meta.TransferSyntaxUID = syntax if not syntax.is_encapsulated else UID(ExplicitVRLittleEndian)
    header.PixelData = values.tobytes() if syntax != ExplicitVRBigEndian else values.astype(">u2").tobytes()
    header["PixelData"].VR = "OW"
    if syntax == JPEGBaseline8Bit:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "JPEG")
        header.PixelData, header.file_meta.TransferSyntaxUID = encapsulate([stream.getvalue()]), syntax
        header["PixelData"].VR, header["PixelData"].is_undefined_length = "OB", True
    elif syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEG2000):
        more: dict[str, Any] = {"j2k_cr": [4]} if syntax == JPEG2000 else {}
        header.compress(syntax, generate_instance_uid=False, **more)
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=True)
    return _lossless_jpeg(out.getvalue()) if syntax == JPEGLosslessSV1 else out.getvalue()


def _lossless_jpeg(content: bytes) -> bytes:
    """The same object with its pixels in JPEG lossless, which pydicom cannot write."""
    import gdcm  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.dcm")
        path.write_bytes(content)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.Write()
        return path.read_bytes()


@cache
def base(syntax: UID, subtracted: bool = False) -> File:
    """A valid mammogram in one of ``SYNTAXES``."""
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    header = pydicom.dcmread(io.BytesIO(_written(_header(subtracted, bits), bits, syntax)))
    meta = tuple(_raw(header.file_meta, 0x00020000 + element) for element in (1, 2, 3, 0x10))
    elements = [_raw(header, tag) for tag in sorted(map(int, header.keys()))]
    if syntax.is_encapsulated:
        stream = get_frame(header.PixelData, 0, number_of_frames=1)
        pixels = item(b"") + item(stream) + b"\xfe\xff\xdd\xe0\0\0\0\0"
        elements[-1] = Element(0x7FE00010, b"OB", pixels, UNDEFINED)
    return File(meta, tuple(elements), syntax)


def _raw(header: Dataset, tag: int) -> Element:
    """An element as it stands in the file."""
    found: Any = header.get_item(tag)
    if isinstance(found, RawDataElement):
        return Element(tag, str(found.VR or dictionary_VR(tag)).encode(), found.value or b"")
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_data_element(buffer, header[tag])
    return Element(tag, str(header[tag].VR).encode(), buffer.getvalue()[8:])
