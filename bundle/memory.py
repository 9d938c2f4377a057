"""A training step that runs out of memory is undone and done again with less, with the same result."""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from monai.data import MetaTensor
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.optim import Optimizer

from bundle import ranks

if TYPE_CHECKING:
    from bundle.resumable_trainer import ResumableTrainer

__all__ = ["StepMemory", "Updates", "is_out_of_memory"]

logger = logging.getLogger("cesm")
_SIGNS = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED|bad_alloc", re.IGNORECASE)
Output = list[dict[str, Any]]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on the GPU or the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _SIGNS.search(str(error)) is not None


class Updates:
    """The optimiser steps of one iteration, which wait for its end: until then no weight has changed.

    Args:
        share: of the batch's images that the losses are means over; 1 = all of them.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self._waiting: dict[Optimizer, torch.amp.GradScaler] = {}

    def add(self, loss: Tensor, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Go back through a loss; the step of the optimiser waits."""
        scaler.scale(loss if self.share == 1 else loss * self.share).backward()
        self._waiting[optimizer] = scaler

    @property
    def parameters(self) -> Iterator[Tensor]:
        """All parameters that are about to be updated."""
        for optimizer in self._waiting:
            for group in optimizer.param_groups:
                yield from group["params"]

    def carry_out(self) -> None:
        """Do the steps. The first one of all makes the state of an optimiser, for which memory may not suffice."""
        while self._waiting:
            optimizer, scaler = next(iter(self._waiting.items()))
            scaler.step(optimizer)
            scaler.update()
            del self._waiting[optimizer]


class StepMemory:
    """Runs the iterations of a trainer. One that runs out of memory has no effect and is run again with less.

    First the generators' blocks are recomputed in the backward pass (``checkpointing``): bit for bit the same step. If
    that does not suffice, the batch goes through the networks in parts, halved each time, whose gradients are added up
    before the optimisers step. Losses are means over images and norms work per image, so this is the same step up to
    rounding. What was found to be needed is kept for the rest of the training and logged with the option that gives it
    from the start.

    Args:
        micro_batch_size: images that go through the networks at a time; None is all of a batch.

    Raises:
        ValueError: if ``micro_batch_size`` is less than 1.
    """

    def __init__(self, micro_batch_size: int | None = None) -> None:
        if micro_batch_size is not None and micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is {micro_batch_size}; expected at least 1, or none for whole batches")
        self.micro_batch_size = micro_batch_size

    def run(self, trainer: ResumableTrainer, step: Callable[..., Any], batchdata: dict[str, Any]) -> Output:
        """Run ``step(trainer, batchdata)`` and then the optimiser steps that it asked for.

        Raises:
            OutOfMemoryError: one image at a time is still too much, or one process of several has not enough.
        """
        while True:
            before = _Before(trainer)
            try:
                output, updates = self._attempt(trainer, step, batchdata)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                problem = _first_line(error)
            finally:
                trainer.updates = None
            before.restore()  # only here the traceback is gone, and with it the tensors of the attempt
            _free()
            self._use_less(trainer, len(batchdata[Keys.IMAGE]), problem)
        _carry_out(updates)
        return output

    def _attempt(
        self, trainer: ResumableTrainer, step: Callable[..., Any], batchdata: dict[str, Any]
    ) -> tuple[Output, Updates]:
        images = len(batchdata[Keys.IMAGE]) if self.micro_batch_size is not None else 0
        if self.micro_batch_size is None or images <= self.micro_batch_size:
            trainer.updates = updates = Updates()
            return step(trainer, batchdata), updates
        outputs, shares = [], []
        total: dict[Tensor, Tensor] = {}
        for start in range(0, images, self.micro_batch_size):
            part = slice(start, min(images, start + self.micro_batch_size))
            shares.append((part.stop - part.start) / images)
            trainer.updates = updates = Updates(shares[-1])
            outputs.append(step(trainer, _part(batchdata, part, images))[0])
            for parameter in updates.parameters:
                if parameter.grad is not None:
                    total[parameter] = total[parameter] + parameter.grad if parameter in total else parameter.grad
                    parameter.grad = None
        for parameter, gradient in total.items():
            parameter.grad = gradient
        return [_merged(outputs, shares)], updates

    def _use_less(self, trainer: ResumableTrainer, images: int, problem: str) -> None:
        if ranks.world_size() > 1:
            raise torch.OutOfMemoryError(
                f"{problem}. The processes of a training cannot change their step one by one: start again from the "
                "last checkpoint, --resume True, with --activation_checkpointing True or a smaller --micro_batch_size"
            )
        at_once = min(images, self.micro_batch_size or images)
        if _checkpoint(trainer):
            done = "the generators' blocks are recomputed in the backward pass: the same result, a third more time"
            option = "--activation_checkpointing True"
        elif at_once > 1:
            self.micro_batch_size = (at_once + 1) // 2
            done = f"at most {self.micro_batch_size} images go through the networks at a time: the same up to rounding"
            option = f"--activation_checkpointing True --micro_batch_size {self.micro_batch_size}"
        else:
            raise torch.OutOfMemoryError(
                f"{problem}. Not even one image at a time fits; set --amp True, a smaller --image_size or "
                "--network_def#width, or use a machine with more memory. The last checkpoint is whole"
            )
        logger.warning(
            f"out of memory in iteration {trainer.state.iteration} with {at_once} images at a time ({problem}). The "
            f"step had no effect and is done again; from here on {done}. To start so the next time: {option}"
        )


