"""Whether a model may be evaluated with these settings, and where to, judged by the record of its training."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["DIGEST_FILE", "cases_digest", "check_settings", "results_dir"]

logger = logging.getLogger("cesm")

DIGEST_FILE = "data_digest.txt"
"""Lies beside the results of an evaluation and says on which cases they were measured, see ``cases_digest``."""
_INPUTS = ("image_size", "image_scaling", "label_scaling")
"""What changes the images themselves: a model sees others than in its training where these differ."""


def check_settings(output_dir: str | Path, settings: Mapping[str, Any], external_dir: str | Path | None = None) -> None:
    """Compare the settings of an evaluation with those in the ``run.json`` of the training.

    Without a record (weights that come from elsewhere) a note is logged. Another data set is fine with any fold: that
    is an external test.

    Args:
        output_dir: folder of the training, see `bundle.handlers.RunRecord`.
        settings: of the evaluation: ``image_size``, ``image_scaling``, ``label_scaling``, ``fold`` and ``data``, the
            digest of the data set, None if unknown. Others are not compared.
        external_dir: the external data set, if the model is tested on one. Then a warning is logged where ``data`` is
            not the training's: the training's cases are unknown, and one of them may be among the external ones.

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
    if external_dir is not None and not same_data:
        logger.warning(
            f"dataset_dir is not the data of the training in {path}: whether {external_dir} shares patients or images "
            "with those is not checked, and the trivial predictors are fitted on other data; give the training's "
            "--dataset_dir"
        )
    if "fold" in differing and same_data:
        raise ValueError(
            f"{path}: fold was {trained['fold']} in the training and is {asked['fold']}, of the same data: training "
            f"cases would be scored as test cases; use --fold {trained['fold']}"
        )


def cases_digest(cases: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256, in hexadecimal, of what the datalist says of these cases and where their files lie."""
    return hashlib.sha256(json.dumps(list(cases), sort_keys=True, default=str).encode()).hexdigest()


def results_dir(
    output_dir: str | Path,
    dataset_dir: str | Path,
    data: str | None,
    external_dir: str | Path | None = None,
    digest: str | None = None,
    section: str = "test",
    score_size: int | None = None,
) -> str:
    """The folder for the results of an evaluation: that of the run, or within it one of their own for other data.

    Args:
        output_dir: folder of the training, see `bundle.handlers.RunRecord`.
        dataset_dir: the data set in use.
        data: its digest, None if unknown.
        external_dir: the external data set, if the model is tested on one.
        digest: of the cases that are evaluated, see ``cases_digest``.
        section: of the run's own data.
        score_size: pixels a side to which images are reduced before they are compared.

    Returns:
        ``output_dir``; ``output_dir/validation`` for that section; or ``output_dir/external/<name of the data set's
        folder>`` for data that the run was not trained on, so that the results on its own test section are kept. Where
        that folder holds results on other cases, as of another folder of the same name, the name ends with a part of
        the digest. With a ``score_size`` all of this lies in ``output_dir/scored_at_<score_size>``.
    """
    place = Path(output_dir) if score_size is None else Path(output_dir) / f"scored_at_{score_size}"
    if external_dir is None:
        trained = _recorded(Path(output_dir) / "run.json")
        if trained is None or trained.get("data") in (None, data):
            return str(place if section == "test" else place / section)
    folder = Path(dataset_dir if external_dir is None else external_dir).expanduser().resolve()
    results = place / "external" / folder.name
    if digest is not None and results.exists() and _measured_on(results) != digest:
        results = results.with_name(f"{folder.name}-{digest[:8]}")
    return str(results)


def _measured_on(results: Path) -> str | None:
    try:
        return (results / DIGEST_FILE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def _recorded(path: Path) -> dict[str, Any] | None:
    """The settings in a ``run.json``; None where there are none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    settings = content.get("settings") if isinstance(content, dict) else None
    return settings if isinstance(settings, dict) and settings else None
