"""The figures of this package as ignite metrics, for ``key_val_metric`` and ``additional_metrics`` of MONAI's engines.

Every metric here scores its cases anew: for all figures at once `bundle.handlers.CaseMetrics` is quicker.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from torch import Tensor

from bundle.metrics.case import CASE_FIGURES, case_metrics
from bundle.metrics.distribution import (
    frechet_inception_distance,
    frechet_radiomics_distance,
    kernel_inception_distance,
    perceptual_distance,
)
from bundle.metrics.lesion import breast_region
from bundle.metrics.summary import SET_FIGURES, diversity, summarise

__all__ = ["CaseFigure", "SetDistance", "SetFigure"]

Case = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""pred, label, image and mask of one case, each ``(1, 1, W, H)``."""
_CONTRASTS = ("lesion_contrast_real", "lesion_contrast_virtual", "lesion_cnr_real", "lesion_cnr_virtual")


class _OverCases(Metric):
    """Collects one value per case; under torch.distributed each case of all ranks once, the same on every rank."""

    names: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        output_transform: Callable[[Any], Any] | None = None,
        pixel_mm: float | None = None,
    ) -> None:
        if name not in self.names:
            raise ValueError(f"{type(self).__name__} has no figure {name!r}; there are {', '.join(self.names)}.")
        self.name = name
        self.pixel_mm = pixel_mm
        self._transform = output_transform
        self._own: list[tuple[str, Any]] = []
        super().__init__()

    def reset(self) -> None:
        """Forget all cases; ignite calls it at the start of an epoch."""
        self._own = []

    def update(self, output: Sequence[Any]) -> None:
        """Add the cases of ``(pred, label, image)`` or ``(pred, label, image, mask)``, batched or in lists."""
        self._add(_cases(output), None)

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Add the cases of the step that ``engine`` has just completed."""
        from bundle.handlers.cases import cases_of, source_path  # bundle.handlers imports this package

        if self._transform is None:
            found = cases_of(engine)
            cases = [(c["pred"], c["label"], c["image"], c["label_mask"]) for c in found]
            self._add(cases, [c["path"] for c in found])
        else:
            items = _items(engine)
            self._add(_cases(self._transform(items)), [source_path(item) for item in items])

    def compute(self) -> float:
        """The figure over the cases so far; NaN if none has it."""
        from bundle.handlers.cases import gather_cases

        values = gather_cases(self._own)
        return self._joined(values) if values else float("nan")

    def _add(self, cases: Sequence[Case], paths: Sequence[str] | None) -> None:
        paths = [""] * len(cases) if paths is None or len(paths) != len(cases) else paths
        self._own += [(path, self._value(case)) for path, case in zip(paths, cases, strict=True)]

    @abstractmethod
    def _value(self, case: Case) -> Any: ...

    @abstractmethod
    def _joined(self, values: list[Any]) -> float: ...


class CaseFigure(_OverCases):
    """Mean of one figure of `bundle.metrics.case_metrics` over the cases that have it; NaN if none has.

    In a config: ``"key_val_metric": {"lesion_mae": {"_target_": "bundle.metrics.CaseFigure", "name": "lesion_mae"}}``.

    Args:
        name: of the figure.
        output_transform: from the step to ``(pred, label, image)`` or ``(pred, label, image, mask)``, each a batch
            ``(B, 1, W, H)`` or a list of ``(1, W, H)``, in [0, 1]; for instance
            ``monai.handlers.from_engine(["pred", "label", "image", "label_mask"])``. It is given the decollated list of
            cases with the keys of ``engine.state.batch`` and of ``engine.state.output``. None takes the keys that
            `bundle.handlers.cases.cases_of` names, and a case without mask as one without lesion.
        pixel_mm: side of a pixel in mm, see `bundle.metrics.lesion_ring`.

    Raises:
        ValueError: there is no figure of this name; the message lists those there are.
    """

    names = CASE_FIGURES

    def _value(self, case: Case) -> float:
        return float(case_metrics(*case, pixel_mm=self.pixel_mm)[self.name])

    def _joined(self, values: list[float]) -> float:
        return float(pd.Series(values, dtype=np.float64).mean())


class SetFigure(_OverCases):
    """One figure that exists only over several cases; NaN where these are too few.

    ``lesion_contrast_r``, ``contrast_recovery`` and ``enhancement_auc`` of `bundle.metrics.summarise`, ``diversity`` of
    `bundle.metrics.diversity`. Arguments and use as in `CaseFigure`.
    """

    names = SET_FIGURES

    def _value(self, case: Case) -> Any:
        if self.name == "diversity":
            from bundle.handlers.case_metrics import thumbnail

            return thumbnail(case[0].float()), thumbnail(case[1].float())
        figures = case_metrics(*case, pixel_mm=self.pixel_mm)
        return {name: float(figures[name]) for name in _CONTRASTS}

    def _joined(self, values: list[Any]) -> float:
        if self.name == "diversity":
            preds, labels = zip(*values, strict=True)
            return diversity(torch.stack(preds), torch.stack(labels))
        return summarise(pd.DataFrame(values))[self.name]


class SetDistance(_OverCases):
    """Distance between the virtual and the real DES of all cases, see `bundle.metrics.distribution`; low is good.

    ``frd`` compares the breasts and needs the packages of `make radiomics`; ``fid``, ``kid`` and ``lpips`` (the mean
    over pairs) need ``weights``. Images are kept with 8 bits until the end of the epoch. NaN for fewer than 2 cases.

    Args:
        name: of the distance.
        weights: TorchScript file, see the functions of `bundle.metrics.distribution`.
        output_transform: as in `CaseFigure`.

    Raises:
        ValueError: there is no distance of this name, or, when it is computed, no such file.
        ModuleNotFoundError: when it is computed, if the packages for ``frd`` are missing.
    """

    names = ("frd", "fid", "kid", "lpips")

    def __init__(
        self, name: str, weights: str | Path | None = None, output_transform: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(name, output_transform)
        self.weights = weights

    def _value(self, case: Case) -> Any:
        pred, label, image, _ = case
        levels = [(x.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu() for x in (pred, label)]
        return *levels, breast_region(image).cpu()

    def _joined(self, values: list[Any]) -> float:
        if len(values) < 2:
            return float("nan")
        preds, labels, breasts = (torch.cat(column) for column in zip(*values, strict=True))
        preds, labels = preds / 255.0, labels / 255.0
        if self.name == "lpips":
            return float(perceptual_distance(preds, labels, self.weights).mean())
        if self.name == "frd":
            masks = list(breasts[:, 0].numpy())
            real, virtual = (list(x[:, 0].double().numpy()) for x in (labels, preds))
            return frechet_radiomics_distance(real, virtual, masks, masks)
        distance = frechet_inception_distance if self.name == "fid" else kernel_inception_distance
        return distance(labels, preds, self.weights)


def _cases(output: Any) -> list[Case]:
    """One case from every place of ``(pred, label, image[, mask])``."""
    if not isinstance(output, (tuple, list)) or len(output) not in (3, 4):
        found = f"{len(output)} values" if isinstance(output, (tuple, list)) else type(output).__name__
        raise ValueError(
            f"The output_transform gave {found}; expected (pred, label, image) or (pred, label, image, mask), as from "
            "monai.handlers.from_engine(['pred', 'label', 'image', 'label_mask'])."
        )
    preds, labels, images = ([_one(x) for x in column] for column in output[:3])
    masks: list[Tensor | None] = [None] * len(preds)
    if len(output) == 4:
        masks = [_one(x) for x in output[3]]
    return list(zip(preds, labels, images, masks, strict=True))


def _one(x: Any) -> Tensor:
    return torch.as_tensor(x).detach().as_subclass(Tensor)[None]


def _items(engine: Engine) -> list[dict[str, Any]]:
    """One dictionary for every case of the step: what is in the batch and in the output, which wins."""
    from monai.data import decollate_batch  # slow to import

    batch: Any = engine.state.batch
    output: Any = engine.state.output
    if isinstance(batch, Mapping) and isinstance(output, Mapping):
        return [dict(item) for item in decollate_batch({**batch, **output})]
    return [{**b, **o} for b, o in zip(batch or [], output or [], strict=True)]
