"""Inputs for the readers of NRRD and MetaImage files: header lines that lie, data elsewhere, bombs."""

from __future__ import annotations

import gzip
from functools import cache

from hypothesis import strategies as st

from scripts.fuzzing.mutations import NUMBERS, TEXTS, damaged
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_RAW = bytes(range(192)) * 2
_NRRD = {
    "type": "ushort", "dimension": "2", "sizes": "16 12", "endian": "little", "encoding": "raw",
    "space": "left-posterior-superior", "space directions": "(0.1,0) (0,0.1)", "space origin": "(0,0)",
}  # fmt: skip
_META = {
    "ObjectType": "Image", "NDims": "2", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 1", "Offset": "0 0", "ElementSpacing": "0.1 0.1", "DimSize": "16 12",
    "ElementType": "MET_USHORT",
}  # fmt: skip
_SIZES: tuple[str, ...] = (
    "16 12",
    "16 12 1",
    "16",
    "0 0",
    "-1 12",
    "20000 20000",
    "100000 100000",
    "65536 65536 65536",
    "16 x",
    "",
)
_SIZES += ("1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "9223372036854775807 2", "4294967296 4294967296")
_TYPES = (
    "uchar",
    "short",
    "int",
    "longlong",
    "float",
    "double",
    "block",
    "x",
    "MET_UCHAR",
    "MET_DOUBLE",
    "MET_STRING",
    "MET_OTHER",
)
_DATA: tuple[str, ...] = (
    "LOCAL",
    "LIST",
    "LIST 2",
    "a.raw",
    "../canary.txt",
    "../../canary.txt",
    "/etc/passwd",
    "/dev/zero",
    "absent",
    "",
)
_DATA += (
    "a%d.raw 1 3 1",
    "%s%s%s%n 1 9 1",
    "%999999999d.raw 1 1 1",
    "a.raw 1 2000000000 1",
    "a%d 1 1 0",
    "a.mhd",
    "a.nhdr",
    ".",
)
_EXTRA: tuple[str, ...] = (
    "block size",
    "byte skip",
    "line skip",
    "spacings",
    "kinds",
    "content",
    "measurement frame",
    "number",
    "min",
)
_EXTRA += (
    "CompressedData",
    "CompressedDataSize",
    "HeaderSize",
    "ElementNumberOfChannels",
    "ElementMin",
    "Comment",
    "Name",
)
_EXTRA += (
    "AnatomicalOrientation",
    "CenterOfRotation",
    "Modality",
    "ElementSize",
    "ID",
    "ParentID",
    "Color",
    "ElementToIntensityFunctionSlope",
)


@cache
def _gzip_bomb() -> bytes:
    return gzip.compress(bytes(3 * 10**8), 1, mtime=0)


@st.composite
def _lines(draw: st.DrawFn, fields: dict[str, str], data_key: str, sign: str) -> list[str]:
    changed = dict(fields)
    values = st.sampled_from(
        NUMBERS + TEXTS + _SIZES + _TYPES + ("True", "False", "raw", "gzip", "bzip2", "hex", "ascii")
    )
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["value", "size", "type", "data", "extra", "gone"]))
        if kind == "value":
            changed[draw(st.sampled_from(sorted(changed)))] = draw(values)
        elif kind == "size":
            changed["sizes" if "sizes" in fields else "DimSize"] = draw(st.sampled_from(_SIZES))
            dimensions = draw(st.sampled_from(["1", "2", "3", "20", "-2", "0"]))
            changed["dimension" if "sizes" in fields else "NDims"] = dimensions
        elif kind == "type":
            changed["type" if "sizes" in fields else "ElementType"] = draw(st.sampled_from(_TYPES))
        elif kind == "data":
            changed[data_key] = draw(st.sampled_from(_DATA))
        elif kind == "extra":
            changed[draw(st.sampled_from(_EXTRA))] = draw(values)
        elif changed:
            changed.pop(draw(st.sampled_from(sorted(changed))))
    last = {data_key: changed.pop(data_key)} if data_key in changed and sign == " = " else {}
    return [f"{key}{sign}{value}" for key, value in (changed | last).items()]


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """A header with its data, in one file or in two."""
    kind = draw(st.sampled_from([".nrrd", ".nhdr", ".mha", ".mhd"]))
    raw = draw(st.sampled_from([_RAW, _RAW, gzip.compress(_RAW), _RAW[:50], b"", _RAW * 50, b"1 2 3"]))
    raw = _gzip_bomb() if draw(st.integers(0, 300)) == 0 else raw
    if kind in (".nrrd", ".nhdr"):
        fields = _NRRD | ({"data file": "a.raw"} if kind == ".nhdr" else {})
        lines = ["NRRD0004", *draw(_lines(fields, "data file", ": ")), "", ""]
    else:
        fields = _META | {"ElementDataFile": "LOCAL" if kind == ".mha" else "a.raw"}
        lines = [*draw(_lines(fields, "ElementDataFile", " = ")), ""]
    header = "\n".join(lines).encode("utf-8", "surrogatepass")
    content = header + (raw if kind in (".nrrd", ".mha") else b"")
    content = draw(damaged(content)) if draw(st.integers(0, 3)) == 0 and len(content) < 2**16 else content
    return Input({f"a{kind}": content, **({"a.raw": raw} if kind in (".nhdr", ".mhd") else {})})
