"""Other trained generators beside the model that is evaluated, such as the L1-trained one and plain CycleGAN."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bundle.predictors import Predictor
from bundle.provenance import check_settings
from bundle.weights import load_weights

__all__ = ["reference_predictors"]


def reference_predictors(
    references: Mapping[str, str | Path],
    network: nn.Module,
    settings: Mapping[str, Any],
    external_dir: str | Path | None = None,
) -> dict[str, Predictor]:
    """The generators of other runs as predictors.

    Args:
        references: name -> output folder of a run with the same network settings; its ``model.pt`` is used.
        network: gives the architecture; it is copied and itself left as it is.
        settings: of the evaluation, compared with those of each run as for the model itself
            (`bundle.provenance.check_settings`): another fold of the same data would score training cases.
        external_dir: as there.

    Returns:
        name -> predictor, from a batch with ``image`` ``(B, 1, W, H)`` in [0, 1] to a virtual DES.

    Raises:
        ValueError: the settings differ, or the weights do not fit.
        FileNotFoundError: a run has no weights.
    """
    return {
        str(name): _predictor(Path(run), copy.deepcopy(network), settings, external_dir)
        for name, run in references.items()
    }


def _predictor(
    run: Path, network: nn.Module, settings: Mapping[str, Any], external_dir: str | Path | None
) -> Predictor:
    check_settings(run, settings, external_dir)
    load_weights(network, run / "model.pt")
    network.eval()

    def predict(batch: Mapping[str, Any]) -> Tensor:
        image: Tensor = batch["image"]
        with torch.inference_mode():
            pred: Tensor = network.to(image.device)(image)
        return pred.float()

    return predict
