"""Whether a model may be evaluated with these settings, judged by the record of its training."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["check_settings"]

logger = logging.getLogger("cesm")

_INPUTS = ("image_size", "image_scaling", "label_scaling")
"""What changes the images themselves: a model sees others than in its training where these differ."""


def check_settings(output_dir: str | Path, settings: Mapping[str, Any]) -> None:
    """Compare the settings of an evaluation with those in the ``run.json`` of the training.

    Without a record (weights that come from elsewhere) a note is logged. Another data set is fine with any fold: that
    is an external test.

    Args:
        output_dir: folder of the training, see `bundle.handlers.RunRecord`.
        settings: of the evaluation: ``image_size``, ``image_scaling``, ``label_scaling``, ``fold`` and ``data``, the
            digest of the data set, None if unknown. Others are not compared.

    Raises:
        ValueError: the images are prepared in another way than in the training, or test cases of this fold took part in
            the training.
    """
    path = Path(output_dir) / "run.json"
    trained = _recorded(path)
    if trained is None:
        logger.warning(
            f"no settings of a training in {path}: it is unknown which cases these weights were trained on and how "
            "their images were prepared"
        )
        return
    # as run.json would hold them: a tuple is a list there
    asked = json.loads(json.dumps(dict(settings), default=str))
    differing = [name for name in asked if name in trained and trained[name] != asked[name]]
    changed = [name for name in _INPUTS if name in differing]
    if changed:
        found = "; ".join(f"{name} was {trained[name]} in the training and is {asked[name]}" for name in changed)
        options = " ".join(f"--{name} {trained[name]}" for name in changed)
        raise ValueError(f"{path}: {found}. The model would see other images than it has learnt on; use {options}")
    same_data = asked.get("data") is not None and asked["data"] == trained.get("data")
    if "fold" in differing and same_data:
        raise ValueError(
            f"{path}: fold was {trained['fold']} in the training and is {asked['fold']}, of the same data: training "
            f"cases would be scored as test cases; use --fold {trained['fold']}"
        )


def _recorded(path: Path) -> dict[str, Any] | None:
    """The settings in a ``run.json``; None where there are none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    settings = content.get("settings") if isinstance(content, dict) else None
    return settings if isinstance(settings, dict) and settings else None
