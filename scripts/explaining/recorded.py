"""What the record of a training says of its network and images, taken as values and never run as code.

A config is code, and ``run.json`` holds one. A run may come from elsewhere, so only numbers and texts are taken of it,
and the classes of a network only if a config that is here names them, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

__all__ = ["NETWORKS", "component_names", "recorded_values"]

_VALUES = ("image_size", "image_scaling", "label_scaling", "fold", "seed", "dataset_dir")
_AUGMENTATION = ("rotate", "shift", "zoom", "flip")
NETWORKS = ("network_def", "discriminator_a_def")
"""What a CycleGAN is made of: the generators alike, and the discriminators."""


def recorded_values(run: Path, known: Iterable[str], networks: Sequence[str] = NETWORKS[:1]) -> dict[str, Any]:
    """Values for a config, by id, from the ``run.json`` of a run.

    Args:
        run: output folder of a training.
        known: names of classes that a network may be made of, see `component_names`.
        networks: ids of the networks that are wanted, the generator by default.

    Returns:
        the networks, the values of `_VALUES` that were plain, and ``augmentation``: the ranges of the training's
        ``RandSharedAffined``, as far as they were plain.

    Raises:
        ValueError: there is no record, or a network is made of something else.
    """
    config = _config(run / "run.json")
    found = {name: config[name] for name in _VALUES if name in config and _is_plain(config[name])}
    if isinstance(found.get("dataset_dir"), str):
        found["dataset_dir"] = str(Path(found["dataset_dir"]).expanduser())
    for name in networks:
        network = config.get(name)
        if not isinstance(network, Mapping) or "_target_" not in network:
            raise ValueError(f"{run / 'run.json'}: no {name} in its config. Give a run of this bundle's training.")
        found[name] = _component(network, config, set(known), run / "run.json")
    return found | {"augmentation": _augmentation(config)}


def component_names(configs: Iterable[Path]) -> set[str]:
    """The classes that the `NETWORKS` of these config files are made of."""
    names: set[str] = set()
    for path in configs:
        content = ConfigParser.load_config_file(path)
        for key, value in content.items():
            if key.split("#")[0] in NETWORKS:
                names |= set(_targets(value))
    return names


def _targets(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from [str(one)] if key == "_target_" else _targets(one)


def _config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8")).get("config")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: no readable record of a training ({error}). Give its output folder.") from error
    if not isinstance(config, Mapping):
        raise ValueError(f"{path}: it holds no config. Train with this bundle, or give the run's configs: --config.")  # noqa: TRY004
    return config


def _is_plain(value: Any) -> bool:
    """A number, a bool, nothing, or a text that no config evaluates or looks up."""
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and value[:1] not in "$@%")


def _component(value: Any, config: Mapping[str, Any], known: set[str], file: Path) -> Any:
    """A part of ``network_def`` with its references replaced by the plain values that they lead to."""
    if isinstance(value, Mapping):
        name = value.get("_target_")
        if "_target_" in value and not (isinstance(name, str) and name in known):
            raise ValueError(
                f"{file}: its network is a {str(name)[:100]!r}, which no config here names, and what a record says is "
                "not run. Give the configs of that training: --config configs/train.json my_overlay.yaml"
            )
        own = {key: one for key, one in value.items() if not str(key).startswith("_")}
        target = {"_target_": name} if "_target_" in value else {}
        return target | {key: _component(one, config, known, file) for key, one in own.items()}
    if isinstance(value, list):
        return [_component(one, config, known, file) for one in value]
    if isinstance(value, str) and value.startswith("@"):
        value = config.get(value[1:], value)
    if not _is_plain(value):
        raise ValueError(
            f"{file}: its network has the value {str(value)[:100]!r}, an expression, and what a record says is not "
            "run. Write the value itself into the config of the training"
        )
    return value


def _augmentation(config: Mapping[str, Any]) -> dict[str, Any]:
    transforms = (
        (config.get("train") or {}).get("random_transforms") if isinstance(config.get("train"), Mapping) else None
    )
    for one in transforms if isinstance(transforms, list) else []:
        if isinstance(one, Mapping) and str(one.get("_target_", "")).endswith("RandSharedAffined"):
            return {name: one[name] for name in _AUGMENTATION if isinstance(one.get(name), (bool, int, float))}
    return {}