class _Before:
    """What an iteration changes besides weights and gradients, as references that cost nothing to keep."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.trained = [p.requires_grad for p in _parameters(trainer)]
        self.pools = {
            name: (list(pool.images), pool._generator.get_state())  # noqa: SLF001 - its state_dict copies the images
            for name, pool in trainer.pools.items()
            if pool.size
        }
        # They are replaced, not changed.
        modules = trainer.loss_function.modules()
        self.buffers = [(module, *named) for module in modules for named in module.named_buffers(recurse=False)]
        self.random = torch.get_rng_state()
        on_gpu = trainer.state.device.type == "cuda"
        self.gpu_random = torch.cuda.get_rng_state(trainer.state.device) if on_gpu else None

    def restore(self) -> None:
        trainer = self.trainer
        for parameter, trained in zip(_parameters(trainer), self.trained, strict=True):
            parameter.requires_grad_(trained)
        for name, (images, state) in self.pools.items():
            trainer.pools[name].images = images
            trainer.pools[name]._generator.set_state(state)  # noqa: SLF001 - the same
        for module, name, buffer in self.buffers:
            setattr(module, name, buffer)
        for optimizer in trainer.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        trainer.state.output = None
        torch.set_rng_state(self.random)
        if self.gpu_random is not None:
            torch.cuda.set_rng_state(self.gpu_random, trainer.state.device)


def _parameters(trainer: ResumableTrainer) -> Iterator[Tensor]:
    for network in trainer.networks.values():
        yield from network.parameters()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _carry_out(updates: Updates) -> None:
    """Do the optimiser steps; where memory is short, once more what is left of them: those done cannot be undone."""
    try:
        updates.carry_out()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    _free()
    updates.carry_out()


def _checkpoint(trainer: ResumableTrainer) -> bool:
    """Switch recomputing on; False where it was on already or no network has it."""
    modules = [module for network in trainer.networks.values() for module in network.modules()]
    found = [module for module in modules if getattr(module, "checkpointing", None) is False]
    for module in found:
        setattr(module, "checkpointing", True)  # noqa: B010 - any module that has it, whatever its class
    return bool(found)


def _part(value: Any, part: slice, images: int) -> Any:
    """The images ``part`` of all that a batch holds for each image."""
    if isinstance(value, Mapping):
        return {key: _part(one, part, images) for key, one in value.items()}
    if isinstance(value, Tensor):
        value = value.as_tensor() if isinstance(value, MetaTensor) else value
        return value[part] if value.ndim and len(value) == images else value
    return value[part] if isinstance(value, (list, tuple)) and len(value) == images else value


def _merged(outputs: Sequence[Mapping[str, Any]], shares: Sequence[float]) -> dict[str, Any]:
    """The output of the whole batch: images one after the other, losses as means over all."""
    merged = {}
    for key, first in outputs[0].items():
        values = [output[key] for output in outputs]
        if isinstance(first, Tensor) and first.ndim == 0:
            merged[key] = torch.stack([value * share for value, share in zip(values, shares, strict=True)]).sum()
        else:
            merged[key] = torch.cat(values) if isinstance(first, Tensor) else first
    return merged


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
