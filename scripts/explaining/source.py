"""What is explained: trained generators and the cases that took no part in their training."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from bundle.errors import root_cause
from bundle.metrics import breast_region
from bundle.provenance import check_settings
from bundle.saved_state import load_saved
from bundle.transforms.items import plain
from bundle.weights import load_weights
from scripts.explaining.recorded import NETWORKS, component_names, recorded_values

__all__ = ["CONFIGS", "ROOT", "Case", "HeldOut", "Place", "case_of", "held_out", "runs_of", "training_networks"]

logger = logging.getLogger("cesm")

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
_CYCLE = ("network", "generator_ba", "discriminator_a", "discriminator_b")
_JOB = re.compile(r"fold_(\d+)_seed_(-?\d+)")


@dataclass(frozen=True)
class Case:
    """One case on the grid of the network: ``(1, 1, W, H)`` float32 in [0, 1] each, ``breast`` bool.

    ``mask`` is the lesion as drawn on the real DES, ``image_mask`` on the LE image; 0 where none is drawn.
    """

    image: Tensor
    label: Tensor
    mask: Tensor
    breast: Tensor
    image_mask: Tensor


@dataclass(frozen=True)
class Place:
    """Where data and weights are, and where they are used.

    Args:
        configs: files that describe the training, from left to right.
        dataset_dir: data set of the training; None: the recorded one.
        external_dir: a data set that took no part in it, to be explained in place of the test section.
        device: of the networks.
    """

    configs: tuple[Path, ...] = (CONFIGS / "train.json",)
    dataset_dir: Path | None = None
    external_dir: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class HeldOut:
    """One trained generator with the cases that it has not seen in training.

    Args:
        name: of the run.
        network: makes it, with its weights, in evaluation mode, without gradients of its weights.
        members: make the other networks of the ensemble.
        entries: of the datalist, with absolute paths.
        load: from such an entry to the case.
        augmentation: ranges of the training's random maps.
        caveats: what must be said with every figure.
    """

    name: str
    network: Callable[[], nn.Module]
    members: tuple[Callable[[], nn.Module], ...]
    entries: Sequence[dict[str, Any]]
    load: Callable[[dict[str, Any]], Case]
    augmentation: dict[str, Any]
    caveats: list[str] = field(default_factory=list)


def runs_of(folder: Path) -> list[list[Path]]:
    """The runs in a folder, a list for each fold with its seeds in order: the folder itself, or those of a study's arm.

    Raises:
        ValueError: the folder is neither.
    """
    if (folder / "run.json").is_file():
        return [[folder]]
    folds: dict[int, list[tuple[int, Path]]] = {}
    for path in folder.glob("fold_*_seed_*"):
        found = _JOB.fullmatch(path.name)
        if found and (path / "model.pt").is_file():
            folds.setdefault(int(found[1]), []).append((int(found[2]), path))
    if not folds:
        raise ValueError(
            f"{folder}: found no run.json, so this is no run, and no trained fold_K_seed_S, so it is no arm of a "
            "study. Give runs/my, or runs/study/ARM."
        )
    return [[path for _, path in sorted(folds[fold])] for fold in sorted(folds)]


def held_out(run: Path, members: Sequence[Path], place: Place) -> HeldOut:
    """The generator of a run with its test cases.

    Args:
        run: output folder of a training.
        members: further output folders, or files of weights of the same network, for the ensemble.
        place: see there.

    Raises:
        ValueError: a record or weights do not fit, or a member was trained on cases that are explained here.
        FileNotFoundError: weights are missing.
        SystemExit: with code 1, after a table of what is wrong with the data.
    """
    parser = _parser(run, place)
    try:
        entries = list(parser.get_parsed_content("validate#dataset#data"))
        preprocessing = parser.get_parsed_content("validate#preprocessing")
        settings, caveats = (parser.get_parsed_content(name) for name in ("settings", "caveats"))
    except RuntimeError as error:  # MONAI's, with the reason as its cause
        raise ValueError(f"{run}: {root_cause(error)}") from error
    check_settings(run, settings, place.external_dir)
    for member in members:
        _check_member(member, settings, place)
    return HeldOut(
        name=run.name,
        network=lambda: _network(run, run / "model.pt", place),
        members=tuple(_member(one, run, place) for one in members),
        entries=entries,
        load=lambda entry: case_of(preprocessing(dict(entry)), place.device),
        augmentation=_recorded(run, place)["augmentation"],
        caveats=list(caveats),
    )


def training_networks(run: Path, place: Place) -> dict[str, nn.Module]:
    """Both generators and discriminators of a CycleGAN training, as ``best_networks.pt`` of its folder has them.

    Raises:
        ValueError: the file is not there or does not fit the record.
    """
    try:
        states = load_saved(run / "best_networks.pt")
        parser = _parser(run, place, NETWORKS)
        networks = {name: parser.get_parsed_content(name) for name in _CYCLE}
        for name, network in networks.items():
            network.load_state_dict(states[name])
    except (RuntimeError, OSError, KeyError, TypeError) as error:
        raise ValueError(
            f"{run}: no networks of a CycleGAN can be had from its best_networks.pt: {root_cause(error)}. Give the "
            "output folder of a training with generators and discriminators"
        ) from error
    return networks


def _check_member(member: Path, settings: Mapping[str, Any], place: Place) -> None:
    """Refuse a network of the ensemble that has seen the cases in its training; of mere weights nobody knows."""
    if not member.is_dir():
        logger.warning(f"{member}: it is unknown whether these weights were trained on the cases that are explained")
        return
    try:
        check_settings(member, settings, place.external_dir)
    except ValueError as error:
        raise ValueError(f"{member} cannot be in the ensemble of these cases. {error}") from error


def _member(member: Path, run: Path, place: Place) -> Callable[[], nn.Module]:
    if member.is_dir():
        return lambda: _network(member, member / "model.pt", place)
    return lambda: _network(run, member, place)


def _recorded(run: Path, place: Place, networks: Sequence[str] = NETWORKS[:1]) -> dict[str, Any]:
    known = component_names([*CONFIGS.glob("*.json"), *CONFIGS.glob("*.yaml"), *place.configs])
    return recorded_values(run, known, networks)


def _parser(run: Path, place: Place, networks: Sequence[str] = NETWORKS[:1]) -> ConfigParser:
    """The evaluation of the run, as ``configs/evaluate.json`` describes it."""
    missing = [str(path) for path in place.configs if not path.is_file()]
    if missing:
        raise ValueError(f"no config {missing[0]}; give files, such as configs/train.json")
    parser = ConfigParser(ConfigParser.load_config_files([*map(str, place.configs), str(CONFIGS / "evaluate.json")]))
    values = {name: value for name, value in _recorded(run, place, networks).items() if name != "augmentation"}
    values |= {"bundle_root": str(ROOT), "output_dir": str(run), "device": place.device}
    if place.dataset_dir is not None:
        values["dataset_dir"] = str(place.dataset_dir)
    if place.external_dir is not None:
        values["external_dir"] = str(place.external_dir)
    for name, value in values.items():
        parser[name] = value
    parser.parse(True)
    return parser


def _network(run: Path, weights: Path, place: Place) -> nn.Module:
    try:
        network: nn.Module = _parser(run, place).get_parsed_content("network")
    except RuntimeError as error:
        raise ValueError(f"{run}: its network cannot be built: {root_cause(error)}") from error
    return load_weights(network, weights).eval().requires_grad_(False)


def case_of(item: dict[str, Any], device: str) -> Case:
    """The case of an item as the deterministic transforms of the configs make it."""
    image, label, mask, image_mask = (
        plain(item[key]).to(device=device, dtype=torch.float32)[None].contiguous()
        for key in ("image", "label", "label_mask", "mask")
    )
    return Case(image, label, mask, breast_region(image), image_mask)
