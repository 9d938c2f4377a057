"""Changes of bytes that fit any format, and numbers and texts at which readers tend to stumble."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["NUMBERS", "TEXTS", "damaged", "some_bytes"]

#: As a header would hold them: none, negative, the ends of number types, no numbers at all, far too many digits.
NUMBERS = (
    *("0", "1", "-1", "2", "3", "7", "8", "16", "255", "256", "32767", "32768", "65535", "65536", "16777216"),
    *("2147483647", "2147483648", "4294967295", "9223372036854775807", "18446744073709551616", "-2147483648"),
    *("1e308", "-1e308", "1e-320", "nan", "inf", "-inf", "1e999", "", " ", "x", "0x10", "1,5", "1.0.0", "9" * 400),
)
#: Names and words: paths, unusual letters, control characters, formulas, texts that are long.
TEXTS = (
    *(
        "",
        " ",
        ".",
        "..",
        "../../canary.txt",
        "/etc/passwd",
        "/dev/zero",
        "a/b",
        "a\\b",
        "..\\..\\x",
        "C:\\x",
        "~",
        "-",
    ),
    *(
        "a\0b",
        "a\nb",
        "\r\n",
        "\x1b[31m",
        "\u202e",
        "\ufeff",
        "\u0130",
        "é",
        "日本",
        "\U0001f600",
        "null",
        "None",
        "nan",
    ),
    *("=1+1", "@x", "%s%n", "%d", "{0}", "${x}", "$(id)", "<script>", "' OR 1=1", "A" * 300, "A" * 5000, "(" * 200),
)


def some_bytes(most: int = 64) -> st.SearchStrategy[bytes]:
    """Bytes, often of one kind."""
    same = st.builds(
        lambda byte, count: bytes([byte]) * count, st.sampled_from([0, 1, 32, 127, 128, 255]), st.integers(0, most)
    )
    return st.one_of(st.binary(max_size=most), same)


@st.composite
def damaged(draw: st.DrawFn, content: bytes, most: int = 4) -> bytes:
    """``content`` with up to ``most`` changes: bytes, cuts, insertions, repetitions, numbers at the ends of types."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        kind = draw(st.sampled_from(["byte", "bit", "cut", "drop", "insert", "repeat", "number"]))
        if kind == "cut":
            del changed[at:]
        elif kind == "drop":
            del changed[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            changed[at:at] = draw(some_bytes())
        elif kind == "repeat":
            piece = bytes(changed[at : at + draw(st.integers(1, 256))])
            changed[at:at] = piece * draw(st.integers(1, 20))
        elif kind == "number":
            width = draw(st.sampled_from([2, 4, 8]))
            value = draw(st.sampled_from([0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1]))
            changed[at : at + width] = value.to_bytes(width, draw(st.sampled_from(["little", "big"])))
        elif changed:
            flip = draw(st.integers(1, 255)) if kind == "byte" else 1 << draw(st.integers(0, 7))
            changed[at] ^= flip
    return bytes(changed)
