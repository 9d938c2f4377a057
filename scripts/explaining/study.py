"""Go through the held-out cases of one or several runs: uncertainty of all, attributions of chosen lesions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bundle.metrics import lesion_ring, mae, region_mean
from scripts.evidence.report_cases import chosen_places
from scripts.explaining.attribution import Baseline
from scripts.explaining.flags import bright_areas
from scripts.explaining.lesions import lesion_figures, lesion_masks
from scripts.explaining.source import Case, HeldOut
from scripts.explaining.uncertainty import augmented_std, draw_maps, ensemble_std

__all__ = ["CasePredictor", "Measured", "Options", "Prediction", "chosen_lesions", "measure", "named"]

PIXELS_PER_CASE = 4096
"""Pixels of the breast that a case gives to the calibration, at random: every case counts alike, memory is bounded."""


@dataclass(frozen=True)
class Options:
    """How much is done.

    Args:
        lesions: most lesions that are explained.
        names: files of cases; lesions of these alone are explained. Empty: of all.
        baseline: what attributions compare with.
        steps: of integrated gradients.
        patch_mm: side of the patch of occlusion.
        maps: augmented images of each case.
        sanity_lesions: lesions among them on which the method is checked with random weights.
        seed: of all random numbers.
        progress: whether to show progress bars.
    """

    lesions: int = 12
    names: tuple[str, ...] = ()
    baseline: Baseline = "smoothed"
    steps: int = 32
    patch_mm: float = 10.0
    maps: int = 8
    sanity_lesions: int = 3
    seed: int = 0
    progress: bool = True


@dataclass(frozen=True)
class Prediction:
    """The virtual DES of a case and its standard deviation by method, ``(1, 1, W, H)`` each."""

    pred: Tensor
    stds: dict[str, Tensor]


@dataclass
class Measured:
    """What all held-out cases give.

    Attributes:
        cases: one row a case: its name, ``run``, ``breast_mae``, ``std_<method>`` (mean in the breast), ``lesions``.
        lesions: one row a lesion, see `scripts.explaining.lesions.lesion_figures`, with ``std_<method>`` inside.
        areas: one row a bright area, see `scripts.explaining.flags.bright_areas`.
        pixels: ``patient_id``, ``error`` and the standard deviation of each method, for some pixels of every case.
    """

    cases: pd.DataFrame = field(default_factory=pd.DataFrame)
    lesions: pd.DataFrame = field(default_factory=pd.DataFrame)
    areas: pd.DataFrame = field(default_factory=pd.DataFrame)
    pixels: pd.DataFrame = field(default_factory=pd.DataFrame)


class CasePredictor:
    """Predicts the cases of a run with their standard deviations; the networks are made once."""

    def __init__(self, run: HeldOut, options: Options) -> None:
        self.network: nn.Module = run.network()
        self.networks = [self.network, *(member() for member in run.members)]
        self.maps = draw_maps(options.maps, run.augmentation, options.seed) if options.maps else None

    def __call__(self, case: Case) -> Prediction:
        """The virtual DES, and ``tta`` and ``ensemble`` as far as there are augmented images and other networks."""
        with torch.no_grad():
            pred = self.network(case.image).float()
        stds = {}
        if self.maps is not None:
            stds["tta"] = augmented_std(self.network, case.image, self.maps)
        if len(self.networks) > 1:
            stds["ensemble"] = ensemble_std(self.networks, case.image)
        return Prediction(pred, stds)


def named(entry: dict[str, Any], run: HeldOut) -> dict[str, str]:
    """The texts that name a case, as in ``cases.csv``, and its run."""
    texts = {key: str(entry.get(key) or "") for key in ("patient_id", "laterality", "view")}
    return texts | {"source": Path(str(entry["image"])).name.split(".")[0], "run": run.name}


def measure(runs: Sequence[HeldOut], options: Options) -> Measured:
    """Predict every held-out case once and keep its figures.

    Raises:
        ValueError: a network cannot be made.
    """
    rows: dict[str, list[Any]] = {"cases": [], "lesions": [], "areas": [], "pixels": []}
    total = sum(len(run.entries) for run in runs)
    with tqdm(total=total, desc="uncertainty", unit="case", disable=not options.progress) as bar:
        for number, run in enumerate(runs):
            predict = CasePredictor(run, options)
            for place, entry in enumerate(run.entries):
                case = run.load(entry)
                _add(rows, named(entry, run) | {"entry": place, "fold": number}, case, predict(case), options.seed)
                bar.update()
    cases, lesions, areas = (pd.DataFrame(rows[key]) for key in ("cases", "lesions", "areas"))
    return Measured(
        cases,
        lesions,
        areas,
        pd.concat(rows["pixels"], ignore_index=True) if rows["pixels"] else pd.DataFrame(),
    )


def _add(rows: dict[str, list[Any]], name: dict[str, Any], case: Case, found: Prediction, seed: int) -> None:
    lesions = list(_lesion_rows(case, found))
    near, _ = lesion_ring(case.mask, case.breast)
    rows["lesions"] += [name | {"lesion": number} | row for number, row in enumerate(lesions, 1)]
    rows["areas"] += [name | row for row in bright_areas(found.pred, case.label, case.breast, near, found.stds)]
    own = {"lesions": len(lesions), "breast_mae": float(mae(found.pred, case.label, case.breast))}
    rows["cases"].append(name | own | {f"std_{key}": _mean(std, case.breast) for key, std in found.stds.items()})
    rows["pixels"].append(_some_pixels(case, found, [seed, len(rows["cases"])]).assign(patient_id=name["patient_id"]))


def _lesion_rows(case: Case, found: Prediction) -> Iterator[dict[str, float]]:
    masks = lesion_masks(case.mask, case.breast)
    for lesion in masks:
        others = (case.mask > 0.5) & ~lesion
        near_others, _ = lesion_ring(others.float(), case.breast)
        figures = lesion_figures(found.pred, case.label, lesion, near_others & ~lesion, case.breast)
        yield figures | {f"std_{key}": _mean(std, lesion) for key, std in found.stds.items()}


def _mean(values: Tensor, where: Tensor) -> float:
    """Mean of the known values there; NaN for none."""
    return float(region_mean(torch.nan_to_num(values), where & ~values.isnan()))


def _some_pixels(case: Case, found: Prediction, seed: list[int]) -> pd.DataFrame:
    places = case.breast.flatten().nonzero()[:, 0].cpu().numpy()
    if len(places) > PIXELS_PER_CASE:
        places = np.random.default_rng(seed).choice(places, PIXELS_PER_CASE, replace=False)
    columns = {"error": found.pred - case.label, **found.stds}
    return pd.DataFrame({name: one.flatten().cpu().numpy()[places] for name, one in columns.items()})


def chosen_lesions(lesions: pd.DataFrame, options: Options) -> pd.DataFrame:
    """The lesions that are explained, evenly over the order of their real contrast from the weakest to the strongest.

    Raises:
        ValueError: no case has one of the names asked for.
    """
    if options.names:
        unknown = set(options.names) - set(lesions.get("source", pd.Series(dtype=str)))
        if unknown:
            raise ValueError(
                f"no lesion in a held-out case {min(unknown)!r}; give names as in the column source of cases.csv"
            )
        lesions = lesions[lesions["source"].isin(options.names)]
    if lesions.empty or options.lesions == 0:
        return lesions.head(0)
    order = lesions.sort_values("lesion_contrast_real", kind="stable", na_position="first")
    return order.iloc[chosen_places(len(order), options.lesions)]
