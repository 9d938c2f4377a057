"""The reference without adversary: one generator trained on the pairs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import nn
from torch.optim import Optimizer

from bundle.resumable_trainer import ResumableTrainer, full_precision

__all__ = ["PairedTrainer"]


class PairedTrainer(ResumableTrainer):
    """Train the generator LE -> DES alone to be near the real DES: ``loss = loss_function(G_AB(x), y)``.

    With L1 this is what any CycleGAN has to be compared with, since CESM images are paired. It needs about a quarter of
    the computation of a CycleGAN step, and its checkpoints, best weights and records are those of the other trainer.

    ``engine.state.output`` is a list of one dictionary with ``image``, ``label``, ``pred`` and ``loss``, all detached.

    Args:
        loss_function: of (virtual, real DES), each ``(B, 1, W, H)`` in [0, 1]; default of the config: mean absolute
            error.
        train_handlers: handlers, attached when the engine is complete.
        device, max_epochs, train_data_loader, network, optimizer, kwargs: as in
            :class:`~bundle.resumable_trainer.ResumableTrainer`.

    Raises:
        ValueError: from a step, when ``image`` and ``label`` differ in shape.
    """

    def __init__(
        self,
        device: Any,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: nn.Module,
        train_handlers: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(device, max_epochs, train_data_loader, network, optimizer, loss_function, **kwargs)
        self.attach_handlers(train_handlers)

    def _iteration(self, engine: ResumableTrainer, batchdata: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        real_A, real_B = self._pair(batchdata)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        with self._autocast():
            fake_B = full_precision(self.network(real_A))
        engine.state.output = {Keys.IMAGE: real_A, Keys.LABEL: real_B, Keys.PRED: fake_B.detach()}
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss = self.loss_function(fake_B, real_B)
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._step(loss, self.optimizer, self.scalers["G"])
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.state.output[Keys.LOSS] = loss.detach()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return [engine.state.output]
