"""Choice of the best generator during training and early stopping."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, cast

from ignite.engine import Engine, Events
from torch import nn

from bundle import ranks
from bundle.checkpoint import save_atomically
from bundle.exports import remove_exports
from bundle.files import remove_unfinished_in
from bundle.resumable_trainer import ResumableTrainer, unwrap

__all__ = ["BestModel"]

logger = logging.getLogger("cesm")


class BestModel:
    """Write the generator with the lowest validation error, and stop when it no longer falls.

    As in the paper group's released code, epochs up to ``warmup_epochs`` count neither as best nor towards
    ``patience``. So that a short or interrupted training leaves weights all the same, the best of the warm-up is
    written too and is replaced by the first epoch after it. Without a validation set the newest generator is written
    every ``interval`` epochs.

    ``output_dir/model.pt`` is the raw state dict of ``network``, which MONAI Label, Deploy and the model zoo load as it
    is; what was exported from the weights it replaces is removed. ``output_dir/best_networks.pt`` holds all four
    networks of that epoch, from which a second stage starts.

    Args:
        evaluator: the validation engine; its ``state.metrics[metric]`` is compared.
        network: the served generator LE -> DES.
        output_dir: folder of the run.
        model_path: where the weights go as well, e.g. the bundle's ``models/model.pt``.
        metric: name of an error, lower is better.
        warmup_epochs: epochs before the selection starts, 50 in the released code.
        patience: validations without a new best before the training stops, 50 in the released code; 0 never stops.
        interval: epochs between two validations.

    Raises:
        ValueError: from ``attach``, if the training would end before its first validation.
    """

    def __init__(
        self,
        evaluator: Engine,
        network: nn.Module,
        output_dir: str | Path,
        model_path: str | Path | None = None,
        metric: str = "mae",
        warmup_epochs: int = 50,
        patience: int = 50,
        interval: int = 1,
    ) -> None:
        self.evaluator, self.network, self.metric = evaluator, network, metric
        self.output_dir = Path(output_dir)
        own = self.output_dir / "model.pt"
        self.model_paths = {own.resolve(), Path(model_path or own).resolve()}
        self.warmup_epochs, self.patience, self.interval = warmup_epochs, patience, interval
        self.best = math.inf
        self.best_epoch = 0
        self.waited = 0

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after its ``ValidationHandler``."""
        self._refuse_no_validation(engine.state.max_epochs)
        engine.add_event_handler(Events.STARTED, self._remove_unfinished)
        engine.add_event_handler(Events.STARTED, self._stop_if_waited)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self._compare)

    def _refuse_no_validation(self, epochs: int | None) -> None:
        # Not when the engine starts: a federation starts it for each round, and ends it after a few epochs.
        if epochs is not None and 0 < epochs < self.interval:
            raise ValueError(
                f"max_epochs is {epochs} and val_interval {self.interval}: no epoch would be validated, so there "
                f"would be no model.pt. Set val_interval to {epochs} or less"
            )

    def _remove_unfinished(self) -> None:
        if ranks.is_main_rank():
            for path in {self.output_dir / "best_networks.pt", *self.model_paths}:
                remove_unfinished_in(path.parent, path.name)

    def _compare(self, trainer: ResumableTrainer) -> None:
        epoch = trainer.state.epoch
        if not self.evaluator.state.epoch_length:
            self._accept(trainer, math.inf)
            return
        value = float(self.evaluator.state.metrics[self.metric])
        first_after_warmup = self.best_epoch <= self.warmup_epochs < epoch and math.isfinite(value)
        if first_after_warmup or value < self.best or self.best_epoch == 0:
            self._accept(trainer, value if math.isfinite(value) else math.inf)
        elif epoch > self.warmup_epochs:
            self.waited += 1
        self._stop_if_waited(trainer)

    def _stop_if_waited(self, trainer: Engine) -> None:
        if self.patience and self.waited >= self.patience:
            logger.info(
                f"early stop: validation {self.metric} has not fallen below {self.best:.5f} of epoch {self.best_epoch} "
                f"for {self.waited} validations"
            )
            trainer.terminate()

    def _accept(self, trainer: ResumableTrainer, value: float) -> None:
        self.best, self.best_epoch, self.waited = value, trainer.state.epoch, 0
        if not ranks.is_main_rank():
            return
        states = {name: network.state_dict() for name, network in trainer.networks.items()}
        save_atomically(states, self.output_dir / "best_networks.pt")
        weights = {name: tensor.detach().cpu() for name, tensor in unwrap(self.network).state_dict().items()}
        for path in sorted(self.model_paths):
            remove_exports(path)
            save_atomically(weights, path)

    def state_dict(self) -> dict[str, Any]:
        """Best value, its epoch, and the validations waited since."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.best, self.best_epoch = float(state["best"]), cast(int, state["best_epoch"])
        self.waited = cast(int, state["waited"])
