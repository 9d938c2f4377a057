"""The model card of the weights: ``README.md`` in a folder beside them, with a table of cases and two pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from bundle.files import sha256_of, write_text
from bundle.handlers.pictures import Picture, draw, save
from bundle.metrics import ENHANCING_CNR
from scripts.evidence.markdown import figures_table, interval_cell
from scripts.evidence.report_metrics import metric_of
from scripts.evidence.report_pictures import read_picture
from scripts.releasing.recipe import Recipe

__all__ = ["card_cases", "lost_lesions", "write_card"]

SHOWN = (
    *("psnr", "ssim", "vif", "breast_psnr", "breast_ssim", "lesion_psnr", "lesion_mae", "lesion_contrast_r"),
    *("contrast_recovery", "lesion_dice", "false_enhancement"),
)
LOST = 0.5
"""A lesion is lost where less than this share of its contrast comes back."""
_TRAININGS = ("first", "second", "first, all patients", "second, all patients")
_FIGURES = ("val_breast_psnr", "val_lesion_mae", "val_contrast_recovery")


def write_card(recipe: Recipe) -> list[Path]:
    """Write the card and what it shows; return the paths."""
    first, second = recipe.stages
    rows = pd.read_csv(second / "cases.csv", dtype={"patient_id": str})
    folder = recipe.card
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [_picture(second, row, why) for row, why in card_cases(rows)]
    written = [
        save(draw(pictures, "Typical cases and failures (CDD-CESM, CC BY 4.0, reduced)"), folder / "cases.png"),
        save(_curves([pd.read_csv(stage / "history.csv") for stage in (first, second)]), folder / "curves.png"),
        folder / "cases.csv",
        folder / "README.md",
    ]
    write_text(written[2], rows.drop(columns=["picture"]).round(4).to_csv(index=False))
    environment = Environment(  # noqa: S701 - Markdown, from our own results
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    write_text(written[3], environment.get_template("card.md.j2").render(_content(recipe, rows)))
    return written


def lost_lesions(rows: pd.DataFrame) -> tuple[int, int]:
    """How many of the model's enhancing lesions have lost half of their contrast or more, and of how many."""
    lesions = rows[(rows["predictor"] == "model") & (rows["lesion_cnr_real"] > ENHANCING_CNR)]
    lost = lesions["lesion_contrast_virtual"] < LOST * lesions["lesion_contrast_real"]
    return int(lost.sum()), len(lesions)


def card_cases(rows: pd.DataFrame) -> list[tuple[pd.Series, str]]:
    """Cases to show and why: two typical ones, three lost lesions, two with most false enhancement."""
    model = rows[rows["predictor"] == "model"].reset_index(drop=True)
    middle = (model["breast_psnr"] - model["breast_psnr"].median()).abs()
    lost = model["lesion_contrast_virtual"] - model["lesion_contrast_real"]
    chosen: list[tuple[int, str]] = []
    for order, count, why in ((middle, 2, "typical"), (lost, 3, "lost"), (-model["false_enhancement"], 2, "false")):
        places = [int(place) for place in order.dropna().sort_values(kind="stable").index]
        fresh = [place for place in places if place not in {earlier for earlier, _ in chosen}]
        chosen += [(place, why) for place in fresh[:count]]
    return [(model.iloc[place], why) for place, why in chosen]


def _content(recipe: Recipe, rows: pd.DataFrame) -> dict[str, Any]:
    second = recipe.stages[1]
    records = [_json(stage / "run.json") for stage in (*recipe.stages, *recipe.final_stages)]
    test, validation = (_json(folder / "summary.json")["predictors"] for folder in (second, second / "validation"))
    datalist = _json(recipe.data / "datalist.json")["cases"]
    trained = len(datalist) - test["model"]["cases"] - validation["model"]["cases"]
    pairs = (trained, trained, len(datalist), len(datalist))
    lost, enhancing = lost_lesions(rows)
    return {
        "sha256": sha256_of(recipe.weights),
        "cases": len(datalist),
        "patients": len({case["patient_id"] for case in datalist}),
        "trained": trained,
        "validated": validation["model"]["cases"],
        "tested": test["model"]["cases"],
        "test_patients": test["model"]["patients"],
        "terms": [(term["_target_"].rpartition(".")[2], term["weight"]) for term in records[1]["config"]["terms"]],
        "stages": [_stage(*training) for training in zip(_TRAININGS, pairs, records, strict=True)],
        "command": "python scripts/make_weights.py --source FOLDER",
        "size": records[1]["settings"]["image_size"],
        "test_table": figures_table(test, SHOWN, by_metric=True),
        "validation_table": figures_table(validation, SHOWN, by_metric=True),
        "lost": lost,
        "enhancing": enhancing,
        "correlation": interval_cell(test["model"]["metrics"].get("lesion_contrast_r"), 2).replace(
            "<br>", ", interval "
        ),
    }


def _stage(name: str, pairs: int, record: Mapping[str, Any]) -> dict[str, Any]:
    machine = record["machine"]
    devices = ", ".join(machine["gpus"]) or f"CPU, {machine['threads']} of {machine['cores']} cores"
    return {
        "name": name,
        "pairs": pairs,
        "size": record["settings"]["image_size"],
        "epochs": record["epoch"],
        "best": record["best"]["epoch"],
        "hours": f"{record['seconds'] / 3600:.1f}",
        "machine": devices,
    }


def _picture(run: Path, row: pd.Series, why: str) -> Picture:
    parts = read_picture(run / row["picture"])
    title = f"{row['patient_id']} {row['laterality']} {row['view']}\n{why}"
    return Picture(title, parts.image, parts.label, parts.pred, (parts.lesion > 0).astype(np.uint8))


def _curves(histories: Sequence[pd.DataFrame]) -> Figure:
    """Validation figures over the epochs of the trainings that leave patients out, one after the other."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    for ax, name in zip(figure.subplots(1, len(_FIGURES)), _FIGURES, strict=True):
        before = 0
        for stage, history in enumerate(histories):
            known = history[["epoch", name]].dropna()
            ax.plot(known["epoch"] + before, known[name], marker="o", markersize=3, label=("first", "second")[stage])
            before += int(history["epoch"].max())
        ax.set_title(metric_of(name.removeprefix("val_")).label, fontsize=10)
        ax.set_xlabel("epoch", fontsize=8)
        ax.grid(alpha=0.25)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return figure


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
