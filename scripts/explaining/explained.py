"""The attributions of chosen lesions, whether they are faithful and depend on the weights, with their pictures."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn
from tqdm import tqdm

from bundle.files import atomic_path
from bundle.networks import ResnetGenerator
from scripts.evidence.report_cases import chosen_places
from scripts.explaining.attribution import (
    Attribution,
    Target,
    baseline_of,
    batch_size_for,
    integrated_gradients,
    lesion_mean,
    occlusion,
    shares,
)
from scripts.explaining.deletion import FRACTIONS, Deletion, deletion
from scripts.explaining.lesions import lesion_masks, regions_of
from scripts.explaining.pictures import panel, save
from scripts.explaining.sanity import randomised, sanity_rows
from scripts.explaining.source import Case, HeldOut
from scripts.explaining.study import CasePredictor, Measured, Options, Prediction

__all__ = ["ATTRIBUTIONS", "COMPLETE", "Explained", "explain_lesions"]

ATTRIBUTIONS = ("ig", "occlusion")
COMPLETE = 0.05
"""Integrated gradients are complete if their sum misses the difference by at most this share of it."""
_CASES_WITHOUT_LESION = 2


@dataclass
class Explained:
    """What was found of the chosen lesions.

    Attributes:
        lesions: one row a lesion: its row of `Measured.lesions`, then ``explained_difference``, ``ig_delta``,
            ``<method>_share_<region>``, ``<method>_deletion_gain``, ``lesion_area_share``, ``panel`` and ``maps``.
        sanity: one row a lesion, method and stage, see `scripts.explaining.sanity`.
        curves: one row a lesion, method and fraction of the breast: ``named`` and ``random``, by how much the
            explained number changes without those pixels, see `scripts.explaining.deletion`.
        panels: of cases without a lesion, relative paths.
    """

    lesions: pd.DataFrame = field(default_factory=pd.DataFrame)
    sanity: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    panels: list[str] = field(default_factory=list)


def explain_lesions(
    runs: Sequence[HeldOut], measured: Measured, chosen: pd.DataFrame, options: Options, output: Path
) -> Explained:
    """Attributions of the chosen lesions; writes ``panels/`` and ``maps/`` in ``output``.

    The first `Options.sanity_lesions` lesions, evenly over the chosen ones, are explained with random weights too.

    Args:
        runs: as they were given to `measure`.
        measured: of all cases; two cases without a lesion get a panel of their uncertainty.
        chosen: rows of ``measured.lesions``.
        options: how much is done.
        output: folder.
    """
    checked = set(chosen.index[chosen_places(len(chosen), options.sanity_lesions)]) if options.sanity_lesions else set()
    rows: dict[str, list[dict[str, Any]]] = {"lesions": [], "sanity": [], "curves": []}
    panels: list[str] = []
    plain = _without_lesion(measured.cases)
    with tqdm(total=len(chosen), desc="attribution", unit="lesion", disable=not options.progress) as bar:
        for number, run in enumerate(runs):
            own, own_plain = chosen[chosen["fold"] == number] if len(chosen) else chosen, plain[plain["fold"] == number]
            if own.empty and own_plain.empty:
                continue
            predict = CasePredictor(run, options)
            for index, row in own.iterrows():
                name = f"lesion_{len(rows['lesions']) + 1:03d}"
                one = _Lesion(run, predict, dict(row), options)
                rows["lesions"].append(one.row() | one.write(output, name))
                rows["curves"] += [{"name": name} | curve for curve in one.curves()]
                rows["sanity"] += [{"name": name} | stage for stage in one.sanity()] if index in checked else []
                bar.update()
            for _, row in own_plain.iterrows():
                panels.append(_plain_panel(run, predict, dict(row), output, len(panels) + 1))
    lesions, sanity, curves = (pd.DataFrame(rows[key]) for key in ("lesions", "sanity", "curves"))
    return Explained(lesions, sanity, curves, panels)


def _without_lesion(cases: pd.DataFrame) -> pd.DataFrame:
    """Cases without a lesion: the one with the highest uncertainty and the one with the lowest."""
    rows = cases[cases["lesions"] == 0]
    column = next((str(name) for name in cases if str(name).startswith("std_")), None)
    if column is None or rows.empty:
        return rows.head(0)
    return rows.sort_values(column, kind="stable", ascending=False).iloc[
        chosen_places(len(rows), _CASES_WITHOUT_LESION)
    ]


def _plain_panel(run: HeldOut, predict: CasePredictor, row: dict[str, Any], output: Path, number: int) -> str:
    case = run.load(run.entries[row["entry"]])
    found = predict(case)
    figure = panel(case, found.pred, None, {}, found.stds, f"{_title(row)}, without a lesion")
    return save(figure, output / "panels" / f"case_{number:03d}.png").relative_to(output).as_posix()


def _title(row: dict[str, Any]) -> str:
    return " ".join(filter(None, (row["patient_id"], row["laterality"], row["view"]))) or str(row["source"])


class _Lesion:
    """One lesion with its attributions."""

    def __init__(self, run: HeldOut, predict: CasePredictor, found: dict[str, Any], options: Options) -> None:
        self.found, self.options = found, options
        self.case: Case = run.load(run.entries[found["entry"]])
        self.lesion = lesion_masks(self.case.mask, self.case.breast)[found["lesion"] - 1]
        self.network = predict.network
        self.prediction: Prediction = predict(self.case)
        self.baseline = baseline_of(self.case.image, self.case.breast, options.baseline)
        self.maps = {name: self._explain(name, self.network) for name in ATTRIBUTIONS}
        self.deletions = {name: self._deletion(one) for name, one in self.maps.items()}

    def _target(self, network: nn.Module) -> Target:
        return lesion_mean(network, self.lesion)

    def _explain(self, name: str, network: nn.Module) -> Attribution:
        target, image = self._target(network), self.case.image
        if name == "occlusion":
            return occlusion(target, image, self.baseline, self.options.patch_mm)
        with _little_memory(network, image):
            return integrated_gradients(target, image, self.baseline, self.options.steps)

    def _deletion(self, one: Attribution) -> Deletion:
        target = self._target(self.network)
        return deletion(target, self.case.image, self.baseline, one.map, self.case.breast, self.options.seed)

    def row(self) -> dict[str, Any]:
        """The figures of the lesion and of its maps."""
        regions, ig = regions_of(self.lesion, self.case.breast), self.maps["ig"]
        row = self.found | {"explained_difference": ig.difference, "ig_delta": ig.delta}
        row["ig_complete"] = abs(ig.delta) <= COMPLETE * abs(ig.difference)
        for name, one in self.maps.items():
            row |= {f"{name}_share_{region}": share for region, share in shares(one.map, regions).items()}
            row[f"{name}_deletion_gain"] = self.deletions[name].gain
        row["lesion_area_share"] = float(self.lesion.sum() / self.case.breast.sum())
        return row

    def curves(self) -> Iterator[dict[str, Any]]:
        """One row a method and fraction of the breast."""
        for name, one in self.deletions.items():
            for fraction, named, random in zip(FRACTIONS, one.named, one.random, strict=True):
                yield {"method": name, "fraction": fraction, "named": named - one.start, "random": random - one.start}

    def sanity(self) -> Iterator[dict[str, Any]]:
        """Integrated gradients at every stage of randomisation; occlusion, which takes long, once, with all random."""
        for name in ATTRIBUTIONS:
            stages = randomised(self.network, self.case.image, self.options.seed)
            if name == "occlusion":
                stages = itertools.islice((one for one in stages if one.name == "full"), 1)
            explain = functools.partial(self._map, name)
            for row in sanity_rows(explain, self.maps[name].map, stages, self.case.breast):
                yield {"method": name} | row

    def _map(self, name: str, network: nn.Module) -> Tensor:
        return self._explain(name, network).map

    def write(self, output: Path, name: str) -> dict[str, str]:
        """Write the panel and the maps; return their relative paths."""
        maps = {key: one.map for key, one in self.maps.items()}
        words = "contrast {lesion_contrast_real:.3f} real, {lesion_contrast_virtual:.3f} virtual".format(**self.found)
        title = f"{_title(self.found)}, lesion {self.found['lesion']}: {words}"
        figure = panel(self.case, self.prediction.pred, self.lesion, maps, self.prediction.stds, title)
        picture = save(figure, output / "panels" / f"{name}.png")
        arrays = {key: _array(one) for key, one in maps.items()}
        arrays |= {f"std_{key}": _array(one) for key, one in self.prediction.stds.items()}
        arrays |= {"lesion": self.lesion[0, 0].T.cpu().numpy(), "pred": _array(self.prediction.pred)}
        with atomic_path(output / "maps" / f"{name}.npz") as path:
            np.savez_compressed(path, **arrays)
        return {"panel": picture.relative_to(output).as_posix(), "maps": f"maps/{name}.npz"}


def _array(x: Tensor) -> Any:
    """``(1, 1, W, H)`` as float32 ``(H, W)``, as pictures are stored."""
    return x[0, 0].detach().float().T.cpu().numpy()


@contextmanager
def _little_memory(network: nn.Module, image: Tensor) -> Iterator[None]:
    """Let our generator recompute its maps in the backward pass where one image alone is large."""
    if batch_size_for(image) > 1 or not isinstance(network, ResnetGenerator):
        yield
        return
    before, network.checkpointing = network.checkpointing, True
    try:
        yield
    finally:
        network.checkpointing = before
