"""Inputs for what reads zip archives: names that lead elsewhere, links, bombs, encryption, sizes that lie."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cache

from hypothesis import strategies as st

from scripts.fuzzing.mutations import TEXTS, damaged
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_NAMES: tuple[str, ...] = (
    "model/extra/export.json",
    "x/extra/export.json",
    "cesm/configs/train.json",
    "../canary.txt",
    "../../escaped",
    "/tmp/escaped",  # noqa: S108 (never written)
)
_NAMES += (
    "a/../../escaped",
    "..\\escaped",
    "C:\\escaped",
    "a/",
    "",
    ".",
    "..",
    "a",
    "a/b",
    "a\0b",
    "\ud800",
    "x" * 300,
    "y/" * 500,
)
_RECORDS = ("{}", '{"weights_sha256": "x"}', "[]", "3", "[" * 100_000, "", '{"weights_sha256": 3}', "\ufeff{}", "{" * 9)
_LINK = 0o120777 << 16


@st.composite
def _archive(draw: st.DrawFn) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for _ in range(draw(st.integers(0, 4))):
            name = draw(st.sampled_from(_NAMES))
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            entry.external_attr = draw(st.sampled_from([0, 0o100644 << 16, _LINK, 0o40755 << 16]))
            content = draw(
                st.sampled_from([*_RECORDS, "../../escaped", *TEXTS, json.dumps({"weights_sha256": "0" * 64})])
            )
            data = content.encode("utf-8", "surrogatepass")
            entry.compress_type = draw(
                st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
            )
            try:
                archive.writestr(entry, data)
            except (ValueError, UnicodeError):  # a name that this library does not write
                continue
    changed = bytearray(out.getvalue())
    for kind, value in draw(
        st.lists(
            st.tuples(st.sampled_from([6, 8, 10, 20, 24, 42]), st.sampled_from([0, 1, 9, 99, 2**16 - 1])), max_size=2
        )
    ):
        at = changed.find(b"PK\x01\x02")
        if at >= 0:
            changed[at + kind : at + kind + 2] = value.to_bytes(2, "little")
    return bytes(changed)


@cache
def _bomb() -> bytes:
    """A record of 256 MiB in few bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x/extra/export.json", b" " * 2**28)
    return out.getvalue()


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """An archive under the name of an export, with weights beside it."""
    content = draw(_archive()) if draw(st.integers(0, 40)) else _bomb()
    if len(content) < 2**20 and draw(st.integers(0, 2)) == 0:
        content = draw(damaged(content))
    return Input({"model.ts": content, "model.pt": b"weights", "bundle.zip": content})
