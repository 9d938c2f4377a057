"""What every training engine of the bundle shares: its networks by name, autocast, and a state to go on from."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from ignite.engine import EventEnum, Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from bundle.image_pool import ImagePool
from bundle.memory import StepMemory, Updates
from bundle.output_lock import OutputLock

__all__ = ["ResumableTrainer", "TrainingEvents", "full_precision", "plain", "unwrap"]


class TrainingEvents(EventEnum):
    """Events of a training.

    ``ENDING``: the last epoch is done and its checkpoint is not yet written. What is to be there after a training is
    made here: if the process dies before it is, the resumed training repeats the epoch and makes it.
    """

    ENDING = "ending"


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside a distributed wrapper, or the network itself."""
    return cast(nn.Module, network.module) if isinstance(network, DistributedDataParallel) else network


def plain(tensor: Tensor) -> Tensor:
    """The tensor without MONAI's metadata, whose bookkeeping would slow every operation."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def full_precision(tensor: Tensor) -> Tensor:
    """Float32 of a half-precision tensor: means over an image lose digits in half precision."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


class ResumableTrainer(SupervisedTrainer):
    """MONAI's supervised trainer with a state from which `bundle.checkpoint.TrainingCheckpoint` goes on exactly.

    A subclass writes the step, ``_iteration``, and names its networks and optimisers. Batches are not decollated. A
    step calls ``_step`` once for each optimiser; weights change at its end, so that one that runs out of memory can be
    done again, see `bundle.memory`.

    Args:
        device: where to train.
        max_epochs: epochs to run.
        train_data_loader: batches; a sampler with ``set_epoch`` is told the epoch.
        network: the served generator LE -> DES.
        optimizer: of the generators.
        loss_function: what the step computes the loss with.
        amp: compute under autocast.
        amp_kwargs: ``dtype`` of autocast, default bfloat16; float16 scales the losses.
        micro_batch_size: images that go through the networks at a time; None is all of a batch, as long as they fit.
        output_lock: held while the training runs, so that no other process writes the same folder.
        kwargs: the other arguments of MONAI's ``SupervisedTrainer``.
    """

    network: nn.Module
    loss_function: nn.Module
    network_names: tuple[str, ...] = ("network",)
    """Attributes that hold the networks."""

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: nn.Module,
        amp: bool = False,
        amp_kwargs: dict[str, Any] | None = None,
        micro_batch_size: int | None = None,
        output_lock: OutputLock | None = None,
        **kwargs: Any,
    ) -> None:
        device = torch.device(device)
        dtype = (amp_kwargs or {}).get("dtype", torch.bfloat16)
        own: dict[str, Any] = {"decollate": False, "optim_set_to_none": True, "iteration_update": self._guarded}
        kwargs = own | kwargs
        self.memory = StepMemory(micro_batch_size)
        self.updates: Updates | None = None
        self.output_lock = output_lock
        objective = loss_function.to(device)
        super().__init__(device, max_epochs, train_data_loader, network, optimizer, objective, amp=False, **kwargs)
        self.amp, self.amp_kwargs = amp, {"dtype": dtype}
        self.optimizers: dict[str, Optimizer] = {}
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self.pools: dict[str, ImagePool] = {}
        self.add_optimizer("G", optimizer)
        self.register_events(*TrainingEvents)
        self._follow_epochs()

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks without distributed wrappers, by name."""
        return {name: unwrap(getattr(self, name)) for name in self.network_names}

    def add_optimizer(self, name: str, optimizer: Optimizer) -> None:
        """Make an optimiser, with a gradient scaler where float16 needs one, part of the state under ``name``."""
        needs_scaling = self.amp and self.amp_kwargs["dtype"] is torch.float16
        self.optimizers[name] = optimizer
        self.scalers[name] = torch.amp.GradScaler(self.state.device.type, enabled=needs_scaling)

    def attach_handlers(self, handlers: Sequence[Any] | None) -> None:
        """Attach handlers; to be called last by a subclass's constructor, since handlers look at the engine."""
        if handlers:
            self._register_handlers(handlers)

    def _follow_epochs(self) -> None:
        sampler: Any = getattr(self.data_loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            self.add_event_handler(Events.EPOCH_STARTED, lambda engine: sampler.set_epoch(engine.state.epoch))

    def run(self) -> None:  # type: ignore[override]  # as MONAI's
        """Train from the current epoch to ``max_epochs``; a run that is complete already is left as it is.

        Raises:
            FolderInUseError: another process writes the same folder.
        """
        with self._locked():
            if self.state.epoch >= self.state.max_epochs > 0:
                self.logger.info(f"training is complete: epoch {self.state.epoch} of {self.state.max_epochs}")
                return
            super().run()

    def _locked(self) -> AbstractContextManager[None]:
        return nullcontext() if self.output_lock is None else self.output_lock.held()

    def _guarded(self, engine: ResumableTrainer, batchdata: dict[str, Any]) -> list[dict[str, Any]]:
        return self.memory.run(engine, self._iteration, batchdata)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs)

    def _pair(self, batchdata: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """LE and DES of a batch on the device.

        Raises:
            ValueError: they differ in shape.
        """
        pair = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)[:2]
        real_A, real_B = map(plain, pair)
        if real_A.shape != real_B.shape:
            raise ValueError(f"image has shape {tuple(real_A.shape)} and label {tuple(real_B.shape)}; they must agree")
        return real_A, real_B

    def _batch(self, batchdata: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """LE, DES and the lesions on each, on the device; no mask is an empty one, and one serves both images."""
        real_A, real_B = self._pair(batchdata)
        mask_A = batchdata.get("mask")
        mask_B = batchdata.get("label_mask", mask_A)
        masks = [
            torch.zeros_like(real_A) if m is None else plain(m).to(real_A, self.non_blocking) for m in (mask_A, mask_B)
        ]
        return real_A, real_B, masks[0], masks[1]

    def _step(self, loss: Tensor, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Go back through a loss; the weights change when the whole iteration has succeeded, or at once outside one."""
        updates = self.updates or Updates()
        updates.add(loss, optimizer, scaler)
        if self.updates is None:
            updates.carry_out()

    def training_state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain Python, except what is this process's own."""
        return {
            "epoch": self.state.epoch,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "objective": self.loss_function.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`training_state` returned; raises ``RuntimeError`` when networks or objective differ."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.loss_function.load_state_dict(state.get("objective", {}))  # of 0.1.0: none, as most have
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, scaler in self.scalers.items():
            if state["scalers"][name]:
                scaler.load_state_dict(state["scalers"][name])
        # Whole epochs: another batch size or number of processes changes how many steps an epoch has.
        self.state.epoch = state["epoch"]
        self.state.iteration = state["epoch"] * (self.state.epoch_length or 0)

    def process_state(self) -> dict[str, Any]:
        """The image pools and random numbers of this process (each rank of a distributed run has its own)."""
        kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - MONAI's transforms use numpy's global state
        return {
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
            "python": random.getstate(),
        }

    def load_process_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`process_state` returned."""
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name], self.state.device)
        torch.set_rng_state(state["torch"])
        if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - the same
        random.setstate(state["python"])
