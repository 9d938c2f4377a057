"""Losses and learning rate of the training in TensorBoard."""

from __future__ import annotations

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch.utils.tensorboard import SummaryWriter

from bundle.handlers.running_losses import RunningLosses

__all__ = ["LossScalars"]

# What is in the trainer's output but is no term of the generators' total.
_OTHER = ("loss", "D_A", "D_B", "lesion_D_A", "lesion_D_B", "gamma_factor")


class LossScalars:
    """Writes the mean of every loss since the last report, and the share of every term in the generators' total.

    ``loss/<name>`` has the weight of the objective in it, so the shares ``share/<name>`` add up to 1 and show at once
    when a weight such as gamma outgrows the others. The losses are read from the device only every ``every``
    iterations.

    Args:
        summary_writer: TensorBoard writer; None (all ranks but 0) writes nothing.
        every: iterations between two reports.
    """

    def __init__(self, summary_writer: SummaryWriter | None, every: int = 20) -> None:
        self.summary_writer, self.every = summary_writer, every
        self._losses = RunningLosses()

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        if self.summary_writer is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: self._losses.update(e.state.output))
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self._write, self.summary_writer)

    def _write(self, engine: SupervisedTrainer, summary_writer: SummaryWriter) -> None:
        step, means = engine.state.iteration, self._losses.means()
        for name, value in means.items():
            summary_writer.add_scalar(f"loss/{name}", value, step)
            if name not in _OTHER and means["loss"] > 0:
                summary_writer.add_scalar(f"share/{name}", value / means["loss"], step)
        summary_writer.add_scalar("learning_rate", engine.optimizer.param_groups[0]["lr"], step)
        self._losses.reset()
