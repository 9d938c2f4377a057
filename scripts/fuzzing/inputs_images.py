"""Inputs for the readers of image files: valid pictures with false sizes, bombs, odd chunks and damaged bytes."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import nibabel
import numpy as np
import tifffile
from hypothesis import strategies as st
from PIL import Image

from scripts.fuzzing.mutations import damaged
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_SIDES = (0, 1, 12, 5000, 20_000, 65_535, 2**31 - 1, 2**32 - 1)
_PIXELS = np.arange(12 * 16).reshape(12, 16)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@cache
def _squeezed(count: int) -> bytes:
    squeeze = zlib.compressobj(9)
    return b"".join(squeeze.compress(bytes(2**20)) for _ in range(count // 2**20)) + squeeze.flush()


@st.composite
def _png(draw: st.DrawFn) -> bytes:
    """A PNG of any declared size, depth and kind, with pixels that are too few, enough or a bomb."""
    depth, kind = draw(st.sampled_from([(8, 0), (16, 0), (1, 0), (8, 2), (16, 2), (8, 3), (8, 4), (16, 6), (7, 9)]))
    width, height = (draw(st.sampled_from([16, 12, *_SIDES])) for _ in "wh")
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, draw(st.sampled_from([0, 0, 1])))
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in _PIXELS)
    data = draw(st.sampled_from([zlib.compress(rows), _squeezed(2**26), b"", zlib.compress(rows)[:20]]))
    extra = st.sampled_from([b"zTXt", b"iTXt", b"iCCP", b"tEXt", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL"])
    more = [_chunk(draw(extra), b"k\0\0" + draw(st.sampled_from([b"", _squeezed(2**26), bytes(9)])))] * draw(
        st.integers(0, 2)
    )
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(more) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


@cache
def _saved(kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(_PIXELS.astype(np.uint8)).save(out, kind)
    return out.getvalue()


@st.composite
def _jpeg(draw: st.DrawFn) -> bytes:
    content = bytearray(_saved("JPEG"))
    if draw(st.booleans()):
        at = content.find(b"\xff\xc0")
        content[at + 5 : at + 9] = struct.pack(">HH", *(draw(st.sampled_from([0, 1, 12, 5000, 65_535])) for _ in "hw"))
    return bytes(content)


@cache
def _tiff(kind: str) -> bytes:
    out = io.BytesIO()
    known: dict[str, dict[str, Any]] = {"deflate": {"compression": "zlib"}, "tiles": {"tile": (16, 16)}}
    how = known.get(kind, {})
    if kind == "pages":
        tifffile.imwrite(out, np.stack([_PIXELS.astype(np.uint8)] * 3), photometric="minisblack")
    elif kind == "white":
        tifffile.imwrite(out, _PIXELS.astype(np.uint16), photometric="miniswhite")
    else:
        tifffile.imwrite(
            out, _PIXELS.astype(np.float32 if kind == "float" else np.uint16), photometric="minisblack", **how
        )
    return out.getvalue()


@st.composite
def _changed_tiff(draw: st.DrawFn) -> bytes:
    """A TIFF with hostile numbers in its directory: sizes, offsets, counts, a directory that leads to itself."""
    content = bytearray(_tiff(draw(st.sampled_from(["plain", "deflate", "tiles", "pages", "white", "float"]))))
    first = struct.unpack_from("<I", content, 4)[0]
    entries = struct.unpack_from("<H", content, first)[0]
    for _ in range(draw(st.integers(0, 3))):
        at = first + 2 + 12 * draw(st.integers(0, entries - 1))
        place = draw(st.sampled_from([0, 2, 4, 8]))
        value = draw(st.sampled_from([0, 1, 2, 3, 8, 32, 65_535, 65_536, 2**31, 2**32 - 1, first]))
        size = 2 if place < 4 else 4
        content[at + place : at + place + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    if draw(st.integers(0, 5)) == 0:
        struct.pack_into("<I", content, first + 2 + 12 * entries, first)
    return bytes(content)


@st.composite
def _bmp(draw: st.DrawFn) -> bytes:
    content = bytearray(_saved("BMP"))
    if draw(st.booleans()):
        sides = st.sampled_from([0, 1, 12, -12, 20_000, 2**31 - 1, -(2**31)])
        struct.pack_into("<ii", content, 18, draw(sides), draw(sides))
    return bytes(content)


@st.composite
def _nifti(draw: st.DrawFn) -> bytes:
    """A NIfTI file with hostile dimensions, types, offsets and scaling."""
    content = bytearray(nibabel.Nifti1Image(_PIXELS.T.astype(np.int16)[..., None], np.eye(4)).to_bytes())
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["dim", "type", "offset", "scale", "affine", "code"]))
        if kind == "dim":
            sides = st.sampled_from([0, 1, 2, 16, 20_000, 32_767, -1])
            struct.pack_into(
                "<8h", content, 40, draw(st.sampled_from([0, 1, 2, 3, 7, 8, -1])), *(draw(sides) for _ in range(7))
            )
        elif kind == "type":
            types = st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 128, 512, 1536, 2048, 2304, 30_000])
            struct.pack_into("<2h", content, 70, draw(types), draw(st.sampled_from([0, 8, 16, 32, 64, 128, -1])))
        else:
            floats = st.sampled_from([0.0, 1.0, -1.0, 352.0, 1e9, 1e30, float("nan"), float("inf")])
            place = {"offset": 108, "scale": draw(st.sampled_from([112, 116])), "affine": 280, "code": 252}[kind]
            struct.pack_into("<f", content, place, draw(floats))
    return bytes(content)


@cache
def _bomb_nifti(megabytes: int) -> bytes:
    header = bytearray(nibabel.Nifti1Image(np.zeros((16, 12, 1), np.int16), np.eye(4)).to_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, 20_000, 20_000, 1, 1, 1, 1, 1)
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as file:
        file.write(header)
        for _ in range(megabytes):
            file.write(bytes(10**6))
    return out.getvalue()


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """One image file, whose name may not be true."""
    makers: dict[str, Callable[[], st.SearchStrategy[bytes]]] = {
        "a.png": _png, "a.jpg": _jpeg, "a.tif": _changed_tiff, "a.bmp": _bmp, "a.nii": _nifti,
        "a.nii.gz": lambda: st.one_of(_nifti().map(gzip.compress), st.just(_bomb_nifti(850))),
    }  # fmt: skip
    name = draw(st.sampled_from(sorted(makers)))
    content = draw(makers[name]())
    content = draw(damaged(content)) if draw(st.integers(0, 2)) == 0 and len(content) < 2**16 else content
    name = draw(st.sampled_from(sorted(makers))) if draw(st.integers(0, 9)) == 0 else name
    return Input({name: content})
