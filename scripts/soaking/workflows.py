"""The four workflows, each as a call in a forked process and as a command line."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.soaking.material import SIZE, Place

__all__ = ["ROOT", "WORKFLOWS", "Workflow"]

ROOT = Path(__file__).resolve().parents[2]
_NETWORK = {"network_def#width": 4, "network_def#blocks": 1}
_TRAINING = {
    **_NETWORK,
    "image_size": SIZE,
    "discriminator_a_def#width": 4,
    "discriminator_a_def#layers": 1,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "device": "cpu",
    "max_epochs": 3,
    "warmup_epochs": 1,
    "pool_size": 5,
    "decay": 0.5,
    "augmentation_prob": 0.9,
    "panel_interval": 2,
}
"""Everything that carries state from one epoch to the next is on."""

Line = tuple[str, ...]


@dataclass(frozen=True)
class Workflow:
    """One command of the bundle.

    Attributes:
        name: for the table.
        call: runs it in this process; may raise SystemExit.
        line: the command line that does the same, without the interpreter.
        refusal: what a second process in the same folder must say.
        options: of the call, by kind of fault: those that make it hit (a worker to be killed).
        status: exit status of an undisturbed run.
    """

    name: str
    call: Callable[..., int]
    line: Callable[[Place], Line]
    refusal: str
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    status: int = 0


def _bundle_run(run_id: str, config: str, options: dict[str, Any]) -> int:
    from monai.bundle import run

    run(run_id=run_id, config_file=[str(ROOT / "configs" / config)], bundle_root=str(ROOT), **options)
    return 0


def _training_options(place: Place) -> dict[str, Any]:
    paths = {"dataset_dir": str(place.input), "output_dir": str(place.output)}
    return {**_TRAINING, **paths, "model_path": str(place.output / "model.pt"), "resume": True}


def _train(place: Place, **options: Any) -> int:
    return _bundle_run("training", "train.json", _training_options(place) | options)


def _inference_options(place: Place) -> dict[str, Any]:
    paths = {"dataset_dir": str(place.input / "LE"), "output_dir": str(place.output)}
    own = {"model_path": str(place.input / "weights.pt"), "image_size": SIZE, "deterministic_uids": True}
    return {**_NETWORK, **paths, **own, "device": "cpu"}


def _infer(place: Place, **options: Any) -> int:
    return _bundle_run("run", "inference.json", _inference_options(place) | options)


def _prepare_line(place: Place, workers: int = 1) -> Line:
    paths = (str(place.input), "--output", str(place.output), "--private", str(place.root / "private"))
    return ("dicom", *paths, "--size", "32", "--folds", "3", "--workers", str(workers), "--name", "soak", "--quiet")


def _prepare(place: Place, **options: Any) -> int:
    from scripts import prepare_data

    return prepare_data.main(_prepare_line(place, **options))


def _validate_line(place: Place) -> Line:
    values = [f"{name}={value}" for name, value in (_TRAINING | {"max_epochs": 2, "panel_interval": 9}).items()]
    folders = ("--dataset_dir", str(place.input), "--output", str(place.output))
    return ("--arms", "seg35", *folders, "--folds", "1", "--resamples", "100", "--quiet", "--set", *values)


def _validate(place: Place, **options: Any) -> int:
    from scripts import cross_validate

    if options:
        raise ValueError(f"no options of cross-validation: {options}")
    return cross_validate.main(_validate_line(place))


def _options_line(options: dict[str, Any]) -> Line:
    return tuple(word for name, value in options.items() for word in (f"--{name}", str(value)))


def _train_line(place: Place) -> Line:
    config = ("--config_file", "configs/train.json")
    return ("-m", "monai.bundle", "run", "training", *config, *_options_line(_training_options(place)))


def _infer_line(place: Place) -> Line:
    config = ("--config_file", "configs/inference.json")
    return ("-m", "monai.bundle", "run", *config, *_options_line(_inference_options(place)))


_IMPATIENT = {"output_lock#patience": 0.2}
WORKFLOWS = {
    workflow.name: workflow
    for workflow in (
        Workflow(
            "training", _train, _train_line, "another process is writing",
            {"worker": {"num_workers": 1}, "second": _IMPATIENT, "parts": {"micro_batch_size": 2}},
        ),
        Workflow(
            "preparation", _prepare, lambda place: ("scripts/prepare_data.py", *_prepare_line(place)),
            "another prepare_data is filling", {"worker": {"workers": 2}},
        ),
        Workflow(
            "inference", _infer, _infer_line, "another process is writing",
            {"worker": {"num_workers": 1}, "second": _IMPATIENT},
        ),
        Workflow(
            "cross-validation", _validate, lambda place: ("scripts/cross_validate.py", *_validate_line(place)),
            "another command works on",
        ),
    )
}  # fmt: skip


def shown(workflow: Workflow, place: Place) -> str:
    """The command line, for a person who wants to look into a failure."""
    return "python " + shlex.join(workflow.line(place))
