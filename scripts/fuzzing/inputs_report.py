"""Inputs for the report: folders of runs and studies with hostile summaries, tables and pictures."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

from scripts.fuzzing.mutations import NUMBERS, TEXTS, damaged
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_METRICS = ("psnr", "ssim", "mae", "breast_psnr", "breast_mae", "lesion_mae", "vif")
_FIGURE = {"value": 20.0, "low": 19.0, "high": 21.0, "n": 3, "mean": 20.0}
_ONE = {"cases": 3, "patients": 3, "lesions": 1, "metrics": {name: dict(_FIGURE) for name in _METRICS}, "strata": {}}
_SUMMARY: dict[str, Any] = {
    "predictors": {"model": _ONE, "le_copy": _ONE, "breast_constant": _ONE},
    "intervals": {"level": 0.95, "resamples": 10, "seed": 0},
    "comparisons": [],
    "caveats": ["data set 'x' is SYNTHETIC"],
}
_RUN: dict[str, Any] = {
    "seed": 0,
    "settings": {"fold": 0, "image_size": 32},
    "versions": {"torch": "2"},
    "started": "2026-01-01",
}
_STUDY: dict[str, Any] = {"title": "x", "arms": {"model": "y"}, "caveats": [], "synthetic": True}
_NUMBER = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "reason": ""}
_CURVE = {"bins": [{"n": 9, "rmv": 0.1, "rmse": 0.1}, {"n": 9, "rmv": 0.2, "rmse": 0.3}], "ence": _NUMBER}
_STAGE = {"stage": "full", "layers": 2, "total": 2, "spearman": 0.1, "spearman_abs": 0.2, "ssim": 0.1}
_EXPLANATIONS: dict[str, Any] = {
    "format": 1,
    "title": "x",
    "counts": {"cases": 3, "patients": 3, "lesions": 1, "lost": 0, "explained": 1},
    "attribution": {
        "methods": {
            "ig": {
                "shares": dict.fromkeys(("lesion", "margin", "ring", "elsewhere", "outside"), 0.2),
                "deletion": {
                    "gain": _NUMBER,
                    "faithful": 1,
                    "curve": [{"fraction": 0.1, "named": -0.1, "random": 0.0}],
                },
            }
        }
    },
    "sanity": {"ig": {"passed": True, "reason": "", "stages": [_STAGE]}},
    "uncertainty": {
        "tta": {
            "calibration": {"raw": _CURVE, "recalibrated": _CURVE, "factor": 1.0},
            "lesion_error_spearman": _NUMBER,
            "lost_auc": _NUMBER,
            "false_enhancement": {"difference": _NUMBER},
        }
    },
    "lesions": [{"patient_id": "P1", "lesion": 1, "lesion_mm": 9.0, "panel": "panels/a.png"}],
}
_HEAD = ("predictor", "patient_id", "laterality", "view", "source", "picture", *_METRICS, "arm", "seed", "fold")
_ROW = ("model", "P1", "L", "CC", "a.png", "panels/a.png", *("20.5",) * len(_METRICS), "model", "0", "0")
_PICTURES = (
    "panels/a.png",
    "../../canary.txt",
    "/etc/passwd",
    "/dev/zero",
    "http://127.0.0.1/x.png",
    "\0",
    "<img src=x>",
    "x" * 5000,
)


def _anything() -> st.SearchStrategy[Any]:
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([0, -1, 10**400, 1e308, float("nan"), 2.5]),
        st.sampled_from(TEXTS + NUMBERS),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.sampled_from(["a", "metrics", "value", "model"]), inner, max_size=2),
        ),
        max_leaves=4,
    )


@st.composite
def _changed(draw: st.DrawFn, content: dict[str, Any]) -> bytes:
    """JSON with something else in up to two places."""
    made = copy.deepcopy(content)
    for _ in range(draw(st.integers(0, 2))):
        place: Any = made
        for _ in range(draw(st.integers(0, 4))):
            inner = [
                value
                for value in (place.values() if isinstance(place, dict) else place)
                if isinstance(value, (dict, list)) and value
            ]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        if isinstance(place, dict) and place:
            key = draw(st.sampled_from(sorted(place)))
            if draw(st.booleans()):
                place[key] = draw(_anything())
            else:
                place.pop(key)
        elif place:
            place[0] = draw(_anything())
    text = json.dumps(made).encode()
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return draw(damaged(text))
    return draw(st.sampled_from([b"", b"[]", b"[" * 100_000, b"\xff\xfe", b"null"])) if kind == 1 else text


@st.composite
def _table(draw: st.DrawFn) -> bytes:
    values = st.sampled_from(TEXTS + NUMBERS + _PICTURES)
    rows = [list(_HEAD), *(list(_ROW) for _ in range(draw(st.integers(0, 3))))]
    for _ in range(draw(st.integers(0, 3))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(values)
    text = "\n".join(",".join(f'"{cell}"' for cell in row) for row in rows).encode("utf-8", "replace")
    return draw(damaged(text)) if draw(st.integers(0, 5)) == 0 else text


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """An evaluated run, or a study with a run in it."""
    run = {"summary.json": draw(_changed(_SUMMARY)), "cases.csv": draw(_table()), "run.json": draw(_changed(_RUN))}
    run["history.csv"] = draw(
        st.sampled_from([b"epoch,loss\n1,2\n", b"epoch\n", b"", b"epoch,loss\nx,1\n", b'"', b"epoch,epoch\n1,1,1\n"])
    )
    run["caveats.txt"] = draw(st.sampled_from([b"", b"\xff\xfe", b"x\n" * 9]))
    if draw(st.booleans()):
        run["explanations/explanations.json"] = draw(_changed(_EXPLANATIONS))
        run["explanations/panels/a.png"] = draw(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n"]))
    run["panels/a.png"] = draw(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"x" * 100]))
    if draw(st.booleans()):
        return Input(run)
    study = {f"model/fold_0_seed_0/{name}": content for name, content in run.items()}
    gamma = (
        {"gamma.json": draw(_changed({"values": [0, 1], "chosen": 0, "metric": "psnr"}))} if draw(st.booleans()) else {}
    )
    folds = {"folds.csv": draw(_table())} if draw(st.booleans()) else {}
    top = {"study.json": draw(_changed(_STUDY)), "summary.json": draw(_changed(_SUMMARY)), "cases.csv": draw(_table())}
    return Input(study | gamma | folds | top)
