"""Headers of NRRD and MetaImage files, looked at before itk is: it believes them, and ends the process at some."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bundle.image_file_error import ImageFileError
from bundle.limits import require_bounded

__all__ = ["require_sound_header"]

_HEADER_BYTES = 2**16
_LONGEST_LINE = 1000
"""itk's own room for a line is 4096 bytes, for some of its parts less."""
_MOST_AXES = 4
_NRRD_TYPES = (
    frozenset(
        f"{sign}{name}"
        for sign in ("", "signed ", "unsigned ", "u")
        for name in ("char", "short", "short int", "int", "long long", "long long int", "longlong")
    )
    | {f"{sign}int{bits}{end}" for sign in ("", "u") for bits in (8, 16, 32, 64) for end in ("", "_t")}
    | {"float", "double"}
)
_NRRD_ENCODINGS = frozenset({"raw", "gzip", "gz", "bzip2", "bz2", "ascii", "text", "txt", "hex"})
_META_TYPES = frozenset(
    f"MET_{name}"
    for name in (
        "CHAR",
        "UCHAR",
        "SHORT",
        "USHORT",
        "INT",
        "UINT",
        "LONG",
        "ULONG",
        "LONG_LONG",
        "ULONG_LONG",
        "FLOAT",
        "DOUBLE",
    )
)
_NRRD = (".nrrd", ".nhdr")
_LOCAL = "LOCAL"
_REMEDY = (
    "The file is damaged, or of a kind that is not read: write it again as one 2-D image, header and values in one file"
)


class _UnsoundError(ValueError):
    """What is wrong with a header."""


def require_sound_header(path: str | Path) -> None:
    """Refuse a header that does not describe one image of bounded size whose values lie beside it.

    Raises:
        ImageFileError: a line is too long or repeated; a number is missing, no number or too large; a type or encoding
            is unknown; or the values lie in several files or in another folder.
    """
    with Path(path).open("rb") as file:
        start = file.read(_HEADER_BYTES)
    try:
        sides = _nrrd(start) if Path(path).name.strip().lower().endswith(_NRRD) else _meta(start)
    except _UnsoundError as error:
        raise ImageFileError(path, str(error), _REMEDY) from error
    require_bounded(path, *sides)


def _nrrd(start: bytes) -> list[int]:
    if not start.startswith(b"NRRD"):
        raise _UnsoundError("cannot be decoded as .nrrd by itk: it does not begin as such")
    header = re.split(rb"\r?\n\r?\n", start, maxsplit=1)
    fields = _fields(header[0].splitlines()[1:], r"([^:=#]+?)\s*:\s(.*)", lower=True)
    axes = _whole(fields, "dimension", 1, _MOST_AXES)
    sides = _wholes(fields, ("sizes",), axes)
    _require_one_of(fields, "type", _NRRD_TYPES)
    _require_one_of(fields, "encoding", _NRRD_ENCODINGS)
    for key in ("byte skip", "byteskip", "line skip", "lineskip"):
        if key in fields:
            _whole(fields, key, -1, 2**31 - 1)
    for key in ("data file", "datafile"):
        _require_beside(fields.get(key, _LOCAL))
    return sides


def _meta(start: bytes) -> list[int]:
    lines = []
    for line in start.splitlines():
        lines.append(line)
        if re.match(rb"\s*ElementDataFile\s*=", line):
            break
    fields = _fields(lines, r"\s*([^=:]+?)\s*[=:]\s*(.*)", lower=False)
    if "NDims" not in fields:
        raise _UnsoundError("cannot be decoded as .mha by itk: no NDims in its header")
    axes = _whole(fields, "NDims", 1, _MOST_AXES)
    sides = _wholes(fields, ("DimSize",), axes)
    _require_one_of(fields, "ElementType", _META_TYPES)
    channels = _whole(fields, "ElementNumberOfChannels", 1, 4) if "ElementNumberOfChannels" in fields else 1
    for key, least in (("HeaderSize", -1), ("CompressedDataSize", 0)):
        if key in fields:
            _whole(fields, key, least, 2**40)
    vectors = ("Offset", "Position", "Origin", "CenterOfRotation", "ElementSpacing", "ElementSize")
    for key, count in [
        *((key, axes) for key in vectors),
        *((key, axes**2) for key in ("TransformMatrix", "Rotation", "Orientation")),
    ]:
        if key in fields:
            _require_numbers(fields, key, count)
    if "ElementDataFile" not in fields:
        raise _UnsoundError("names no ElementDataFile")
    _require_beside(fields["ElementDataFile"])
    return [*sides, channels]


def _fields(lines: Iterable[bytes], pattern: str, lower: bool) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        text = line.decode("latin-1").strip()
        if len(text) > _LONGEST_LINE:
            raise _UnsoundError(f"has a line of {len(text)} bytes, expected at most {_LONGEST_LINE}")
        if (match := re.fullmatch(pattern, text)) is not None:
            key = match[1].lower() if lower else match[1]
            if key in fields:
                raise _UnsoundError(f"says {key[:40]!r} twice")
            fields[key] = match[2].strip()
    return fields


def _whole(fields: Mapping[str, str], key: str, least: int, most: int) -> int:
    text = fields.get(key, "")
    if not re.fullmatch(r"[+-]?\d{1,15}", text) or not least <= int(text) <= most:
        raise _UnsoundError(f"{key} is {text[:40]!r}, expected a whole number from {least} to {most}")
    return int(text)


def _wholes(fields: Mapping[str, str], keys: tuple[str, ...], count: int) -> list[int]:
    text = next((fields[key] for key in keys if key in fields), "")
    words = text.split()
    if len(words) != count or not all(re.fullmatch(r"\d{1,15}", word) for word in words):
        raise _UnsoundError(f"{keys[0]} is {text[:40]!r}, expected {count} whole numbers")
    return [int(word) for word in words]


def _require_numbers(fields: Mapping[str, str], key: str, count: int) -> None:
    words = fields[key].split()
    if len(words) != count or not all(map(_is_number, words)):
        raise _UnsoundError(f"{key} is {fields[key][:40]!r}, expected {count} numbers")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text) is not None


def _require_one_of(fields: Mapping[str, str], key: str, known: Iterable[str]) -> None:
    text = fields.get(key, "")
    plain: Callable[[str], str] = (lambda one: one) if key == "ElementType" else str.lower
    if " ".join(plain(text).split()) not in known:
        raise _UnsoundError(f"{key} is {text[:40]!r}, which is not read")


def _require_beside(file: str) -> None:
    """One file, in the folder of the header: itk would also follow a path, and a pattern or list of files."""
    named = file not in ("", ".", "..") and not re.search(r"[/\\%\0]|\s\d", file) and not re.match(r"LIST\b", file)
    if not named:
        raise _UnsoundError(f"its values lie in {file[:40]!r}, expected one file beside it")
