"""Panels of the same validation cases in the course of a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ignite.engine import Engine, Events

from bundle import ranks
from bundle.files import remove_unfinished_in
from bundle.handlers.cases import cases_of
from bundle.handlers.pictures import Picture, draw, picture_of, rgb, save
from bundle.resumable_trainer import ResumableTrainer, TrainingEvents

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Panels"]


class Panels:
    """Draws LE | real DES | virtual DES | error of fixed cases into ``output_dir/panels/epoch_0001.png`` and so on.

    The cases are the first with a lesion, filled up with the first without; the order of a validation set is fixed, so
    they are the same each time and show the progress. The first validation of a run is drawn, then those at least
    ``interval`` epochs after the last drawn one, also across a resume. Attach it to the trainer and name the
    ``evaluator``: then the last validation is drawn too, also when the training stops early. Attached to a MONAI
    ``SupervisedEvaluator`` itself it cannot know which validation is the last. Under torch.distributed rank 0 draws
    cases of its own share.

    Args:
        output_dir: folder of the run.
        evaluator: validation engine whose cases are drawn; None: the engine it is attached to.
        count: number of cases.
        interval: least number of epochs between two panels.
        summary_writer: TensorBoard writer that gets the same picture as ``validation/panels``.
    """

    def __init__(
        self,
        output_dir: str | Path,
        evaluator: Engine | None = None,
        count: int = 4,
        interval: int = 1,
        summary_writer: SummaryWriter | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.evaluator = evaluator
        self.count = count
        self.interval = interval
        self.summary_writer = summary_writer
        self._with_lesion: list[Picture] = []
        self._without: list[Picture] = []
        self._collected_epoch = 0
        self._drawn_epoch: int | None = None

    def attach(self, engine: Engine) -> None:
        """Collect the cases of every validation and draw them at its end where they are due."""
        if not ranks.is_main_rank():
            return
        evaluator = self.evaluator or engine
        evaluator.add_event_handler(Events.EPOCH_STARTED, self._start)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._draw_if_due)
        if self.evaluator is not None:
            engine.add_event_handler(Events.STARTED, self._resume)
            engine.add_event_handler(Events.COMPLETED, lambda _: self._draw())
        if isinstance(engine, ResumableTrainer):
            engine.add_event_handler(TrainingEvents.ENDING, lambda _: self._draw())

    def _resume(self, trainer: Engine) -> None:
        """Take up the rhythm of the epochs before a resume."""
        folder = self.output_dir / "panels"
        remove_unfinished_in(folder, "epoch_*.png")
        drawn = [int(path.stem.removeprefix("epoch_")) for path in folder.glob("epoch_[0-9]*.png")]
        self._drawn_epoch = max((epoch for epoch in drawn if epoch <= trainer.state.epoch), default=None)

    def _start(self, evaluator: Engine) -> None:
        self._with_lesion, self._without = [], []
        self._collected_epoch = evaluator.state.epoch

    def _collect(self, evaluator: Engine) -> None:
        if len(self._with_lesion) >= self.count:
            return
        for case in cases_of(evaluator):
            group = self._with_lesion if bool(case["label_mask"].any()) else self._without
            if len(group) < self.count:
                group.append(picture_of(case))

    def _draw_if_due(self, evaluator: Engine) -> None:
        if self._drawn_epoch is None or evaluator.state.epoch - self._drawn_epoch >= self.interval:
            self._draw()

    def _draw(self) -> None:
        epoch, pictures = self._collected_epoch, [*self._with_lesion, *self._without][: self.count]
        if not pictures or epoch == self._drawn_epoch:
            return
        figure = draw(pictures, f"epoch {epoch}")
        save(figure, self.output_dir / "panels" / f"epoch_{epoch:04d}.png")
        if self.summary_writer is not None:
            self.summary_writer.add_image("validation/panels", rgb(figure), epoch, dataformats="HWC")
        self._drawn_epoch = epoch
