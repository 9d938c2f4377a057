"""All that reads weights and checkpoints of others."""

from __future__ import annotations

from pathlib import Path

from bundle.checkpoint import load_networks
from bundle.federated import served_weights
from bundle.weights import load_weights
from scripts.federated.extract import global_weights
from scripts.fuzzing.attempts import Attempts, Readers
from scripts.fuzzing.small_trainer import network_of, saver, trainer

__all__ = ["READERS"]


def _read(folder: Path, attempt: Attempts) -> None:
    for path in sorted(folder.iterdir()):
        attempt(lambda path=path: load_weights(network_of("network"), path))  # type: ignore[misc]
        if path.name == "FL_global_model.pt":
            weights = attempt(lambda path=path: global_weights(path))  # type: ignore[misc]
            served_weights(weights or {})
        elif path.name == "best_networks.pt":
            attempt(lambda path=path: load_networks(trainer(), path))  # type: ignore[misc]
        elif path.name == "checkpoint.pt":
            attempt(lambda path=path: saver(path).restore(trainer()))  # type: ignore[misc]


READERS = Readers(_read, (ValueError,))
