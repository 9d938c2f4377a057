"""What is exported: the network of configs/inference.json with its weights, and the config it was built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from bundle.errors import root_cause
from bundle.files import sha256_of
from bundle.overrides import known_ids
from bundle.saved_state import load_saved
from bundle.weights import load_weights
from scripts.config_values import refuse_unknown, with_overrides

__all__ = ["CARD", "ROOT", "Source", "has_card", "read_config", "read_metadata", "read_source"]

ROOT = Path(__file__).resolve().parents[2]
CARD = "models/model_card"


@dataclass(frozen=True)
class Source:
    """A network ready to be exported.

    Attributes:
        root: folder of the bundle.
        weights: file of its weights.
        weights_sha256: of that file.
        overrides: values that differ from ``configs/inference.json``, by id.
        config: content of ``configs/inference.json`` with the overrides.
        metadata: content of ``configs/metadata.json``, see `read_metadata`.
        network: on the CPU, in evaluation mode, with the weights, in 32 bits.
        precision: in which the weights are kept.
    """

    root: Path
    weights: Path
    weights_sha256: str
    overrides: dict[str, Any]
    config: dict[str, Any]
    metadata: dict[str, Any]
    network: nn.Module
    precision: torch.dtype = torch.float32


def read_source(weights: Path, overrides: Mapping[str, Any], root: Path = ROOT) -> Source:
    """Build the network of ``configs/inference.json`` with ``overrides`` and load ``weights``.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the weights do not fit the network, or an override has an id that the config does not know.
    """
    config = read_config(overrides, root)
    # by its own copy: building the network must not leave objects in what is written down
    try:
        network = ConfigParser(config=with_overrides(config, {})).get_parsed_content("network_def")
    except RuntimeError as error:  # MONAI's, with the reason as its cause
        raise ValueError(f"network_def cannot be built: {root_cause(error)}") from error
    load_weights(network, weights)
    precision = next(iter(load_saved(weights).values())).dtype
    digest = sha256_of(weights)
    metadata = read_metadata(digest, root)
    return Source(root, weights, digest, dict(overrides), config, metadata, network.eval(), precision)


def read_config(overrides: Mapping[str, Any], root: Path = ROOT) -> dict[str, Any]:
    """Return ``configs/inference.json`` with ``overrides``.

    Raises:
        ValueError: an override has an id that the config does not know.
    """
    configs = root / "configs"
    config = with_overrides(ConfigParser.load_config_file(configs / "inference.json"), overrides)
    refuse_unknown(config, known_ids(configs, config), overrides)
    return config


def read_metadata(weights_sha256: str, root: Path = ROOT) -> dict[str, Any]:
    """Return ``configs/metadata.json`` as it is true of these weights.

    Its figures, ``eval_metrics``, are those of the model card; of other weights it claims none.
    """
    metadata: dict[str, Any] = ConfigParser.load_config_file(root / "configs" / "metadata.json")
    return metadata if has_card(weights_sha256, root) else metadata | {"eval_metrics": {}}


def has_card(weights_sha256: str, root: Path = ROOT) -> bool:
    """Whether the model card of the bundle is about these weights."""
    card = root / CARD / "README.md"
    return card.is_file() and weights_sha256 in card.read_text(encoding="utf-8")
