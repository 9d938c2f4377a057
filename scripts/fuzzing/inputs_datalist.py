"""Inputs for the readers of datalists: any JSON in any place, paths that lead elsewhere, texts that are no JSON."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from scripts.fuzzing.mutations import NUMBERS, TEXTS, damaged
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_PATHS: tuple[str, ...] = (
    "a.png",
    "b.png",
    "sub/../a.png",
    "absent.png",
    ".",
    "",
    "a.png/",
    "a\0.png",
    "\ud800.png",
    "x" * 300,
    "y/" * 3000,
)
_PATHS += (
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/mem",
    "../../canary.txt",
    "datalist.json",
    "a.dcm",
    "~/a.png",
    "//a",
    "\n",
)
_KEYS: tuple[str, ...] = (
    "image",
    "label",
    "mask",
    "label_mask",
    "patient_id",
    "laterality",
    "view",
    "fold",
    "info",
    "imge",
    "",
)
_KEYS += ("image_window", "label_window")
_WRONG = (
    "",
    "[",
    "null",
    "3",
    "[" * 100_000,
    '{"a":' * 50_000,
    '{"cases": [' + "1" * 5000 + "]}",
    "NaN",
    "\ufeff{}",
    '{"name": "\\ud800"}',
)


@cache
def _png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 16)).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def _anything() -> st.SearchStrategy[Any]:
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([0, 1, 2, -1, 10**20, 10**400, 0.5, 1e308, float("nan"), float("inf")]),
        st.sampled_from(TEXTS + NUMBERS + _PATHS),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3)
        ),
        max_leaves=4,
    )


@st.composite
def _case(draw: st.DrawFn, number: int) -> Any:
    case: dict[str, Any] = {
        "image": "a.png",
        "label": "b.png",
        "patient_id": f"P{number}",
        "laterality": "L",
        "view": "CC",
        "fold": number % 3,
    }
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(["path", "value", "gone", "window", "whole"]))
        if kind == "path":
            case[draw(st.sampled_from(_KEYS[:4]))] = draw(st.sampled_from(_PATHS))
        elif kind == "value":
            case[draw(st.sampled_from(_KEYS))] = draw(_anything())
        elif kind == "gone" and case:
            case.pop(draw(st.sampled_from(sorted(case))))
        elif kind == "window":
            case["image_window"] = [draw(_anything()), draw(_anything())]
        elif kind == "whole":
            return draw(_anything())
    return case


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """A datalist of a few cases beside two images."""
    content: Any = {
        "name": "x",
        "synthetic": True,
        "num_folds": 3,
        "cases": [draw(_case(number)) for number in range(draw(st.integers(0, 4)))],
    }
    for _ in range(draw(st.integers(0, 1))):
        content[
            draw(st.sampled_from(["name", "synthetic", "num_folds", "cases", "description", "allow_leak", "x"]))
        ] = draw(_anything())
    text = json.dumps(content).encode()
    kind = draw(st.integers(0, 9))
    if kind == 0:
        text = draw(st.sampled_from(_WRONG)).encode("utf-8", "surrogatepass")
    elif kind == 1:
        text = draw(damaged(text))
    rows = "name,patient_id,laterality,view,image_digest\n" + draw(
        st.sampled_from(["", "a,P0,L,CC,1\n", "a\0,b\n", '"' * 9, "x" * 200_000])
    )
    return Input({"datalist.json": text, "a.png": _png(1), "b.png": _png(2), "cases.csv": rows.encode()})
