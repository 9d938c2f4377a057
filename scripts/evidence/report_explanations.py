"""The part of the report about explanations and uncertainty, where ``scripts/explain.py`` has left its results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.charts import Chart, svg_chart
from scripts.evidence.report_cases import chosen_places, is_picture_of
from scripts.evidence.report_load import Evidence
from scripts.evidence.report_pictures import data_uri
from scripts.evidence.report_tables import DASH, Cell, Table, number
from scripts.explaining.curves import ATTRIBUTION_TITLES, METHOD_TITLES, curves_figure

__all__ = ["Explanation", "explanations"]

_FILE = "explanations.json"
_REMEDY = "Run scripts/explain.py again."
_MOST_PANELS = 6
_REGIONS = ("lesion", "margin", "ring", "elsewhere", "outside")
_VERDICTS = {
    True: "passed: with random weights the maps are others",
    False: "FAILED: the maps do not depend on what was learnt, and must not be read as reasons",
    None: "not checked",
}


@dataclass(frozen=True)
class Explanation:
    """One ``explanations.json`` as the page shows it; tables and charts are None where there is nothing to show."""

    name: str
    words: str
    verdicts: Sequence[tuple[str, str]]
    sanity: Table | None
    attribution: Table | None
    uncertainty: Table | None
    curves: Chart | None
    lesions: Table | None
    panels: Sequence[tuple[str, str]]


def explanations(evidence: Evidence) -> list[Explanation]:
    """What is explained of a study, its arms and its runs, or of a single run.

    Raises:
        ValueError: a file is damaged, or a picture that it names; the message names it and the remedy.
    """
    there = [folder for folder in _folders(evidence) if (folder / _FILE).is_file()]
    return [_explanation(folder, _content(folder / _FILE)) for folder in there]


def _folders(evidence: Evidence) -> Iterator[Path]:
    arms = [evidence.folder / name for name in evidence.arms if evidence.study and Path(name).name == name != ".."]
    yield evidence.folder
    for one in dict.fromkeys([evidence.folder, *arms, *(job.folder for job in evidence.jobs)]):
        yield one / "explanations"


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). {_REMEDY}") from error
    if not isinstance(content, dict) or content.get("format") != 1:
        raise ValueError(f"{path}: expected an object with the format 1. {_REMEDY}")
    return content


def _explanation(folder: Path, content: Mapping[str, Any]) -> Explanation:
    try:
        return _shown(folder, content)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        words = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder / _FILE}: not as this bundle writes it ({words}). {_REMEDY}") from error


def _shown(folder: Path, content: Mapping[str, Any]) -> Explanation:
    counts, methods, sanity = content["counts"], content["attribution"]["methods"], content["sanity"]
    curves = curves_figure(methods, content["uncertainty"])
    return Explanation(
        name=str(content.get("title") or folder.name),
        words=(
            f"{_count(counts['cases'])} held-out cases of {_count(counts['patients'])} patients with "
            f"{_count(counts['lesions'])} lesions, {_count(counts['lost'])} of them lost in the virtual DES; "
            f"{_count(counts['explained'])} lesions explained, over the range of real contrast."
        ),
        verdicts=[(ATTRIBUTION_TITLES.get(name, name), _verdict(one)) for name, one in sanity.items()],
        sanity=_sanity_table(sanity),
        attribution=_attribution_table(methods, counts),
        uncertainty=_uncertainty_table(content["uncertainty"]),
        curves=svg_chart(curves, _CURVES) if curves else None,
        lesions=_lesion_table(content["lesions"]),
        panels=_panels(folder, content["lesions"]),
    )


_CURVES = (
    "Deletion: change of the mean virtual DES in the lesion when a growing part of the breast is replaced by the "
    "baseline, the pixels with the largest attribution first, and random ones. Reliability: root mean square error by "
    "the predicted standard deviation in ten bins, as predicted and recalibrated on other patients; the "
    "dotted line is perfect."
)


def _verdict(one: Mapping[str, Any]) -> str:
    words = _VERDICTS[one["passed"]]
    return f"{words} ({one['reason']})" if one["passed"] is None and one.get("reason") else words


def _sanity_table(sanity: Mapping[str, Any]) -> Table | None:
    rows = [
        [
            Cell(ATTRIBUTION_TITLES.get(name, name)),
            Cell("all, drawn anew" if stage["stage"] == "full" else f"last {stage['layers']} of {stage['total']}"),
            *(Cell(_number(stage[key], 2)) for key in ("spearman", "spearman_abs", "ssim")),
        ]
        for name, one in sanity.items()
        for stage in one["stages"]
    ]
    heads = ["method", "random layers", "rank correlation", "of absolute values", "SSIM"]
    caption = "Similarity of maps with random weights to those of the trained network, medians over lesions"
    return Table(caption, heads, rows, texts=(1,)) if rows else None


def _attribution_table(methods: Mapping[str, Any], counts: Mapping[str, Any]) -> Table | None:
    rows = [
        [
            Cell(ATTRIBUTION_TITLES.get(name, name)),
            *(Cell(_number(one["shares"][region], 2)) for region in _REGIONS),
            _figure(one["deletion"]["gain"], 4),
            Cell(f"{_count(one['deletion']['faithful'])} of {_count(counts['explained'])}"),
        ]
        for name, one in methods.items()
        if one["shares"]
    ]
    heads = ["method", "lesion", "margin, to 2 mm", "ring, 2 to 8 mm", "breast elsewhere", "outside",
             "gain by deletion", "lesions with gain above 0"]  # fmt: skip
    return Table("Mean share of the absolute attribution by region", heads, rows) if rows else None


def _uncertainty_table(uncertainty: Mapping[str, Any]) -> Table | None:
    rows = []
    for name, one in uncertainty.items():
        calibration, false = one["calibration"], one["false_enhancement"]
        rows.append([
            Cell(METHOD_TITLES.get(name, name)),
            _figure(calibration["raw"]["ence"], 2),
            Cell(_number(calibration["factor"], 2)),
            _figure(calibration["recalibrated"]["ence"], 2),
            _figure(one["lesion_error_spearman"], 2),
            _figure(one["lost_auc"], 2),
            _figure(false["difference"], 4),
        ])  # fmt: skip
    heads = ["standard deviation by", "ENCE", "too small by", "ENCE, recalibrated", "correlation with lesion error",
             "AUC for lost lesions", "false minus true bright areas"]  # fmt: skip
    caption = "Is the predicted standard deviation as large as the error, and does it warn?"
    return Table(caption, heads, rows) if rows else None


def _lesion_table(lesions: Sequence[Mapping[str, Any]]) -> Table | None:
    figures = {
        "size [mm]": ("lesion_mm", 1),
        "contrast, real": ("lesion_contrast_real", 3),
        "contrast, virtual": ("lesion_contrast_virtual", 3),
        "IG in lesion": ("ig_share_lesion", 2),
        "occlusion in lesion": ("occlusion_share_lesion", 2),
        "std, augmentation": ("std_tta", 4),
        "std, ensemble": ("std_ensemble", 4),
        "error": ("lesion_mae", 3),
    }
    known = {head: (name, digits) for head, (name, digits) in figures.items() if any(name in one for one in lesions)}
    rows = [
        [Cell(_name(one)), *(Cell(_number(one.get(name), digits)) for name, digits in known.values())]
        for one in lesions
    ]
    return Table("The explained lesions, by real contrast", ["lesion", *known], rows) if rows else None


def _name(lesion: Mapping[str, Any]) -> str:
    texts = [str(lesion.get(key) or "") for key in ("patient_id", "laterality", "view")]
    return " ".join(filter(None, texts)) + f", lesion {_count(lesion.get('lesion'))}"


def _panels(folder: Path, lesions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name and data URI of some panels, evenly over the lesions."""
    there = [one for one in lesions if is_picture_of(folder, str(one.get("panel") or ""))]
    return [(_name(there[i]), _png(folder / str(there[i]["panel"]))) for i in chosen_places(len(there), _MOST_PANELS)]


def _png(path: Path) -> str:
    try:
        with Image.open(path, formats=["PNG"]) as file:
            file.verify()
        return data_uri(path.read_bytes(), "png")
    except (OSError, ValueError, SyntaxError) as error:  # the last for a damaged chunk
        raise ValueError(f"{path}: cannot be read as a PNG ({error}). {_REMEDY}") from error


def _figure(figure: Mapping[str, Any], digits: int) -> Cell:
    """Value and interval; a dash and the reason where there is none."""
    if not _is_finite(figure.get("value")):
        return Cell(DASH, str(figure.get("reason") or ""))
    ends = [figure.get("low"), figure.get("high")]
    interval = " to ".join(_number(one, digits) for one in ends) if all(map(_is_finite, ends)) else ""
    return Cell(_number(figure["value"], digits), interval)


def _number(value: Any, digits: int) -> str:
    return number(value, digits) if _is_finite(value) else DASH


def _count(value: Any) -> str:
    return _number(value, 0)


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
