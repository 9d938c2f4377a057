"""Checkpoints from which a training goes on exactly where it stopped."""

from __future__ import annotations

import hashlib
import logging
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from bundle import ranks
from bundle.files import atomic_path, remove_unfinished_in
from bundle.resumable_trainer import ResumableTrainer, TrainingEvents
from bundle.saved_state import load_saved

__all__ = ["TrainingCheckpoint", "fingerprint", "load_networks", "save_atomically"]

logger = logging.getLogger("cesm")
_PROBE = 1 << 20


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def save_atomically(content: object, path: str | Path) -> None:
    """Write ``content`` with ``torch.save`` under a temporary name, then rename: a reader never sees half a file.

    Raises:
        UnwritableError: there is no room for the file.
    """
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError:  # what torch makes of a full disk
            _raise_if_full(temporary)
            raise


def _raise_if_full(path: Path) -> None:
    """Let the disk itself say that no more goes into a file."""
    with path.open("ab") as file:
        file.write(bytes(_PROBE))
        file.flush()
        os.fsync(file.fileno())


def fingerprint(trainer: ResumableTrainer) -> str:
    """SHA-256 over all parameters of the networks: equal networks, equal text."""
    digest = hashlib.sha256()
    for network in trainer.networks.values():
        for parameter in network.parameters():
            digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_networks(trainer: ResumableTrainer, path: str | Path) -> None:
    """Start ``trainer`` from the networks of an earlier stage; its optimisers start anew.

    Args:
        trainer: whose networks are filled.
        path: ``best_networks.pt`` of the earlier run, with all networks; or ``model.pt``, with the generator LE -> DES
            alone: the others then start from random weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds something else or networks of another shape.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no networks at {path}; run the first stage or set initial_weights to its best_networks.pt"
        )
    try:
        states = load_saved(path)
        alone = bool(states) and all(isinstance(value, Tensor) for value in states.values())
        for name, network in trainer.networks.items():
            if name == "network" or not alone:
                network.load_state_dict(states if alone else states[name])
        if alone and len(trainer.networks) > 1:
            logger.warning(f"{path} holds the generator alone: the other networks start from random weights")
    except OSError:
        raise
    except Exception as error:  # another structure fails wherever it happens to
        raise ValueError(
            f"{path} does not fit ({error}); it must be best_networks.pt or model.pt of a run with equal networks"
        ) from error


class TrainingCheckpoint:
    """Save the whole training state at the end of every epoch and restore it.

    The file holds all networks and optimisers, gradient scalers, image pools, the random numbers of torch, numpy and
    Python, the epoch, and the state of ``objects`` (schedules, best-model selection). Rank 0 writes it; what belongs
    to one process (pools, random numbers) is kept for each rank.

    Args:
        path: of the checkpoint file.
        resume: whether :meth:`restore` goes on from the file.
        objects: further objects with ``state_dict`` and ``load_state_dict`` to save, by name; None is passed over.
        settings: what must be the same when the training is resumed (data, fold, seed, …), as plain values.
        initial_weights: networks of an earlier stage to start from, see :func:`load_networks`.
    """

    def __init__(
        self,
        path: str | Path,
        resume: bool = False,
        objects: Mapping[str, _Stateful | None] | None = None,
        settings: Mapping[str, Any] | None = None,
        initial_weights: str | Path | None = None,
    ) -> None:
        self.path = Path(path)
        self.resume = resume
        self.objects = {name: item for name, item in (objects or {}).items() if item is not None}
        self.settings = dict(settings or {})
        self.initial_weights = initial_weights

    def attach(self, engine: Engine) -> None:
        """Save at the end of epochs. Attach it last, so that the other handlers' states are up to date."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, trainer: ResumableTrainer) -> None:
        """Write the state of ``trainer`` and ``objects``; every rank must call it.

        In the last epoch ``TrainingEvents.ENDING`` is fired first, so that the file is the last thing that is written.

        Raises:
            RuntimeError: if the processes of a distributed training no longer have the same networks.
        """
        if trainer.should_terminate or trainer.state.epoch >= trainer.state.max_epochs:
            trainer.fire_event(TrainingEvents.ENDING)
        processes = ranks.gather(trainer.process_state() | {"fingerprint": fingerprint(trainer)})
        if len({process["fingerprint"] for process in processes}) > 1:
            raise RuntimeError("the processes' networks differ; wrap each in DistributedDataParallel")
        if ranks.is_main_rank():
            objects = {name: item.state_dict() for name, item in self.objects.items()}
            own = {"ranks": processes, "objects": objects, "settings": self.settings}
            save_atomically(trainer.training_state() | own, self.path)

    def restore(self, trainer: ResumableTrainer) -> None:
        """Go on from the file if ``resume`` is on, else start from ``initial_weights`` or from the beginning.

        ``resume`` without a file starts from the beginning too, which is right for a run that was stopped before its
        first checkpoint. A start without ``resume`` keeps an older checkpoint under the name ``<name>.previous``.

        Raises:
            ValueError: when the file is not a checkpoint of this training: other networks, data, fold, seed …
        """
        if ranks.is_main_rank():
            remove_unfinished_in(self.path.parent, self.path.name)
        if self.resume and self.path.is_file():
            self._resume(trainer)
            return
        if self.resume:
            logger.warning(f"--resume True, but there is no {self.path} yet: training starts from the beginning")
        elif ranks.is_main_rank() and self.path.is_file():
            previous = self.path.replace(self.path.with_name(self.path.name + ".previous"))
            logger.warning(f"a new training starts; the checkpoint of the last one is kept as {previous}")
        if self.initial_weights is not None:
            load_networks(trainer, self.initial_weights)

    def _resume(self, trainer: ResumableTrainer) -> None:
        try:
            state = load_saved(self.path)
            self._check_settings(state["settings"])
            trainer.load_training_state(state)
            for name, item in self.objects.items():
                item.load_state_dict(state["objects"][name])
            if len(state["ranks"]) == ranks.world_size():
                trainer.load_process_state(state["ranks"][ranks.rank()])
        except OSError:
            raise
        except Exception as error:  # another structure fails wherever it happens to
            remedy = "resume with the config that started the run, or start anew with --resume False"
            raise ValueError(f"{self.path} does not fit this training ({error}); {remedy}") from error
        if len(state["ranks"]) != ranks.world_size():
            logger.warning(
                f"{self.path} is of {len(state['ranks'])} processes and is resumed by {ranks.world_size()}: image "
                "pools start empty and random numbers anew, so the result differs slightly from an uninterrupted run"
            )
        logger.info(f"resumed from {self.path} after epoch {trainer.state.epoch}")

    def _check_settings(self, saved: Mapping[str, Any]) -> None:
        changed = [
            f"{name} was {reprlib.repr(saved.get(name))} and is {value!r}"
            for name, value in self.settings.items()
            if saved.get(name) != value
        ]
        if changed:
            raise ValueError("; ".join(changed))
