"""The size of the image that a compressed frame says it holds, which decoders believe rather than Rows and Columns."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["StreamSize", "is_plain_jpeg", "stream_size"]

_JPEG_2000 = b"\xff\x4f\xff\x51"
"""Start of code stream, and the size segment that must follow it."""
_SEARCHED = 4096
"""Bytes in which a code stream begins, where boxes of the JP2 file format stand before it."""
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG (SOF0 to SOF15) and JPEG-LS (SOF55) behind which the size stands."""
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without length."""
_ENTROPY = re.compile(rb"(?:[^\xff]|\xff[\x00\xd0-\xd7])*+\xff+\xd9[\x00\xff]*", re.DOTALL)
"""Coded values with stuffed zeros and restart markers, the end of the image, and padding."""


class StreamSize(NamedTuple):
    """Rows, columns and samples a pixel."""

    rows: int
    columns: int
    samples: int


def stream_size(stream: bytes) -> StreamSize | None:
    """What the header of a JPEG, JPEG-LS or JPEG 2000 code stream says; None where it says nothing.

    References:
        ITU-T T.81 B.2.2 (frame header), T.87 C.2.2, T.800 A.5.1 (SIZ).
    """
    start = stream.find(_JPEG_2000, 0, _SEARCHED)
    return _jpeg(stream) if start < 0 else _jpeg_2000(stream[start + 4 : start + 4 + 38])


def _jpeg_2000(segment: bytes) -> StreamSize | None:
    if len(segment) < 38:
        return None
    right, bottom, left, top = (int.from_bytes(segment[at : at + 4], "big") for at in (4, 8, 12, 16))
    return StreamSize(bottom - top, right - left, int.from_bytes(segment[36:38], "big"))


def _jpeg(stream: bytes) -> StreamSize | None:
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 4 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF or marker in _BARE:  # a byte of padding
            at += 1 if marker == 0xFF else 2
        elif marker in _FRAMES:
            frame = stream[at + 5 : at + 10]
            if len(frame) < 5:
                return None
            return StreamSize(int.from_bytes(frame[:2], "big"), int.from_bytes(frame[2:4], "big"), frame[4])
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def is_plain_jpeg(stream: bytes) -> bool:
    """Whether a JPEG has one frame and one scan, segments without gaps, and an end: what encoders of grey images write.

    At some others gdcm ends the process.
    """
    at, frames = 2, 0
    while stream[:2] == b"\xff\xd8" and at + 4 <= len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker in _BARE or marker in (0x00, 0xD9, 0xFF) or length < 2:
            return False
        frames += marker in _FRAMES
        at += 2 + length
        if marker == 0xDA:
            return frames == 1 and _ENTROPY.fullmatch(stream, at) is not None
    return False
