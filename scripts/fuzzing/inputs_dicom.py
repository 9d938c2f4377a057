"""Inputs for the readers of DICOM files: valid mammograms with hostile elements, pixels, encodings and bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from scripts.fuzzing.dicom_elements import SYNTAXES, UNDEFINED, Element, File, base, encoded, item, sequence, whole
from scripts.fuzzing.mutations import NUMBERS, TEXTS, damaged, some_bytes
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_PIXELS: tuple[str, ...] = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
)
_PIXELS += ("PlanarConfiguration", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit")
_VALUES: tuple[str, ...] = (
    "WindowCenter",
    "WindowWidth",
    "RescaleSlope",
    "RescaleIntercept",
    "KVP",
    "PixelAspectRatio",
)
_VALUES += ("ImagerPixelSpacing", "PixelSpacing", "EstimatedRadiographicMagnificationFactor", "BodyPartThickness")
_VALUES += ("SeriesNumber", "InstanceNumber", "AcquisitionNumber", "LossyImageCompressionRatio")
_WORDS: tuple[str, ...] = (
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "VOILUTFunction",
    "PatientOrientation",
    "ViewPosition",
)
_WORDS += ("ImageLaterality", "Laterality", "FrameLaterality", "ImageType", "Modality", "SpecificCharacterSet")
_WORDS += ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_WORDS += ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientAge", "StudyDate", "StudyTime")
_WORDS += ("AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ContentTime", "IrradiationEventUID")
_WORDS += ("SeriesDescription", "ProtocolName", "ImageComments", "DerivationDescription", "Manufacturer")
_WORDS += ("AcquisitionDeviceProcessingCode", "AcquisitionDeviceProcessingDescription", "StudyDescription")
_SEQUENCES: tuple[str, ...] = ("ModalityLUTSequence", "VOILUTSequence", "ViewCodeSequence", "AnatomicRegionSequence")
_SEQUENCES += ("ViewModifierCodeSequence", "SharedFunctionalGroupsSequence", "SourceImageSequence", "SegmentSequence")
_SEQUENCES += ("DirectoryRecordSequence", "FrameAnatomySequence", "ReferencedSeriesSequence", "IconImageSequence")
_VRS: tuple[bytes, ...] = (
    b"US",
    b"SS",
    b"UL",
    b"IS",
    b"DS",
    b"CS",
    b"LO",
    b"UI",
    b"PN",
    b"DA",
    b"TM",
    b"DT",
    b"AT",
    b"FD",
    b"SQ",
)
_VRS += (b"OB", b"OW", b"UN", b"UT", b"AS", b"SH", b"ZZ", b"\0\0")
_BINARY = {b"US": 2, b"SS": 2, b"UL": 4, b"SL": 4, b"FD": 8, b"FL": 4, b"AT": 4}
_CHARSETS = ("ISO_IR 100", "ISO_IR 192", "ISO 2022 IR 87", "GB18030", "utf-8", "rot13", "\\ISO 2022 IR 149", "x" * 80)
_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.1.1.13.1.3", "1.2", "")
_OTHER_SYNTAXES = ("", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.203", "1.2.3")


def _tag(keyword: str) -> tuple[int, bytes]:
    tag = tag_for_keyword(keyword) or 0
    return tag, dictionary_VR(tag).split(" ", maxsplit=1)[0].encode()


@st.composite
def _hostile_value(draw: st.DrawFn, vr: bytes) -> bytes:
    """A value for a VR: numbers at the ends, texts of any kind, several values, rubbish."""
    width = _BINARY.get(vr)
    if width and draw(st.integers(0, 3)):
        value = draw(st.sampled_from([0, 1, 2, 3, 7, 8, 12, 17, 20, 24, 64, 4096, 20000, 65535]))
        value = draw(st.sampled_from([value, value, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)]))
        packed: bytes = (value % 2 ** (8 * width)).to_bytes(width, "little")
        return packed
    words = st.sampled_from(NUMBERS + TEXTS + _CHARSETS + _CLASSES)
    several = st.lists(words, min_size=1, max_size=4).map("\\".join)
    text = draw(st.one_of(words, several)).encode(draw(st.sampled_from(["utf-8", "latin-1", "utf-16"])), "replace")
    found: bytes = draw(st.one_of(st.just(text + b" " * (len(text) % 2)), st.just(text * 300), some_bytes(40)))
    return found


@st.composite
def _hostile_element(draw: st.DrawFn, keywords: tuple[str, ...]) -> Element:
    tag, vr = _tag(draw(st.sampled_from(keywords)))
    vr = draw(st.sampled_from([vr, vr, vr, draw(st.sampled_from(_VRS))]))
    value = draw(_hostile_value(vr))
    lengths = [None] * 8 + [0, len(value) + 1, 0xFFFFFFF0, 0x7FFFFFFF, UNDEFINED]
    return Element(tag, vr, value, draw(st.sampled_from(lengths)))


@st.composite
def _lut(draw: st.DrawFn) -> Element:
    """A modality or VOI LUT whose descriptor and data do not fit."""
    values = [draw(st.sampled_from([0, 1, 2, 8, 16, 17, 256, 4096, 65535])) for _ in range(draw(st.integers(0, 4)))]
    descriptor = b"".join(value.to_bytes(2, "little") for value in values)
    data = draw(st.sampled_from([b"", b"\1", bytes(512), bytes(8192), bytes(131072)]))
    vrs = st.sampled_from([b"US", b"SS", b"OW", b"OB", b"LO"])
    inner = [Element(0x00283002, draw(vrs), descriptor), Element(0x00283006, draw(vrs), data)]
    tag = _tag(draw(st.sampled_from(("ModalityLUTSequence", "VOILUTSequence"))))[0]
    return sequence(tag, [encoded(inner)] * draw(st.integers(0, 2)))


@cache
def _nested(tag: int, depth: int, undefined: bool) -> Element:
    content = b""
    for _ in range(depth):
        content = encoded([sequence(tag, [content], undefined)])
    return sequence(tag, [content], undefined)


@st.composite
def _deep(draw: st.DrawFn) -> Element:
    tag = _tag(draw(st.sampled_from(_SEQUENCES)))[0]
    return _nested(tag, draw(st.sampled_from([1, 3, 60, 400, 3000])), draw(st.booleans()))


@st.composite
def _sequence(draw: st.DrawFn) -> Element:
    """A sequence that the readers look into, with hostile elements in its items."""
    inner = st.lists(_hostile_element((*_WORDS, "CodeValue", "CodeMeaning")), max_size=3)
    items = [encoded(draw(inner)) for _ in range(draw(st.integers(0, 3)))]
    return sequence(_tag(draw(st.sampled_from(_SEQUENCES)))[0], items, draw(st.booleans()))


@st.composite
def _private(draw: st.DrawFn) -> Element:
    tag = draw(st.sampled_from([0x00090010, 0x00091001, 0x00290010, 0x00291010, 0x00000002, 0xFFFEE000, 0xFFFCFFFC]))
    return Element(
        tag, draw(st.sampled_from(_VRS)), draw(some_bytes(200)), draw(st.sampled_from([None, None, 0xFFFFFF00]))
    )


def _patched_size(stream: bytes, rows: int, columns: int) -> bytes:
    """A code stream (JPEG, JPEG-LS, JPEG 2000) that claims this size."""
    changed = bytearray(stream)
    for marker in (0xC0, 0xC1, 0xC3, 0xF7):
        at = stream.find(bytes([0xFF, marker]))
        if at >= 0 and at + 9 <= len(stream):
            changed[at + 5 : at + 9] = (rows & 0xFFFF).to_bytes(2, "big") + (columns & 0xFFFF).to_bytes(2, "big")
    at = stream.find(b"\xff\x4f\xff\x51")
    if at >= 0 and at + 16 <= len(stream):
        changed[at + 8 : at + 16] = columns.to_bytes(4, "big") + rows.to_bytes(4, "big")
    return bytes(changed)


@st.composite
def _broken_pixels(draw: st.DrawFn, file: File) -> File:
    """The file with pixels that are cut, padded, fragmented otherwise, or of another size than they say."""
    pixels = next(one for one in file.elements if one.tag == 0x7FE00010)
    kind = draw(st.sampled_from(["cut", "none", "long", "odd", "damaged", "size", "fragments", "offsets", "bomb"]))
    value, length = pixels.value, pixels.length
    if kind == "cut":
        value = value[: draw(st.integers(0, len(value)))]
    elif kind == "none":
        return replace(file, elements=tuple(one for one in file.elements if one is not pixels))
    elif kind == "long":
        value += bytes(draw(st.sampled_from([1, 2, 4096, 100_000])))
    elif kind == "odd":
        length = draw(st.sampled_from([0, 1, 3, 0xFFFFFFFE, 0x7FFFFFF0, UNDEFINED]))
    elif kind == "damaged":
        value = draw(damaged(value))
    elif kind == "bomb":
        return _large(file, *draw(st.sampled_from([(5000, 5000), (4096, 4096), (65535, 65535), (30000, 30000)])))
    elif pixels.length == UNDEFINED:
        stream = value[16:-8]
        if kind == "size":
            sides = st.sampled_from([0, 1, 25, 20000, 65535, 2**31 - 1, 2**32 - 1])
            stream = _patched_size(stream, draw(sides), draw(sides))
        table = b"" if kind != "offsets" else draw(some_bytes(16))
        pieces = [stream]
        if kind == "fragments":
            cut = draw(st.integers(0, len(stream)))
            pieces = draw(st.sampled_from([[], [b""], [stream[:cut], stream[cut:]], [stream] * 3, [b"\0"] * 2000]))
        value = (
            item(table)
            + b"".join(map(item, pieces))
            + draw(st.sampled_from([b"\xfe\xff\xdd\xe0\0\0\0\0", b"", b"\xfe\xff"]))
        )
    return file.with_element(replace(pixels, value=value, length=length))


def _large(file: File, rows: int, columns: int) -> File:
    """RLE in which few bytes stand for many pixels."""
    segment = b"\x81\0" * (min(rows * columns, 2**22) // 128)
    head = (2).to_bytes(4, "little") + (64).to_bytes(4, "little") + (64 + len(segment)).to_bytes(4, "little")
    frame = head.ljust(64, b"\0") + segment * 2
    file = replace(file, syntax=SYNTAXES[4], meta=_with_syntax(file, str(SYNTAXES[4])))
    for keyword, value in (("Rows", rows), ("Columns", columns)):
        file = file.with_element(Element(_tag(keyword)[0], b"US", value.to_bytes(2, "little")))
    return file.with_element(
        Element(0x7FE00010, b"OB", item(b"") + item(frame) + b"\xfe\xff\xdd\xe0\0\0\0\0", UNDEFINED)
    )


def _with_syntax(file: File, syntax: str) -> tuple[Element, ...]:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return (*(one for one in file.meta if one.tag != 0x00020010), Element(0x00020010, b"UI", value))


@st.composite
def _changed_file(draw: st.DrawFn, file: File) -> File:
    names = st.sampled_from([_PIXELS, _VALUES, _WORDS])
    kind = draw(
        st.sampled_from(["element", "element", "pixels", "pixels", "lut", "deep", "sequence", "private", "more"])
    )
    if kind == "pixels":
        return draw(_broken_pixels(file)) if any(one.tag == 0x7FE00010 for one in file.elements) else file
    if kind == "more":
        return draw(_changed_frame(file))
    makers: dict[str, Callable[[], st.SearchStrategy[Element]]] = {
        "element": lambda: _hostile_element(draw(names)),
        "lut": _lut,
        "deep": _deep,
        "sequence": _sequence,
        "private": _private,
    }
    return file.with_element(draw(makers[kind]()))


@st.composite
def _changed_frame(draw: st.DrawFn, file: File) -> File:
    """Changes of what stands around the elements: transfer syntax, order, preamble, missing elements."""
    kind = draw(st.sampled_from(["syntax", "absent", "twice", "preamble", "meta", "reversed"]))
    if kind == "syntax":
        syntax = draw(st.sampled_from([*map(str, SYNTAXES), *_OTHER_SYNTAXES]))
        return replace(file, meta=_with_syntax(file, syntax))
    if kind == "absent":
        gone = draw(st.sampled_from(file.elements))
        return replace(file, elements=tuple(one for one in file.elements if one is not gone))
    if kind == "twice":
        return replace(file, elements=(*file.elements, draw(st.sampled_from(file.elements))))
    if kind == "preamble":
        return replace(file, start=draw(st.sampled_from([b"", b"DICM", bytes(128), b"II*\0" + bytes(124) + b"DICM"])))
    if kind == "meta":
        return replace(file, meta=file.meta[: draw(st.integers(0, len(file.meta)))])
    return replace(file, elements=file.elements[::-1])


@cache
def _bomb(mebibytes: int) -> bytes:
    """A deflated object with an element of so many zeros."""
    file = base(DeflatedExplicitVRLittleEndian)
    squeeze = zlib.compressobj(9, wbits=-15)
    body = encoded([*file.elements[:-1], Element(0x7FE00010, b"OW", b"", mebibytes * 2**20)])
    squeezed = squeeze.compress(body) + b"".join(squeeze.compress(bytes(2**20)) for _ in range(mebibytes))
    return whole(replace(file, elements=()))[:-2] + squeezed + squeeze.flush()


@st.composite
def _file(draw: st.DrawFn, subtracted: bool = False) -> bytes:
    if draw(st.integers(0, 1000)) == 777:
        return _bomb(draw(st.sampled_from([600, 3000])))
    file = base(draw(st.sampled_from(SYNTAXES)), subtracted)
    little = file.syntax not in (ExplicitVRBigEndian, ImplicitVRLittleEndian)
    for _ in range(draw(st.integers(0, 4))):
        changed = draw(_changed_file(file))
        file = changed if little or not any(one.vr == b"SQ" for one in changed.elements) else file
    content = whole(file)
    return draw(damaged(content)) if draw(st.integers(0, 3)) == 0 else content


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """A low-energy image, most of the time changed, and often the subtracted image of its view."""
    name = draw(st.sampled_from(["a.dcm", "a.dcm", "a", "1.2.840.1", "DICOMDIR"]))
    files = {name: draw(_file())}
    if draw(st.booleans()):
        files["b.dcm"] = draw(st.one_of(st.just(whole(base(SYNTAXES[0], True))), _file(True)))
    return Input(files)
