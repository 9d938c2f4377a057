"""Inputs for what reads names and values of a config from a command line."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from scripts.fuzzing.mutations import NUMBERS, TEXTS
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_NAMES = (
    "max_epochs",
    "network_def#width",
    "a#b#c",
    "#",
    "@x",
    "%y",
    "_z",
    "image_size",
    "(",
    "[",
    "\\",
    ".*",
    "a" * 3000,
    "#" * 3000,
)
_VALUES = (
    "[1, 2]",
    "{'a': 1}",
    "(" * 300,
    "[" * 3000,
    "-" * 3000,
    "9" * 5000,
    "$__import__('os')",
    "@network",
    "%a",
    "'",
    '"',
    "True",
    "null",
    "1_0",
)


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """Words of a command line, one a line of JSON."""
    names, values = st.sampled_from(_NAMES + TEXTS), st.sampled_from(_VALUES + TEXTS + NUMBERS)
    words = [
        f"{draw(names)}={draw(values)}" if draw(st.booleans()) else draw(values) for _ in range(draw(st.integers(0, 4)))
    ]
    options = [word for _ in range(draw(st.integers(0, 3))) for word in (f"--{draw(names)}", draw(values))]
    return Input({"words.json": json.dumps([words, options]).encode()})
