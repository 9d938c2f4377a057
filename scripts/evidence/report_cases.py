"""The cases of the report: which ones are shown, with their pictures, facts and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap

from scripts.evidence.report_load import Evidence, sorted_texts
from scripts.evidence.report_metrics import METRICS, metric_of
from scripts.evidence.report_pictures import CasePicture, grey_uri, outline, read_picture, window, windowed
from scripts.evidence.report_tables import name_of

__all__ = ["Browser", "Example", "browser", "chosen_places", "is_picture_of", "script_json"]

ORDER_BY = "breast_psnr"
ERROR_RANGE = 0.3
"""Differences from here on have the last colour, as in `bundle.handlers.pictures`."""
COLOURS = ("#c2e9ff", "#0072b2", "#000000", "#d55e00", "#ffe9a8")
"""Of negative to positive differences, for every kind of colour vision; none is black like the background."""
STEPS = 257
"""An odd number: the middle one is exactly black."""
_KEY = ["patient_id", "laterality", "view", "source"]
_FACTS = ("laterality", "view", "source", "density", "label", "lesion_kind", "lesion_size", "fold")


@dataclass(frozen=True)
class Example:
    """A case as still pictures: LE, real DES, and the virtual DES of every arm, both DES in one window."""

    title: str
    words: str
    width: int
    height: int
    outline: str
    pictures: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Browser:
    """What the case browser shows: ``data`` for its script, the same as still pictures, and what is not shown."""

    data: Mapping[str, Any]
    examples: Sequence[Example]
    shown: int
    total: int
    lost: int
    seed: str
    first: str

    @property
    def json(self) -> Markup:
        """The data as text that cannot end the script element it stands in."""
        return script_json(self.data)


def script_json(content: Any) -> Markup:
    """JSON for a ``<script type="application/json">``, with no character that HTML gives a meaning."""
    text = json.dumps(_rounded(content), separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 (nothing is left to escape)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def chosen_places(count: int, most: int) -> list[int]:
    """Places in an ordered list: the first, the middle and the last, and evenly in between, at most ``most``."""
    if count <= most:
        return list(range(count))
    middle = (count - 1) // 2
    lower = np.linspace(0, middle, (most + 1) // 2)
    upper = np.linspace(middle, count - 1, most // 2 + 1)[1:]
    return [round(place) for place in (*lower, *upper)]


def browser(evidence: Evidence, most: int) -> Browser | None:
    """The cases with pictures, at most ``most`` of them; None where there are no pictures.

    Of several seeds of an arm the first is shown, so that picture and figures belong to one network.
    """
    cases = _one_seed(evidence)
    with_picture = cases[cases["there"] & cases["arm"].isin(list(evidence.arms))]
    if with_picture.empty:
        return None
    first = next(name for name in evidence.arms if (with_picture["arm"] == name).any())
    listed = with_picture[with_picture["arm"] == first]
    if ORDER_BY in listed:
        listed = listed.sort_values(ORDER_BY, kind="stable")
    chosen = listed.iloc[chosen_places(len(listed), most)]
    groups = dict(iter(cases.groupby(_KEY, sort=False)))
    entries, stills = [], []
    for key in chosen[_KEY].itertuples(index=False, name=None):
        entry, parts = _entry(evidence, groups[key])
        entries.append(entry)
        stills.append(parts)
    examples = [_example(evidence, entries[i], stills[i], title) for title, i in _example_places(len(entries))]
    return Browser(
        data=_data(evidence, entries, first),
        examples=examples,
        shown=len(entries),
        total=len(groups),
        lost=int((cases["picture"].astype(bool) & ~cases["there"]).sum()),
        seed=_seed_words(evidence.cases),
        first=name_of(first),
    )


def is_picture_of(folder: Path, name: str) -> bool:
    """Whether a table names a file in its own folder: the page must not show what lies elsewhere."""
    place = Path(name)
    if not name or place.is_absolute() or ".." in place.parts:
        return False
    try:
        return (folder / place).is_file()
    except (OSError, ValueError):  # a text that no file can be called
        return False


def _one_seed(evidence: Evidence) -> pd.DataFrame:
    """The cases of the first seed of each arm, with all columns that name a case, and whether the picture is there."""
    cases = evidence.cases.copy()
    for name in (*_KEY, "fold", "seed", "picture"):
        cases[name] = cases[name].astype(str) if name in cases else ""
    cases["there"] = [is_picture_of(evidence.folder, name) for name in cases["picture"]]
    first = cases.groupby("arm")["seed"].transform(lambda seeds: sorted_texts(seeds)[0])
    return cases[cases["seed"] == first].drop_duplicates(["arm", *_KEY])


def _seed_words(cases: pd.DataFrame) -> str:
    seeds = sorted_texts(cases["seed"]) if "seed" in cases else []
    numbers = [seed for seed in seeds if seed]
    return numbers[0] if len(numbers) > 1 else ""


def _entry(evidence: Evidence, rows: pd.DataFrame) -> tuple[dict[str, Any], dict[str, CasePicture]]:
    """One case for the script, and its pictures by arm."""
    parts = {
        str(row["arm"]): read_picture(evidence.folder / row["picture"])
        for _, row in rows.iterrows()
        if row["there"] and row["arm"] in evidence.arms
    }
    one = next(iter(parts.values()))
    height, width = one.image.shape
    facts = rows[rows["arm"] == next(iter(parts))].iloc[0]
    metrics = [str(name) for name in rows if name in METRICS]
    entry: dict[str, Any] = {name: str(facts.get(name, "") or "") for name in _FACTS}
    entry |= {
        "name": " ".join(filter(None, (facts["patient_id"], facts["laterality"], facts["view"]))) or facts["source"],
        "lesion": bool((one.lesion > 127).any()),
        "width": width,
        "height": height,
        "window": window(one),
        "outline": outline(one.lesion),
        "le": grey_uri(one.image),
        "real": grey_uri(one.label),
        "virtual": {name: grey_uri(part.pred) for name, part in parts.items()},
        "metrics": {
            str(row["arm"]): {name: float(row[name]) for name in metrics if pd.notna(row[name])}
            for _, row in rows.iterrows()
        },
    }
    return entry, parts


def _data(evidence: Evidence, entries: Sequence[Mapping[str, Any]], first: str) -> dict[str, Any]:
    known = {name for entry in entries for figures in entry["metrics"].values() for name in figures}
    metrics = [metric_of(name) for name in METRICS if name in known]
    colours = LinearSegmentedColormap.from_list("error", COLOURS, STEPS)(np.arange(STEPS), bytes=True)[:, :3]
    return {
        "arms": [{"name": name, "title": name_of(name)} for name in evidence.arms],
        "references": [{"name": name, "title": name_of(name)} for name in evidence.references],
        "first": first,
        "metrics": [asdict(metric) | {"label": metric.label} for metric in metrics],
        "order": ORDER_BY if ORDER_BY in known else (metrics[0].name if metrics else ""),
        "errorRange": ERROR_RANGE,
        "colours": colours.flatten().tolist(),
        "cases": list(entries),
    }


def _example_places(count: int) -> list[tuple[str, int]]:
    """Two of the worst, of the middle and of the best among the cases, each once."""
    middle = (count - 1) // 2
    places = [("worst", 0), ("worst", 1), ("median", middle), ("median", middle + 1), ("best", -2), ("best", -1)]
    found: dict[int, str] = {}
    for title, place in places:
        found.setdefault(place % count, title)
    return [(title, place) for place, title in sorted(found.items())]


def _example(evidence: Evidence, entry: Mapping[str, Any], parts: Mapping[str, CasePicture], title: str) -> Example:
    one = next(iter(parts.values()))
    low, high = entry["window"]
    virtual = [
        (f"virtual, {name}" if len(evidence.arms) > 1 else "virtual DES", part.pred) for name, part in parts.items()
    ]
    return Example(
        title=f"{title}: {entry['name']}",
        words=_words(entry, next(iter(parts))),
        width=entry["width"],
        height=entry["height"],
        outline=entry["outline"],
        pictures=[
            ("LE", entry["le"]),
            *((words, grey_uri(windowed(grey, low, high))) for words, grey in [("real DES", one.label), *virtual]),
        ],
    )


def _words(entry: Mapping[str, Any], arm: str) -> str:
    value = entry["metrics"].get(arm, {}).get(ORDER_BY)
    metric = metric_of(ORDER_BY)
    parts = (
        f"fold {entry['fold']}" if entry["fold"] else "",
        entry["label"],
        f"density {entry['density']}" if entry["density"] else "",
        f"{metric.title} {value:.{metric.digits}f} {metric.unit}" if value is not None else "",
    )
    return " \N{MIDDLE DOT} ".join(part for part in parts if part)
