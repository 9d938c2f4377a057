"""Checkpoints from which a training goes on exactly where it stopped."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from bundle.trainer import CycleGANTrainer

__all__ = ["TrainingCheckpoint", "fingerprint", "load_networks", "save_atomically"]

logger = logging.getLogger("cesm")


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


def save_atomically(content: object, path: str | Path) -> None:
    """Write ``content`` with ``torch.save`` under a temporary name, then rename: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def fingerprint(trainer: CycleGANTrainer) -> str:
    """SHA-256 over all parameters of the four networks: equal networks, equal text."""
    digest = hashlib.sha256()
    for network in trainer.networks.values():
        for parameter in network.parameters():
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_networks(trainer: CycleGANTrainer, path: str | Path | None) -> None:
    """Start ``trainer`` from the four networks of an earlier stage.

    Args:
        trainer: whose networks are filled; its optimisers start anew.
        path: ``best_networks.pt`` of the earlier run; None changes nothing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds something else or networks of another shape.
    """
    if path is None:
        return
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no networks at {path}; run the first stage or set initial_weights to its best_networks.pt"
        )
    try:
        states = torch.load(path, map_location=trainer.state.device, weights_only=True)
        for name, network in trainer.networks.items():
            network.load_state_dict(states[name])
    except (RuntimeError, KeyError, TypeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(
            f"{path} does not fit ({error}); it must be best_networks.pt of a run with the same network settings"
        ) from error


class TrainingCheckpoint:
    """Save the whole training state at the end of epochs and restore it.

    The file holds four networks, both optimisers, gradient scalers, image pools, the random numbers of torch, numpy and
    Python, epoch and iteration, and the state of ``objects`` (schedules, best-model selection). Rank 0 writes it; what
    belongs to one process (pools, random numbers) is kept for each rank.

    Args:
        path: of the checkpoint file.
        resume: whether :meth:`restore` goes on from the file.
        objects: further objects with ``state_dict`` and ``load_state_dict`` to save, by name.
        interval: epochs between two checkpoints; the last epoch is always saved.
    """

    def __init__(
        self,
        path: str | Path,
        resume: bool = False,
        objects: Mapping[str, _Stateful] | None = None,
        interval: int = 1,
    ) -> None:
        self.path = Path(path)
        self.resume = resume
        self.objects = dict(objects or {})
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Save at the end of epochs. Attach it last, so that the other handlers' states are up to date."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save_if_due)

    def _save_if_due(self, engine: CycleGANTrainer) -> None:
        last = engine.state.epoch >= engine.state.max_epochs or engine.should_terminate
        if last or engine.state.epoch % self.interval == 0:
            self.save(engine)

    def save(self, trainer: CycleGANTrainer) -> None:
        """Write the state of ``trainer`` and ``objects``; every rank must call it.

        Raises:
            RuntimeError: if the processes of a distributed training no longer have the same networks.
        """
        ranks = _gather(trainer.process_state() | {"fingerprint": fingerprint(trainer)})
        if len({rank["fingerprint"] for rank in ranks}) > 1:
            raise RuntimeError("the processes' networks differ; wrap all four in DistributedDataParallel")
        if _rank() > 0:
            return
        state = trainer.training_state() | {"ranks": ranks}
        state["objects"] = {name: item.state_dict() for name, item in self.objects.items()}
        save_atomically(state, self.path)

    def restore(self, trainer: CycleGANTrainer) -> None:
        """Load the file into ``trainer`` and ``objects`` if ``resume`` is on.

        Without a file the training starts from the beginning, which is right for a run that was stopped before its
        first checkpoint. Without ``resume`` an older checkpoint is kept under the name ``<name>.previous``.

        Raises:
            ValueError: when the file is not a checkpoint of this training or its networks differ from the config's.
        """
        if not self.resume:
            self._keep_previous()
            return
        if not self.path.is_file():
            logger.warning(f"--resume true, but there is no {self.path} yet: training starts from the beginning")
            return
        try:
            state = torch.load(self.path, map_location=trainer.state.device, weights_only=True)
            trainer.load_training_state(state)
            for name, item in self.objects.items():
                item.load_state_dict(state["objects"][name])
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            remedy = "resume with the config that started the run, or start anew with --resume false"
            raise ValueError(f"{self.path} does not fit this training ({error}); {remedy}") from error
        self._restore_process(trainer, state["ranks"])
        logger.info(f"resumed from {self.path} after epoch {trainer.state.epoch}")

    def _restore_process(self, trainer: CycleGANTrainer, ranks: list[Any]) -> None:
        if len(ranks) != _world_size():
            logger.warning(
                f"{self.path} was written by {len(ranks)} processes and is resumed by {_world_size()}: image pools "
                "start empty and random numbers anew, so the result differs slightly from an uninterrupted run"
            )
            return
        cpu_state = torch.load(self.path, map_location="cpu", weights_only=True)["ranks"][_rank()]
        trainer.load_process_state(cpu_state)

    def _keep_previous(self) -> None:
        if _rank() == 0 and self.path.is_file():
            previous = self.path.with_name(self.path.name + ".previous")
            self.path.replace(previous)
            logger.warning(f"a new training starts; the checkpoint of the last one is kept as {previous}")


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _gather(state: dict[str, Any]) -> list[Any]:
    if _world_size() == 1:
        return [state]
    states: list[Any] = [None] * _world_size()
    dist.all_gather_object(states, state)
    return states
