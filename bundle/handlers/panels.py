"""Panels of the same validation cases after every validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ignite.engine import Engine, Events

from bundle.handlers.cases import cases_of, is_main_rank
from bundle.handlers.pictures import Picture, draw, picture_of, rgb, save

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Panels"]


class Panels:
    """Draws LE | real DES | virtual DES | error of fixed cases into ``output_dir/panels/epoch_0001.png`` and so on.

    The cases are the first with a lesion, filled up with the first without; the order of a validation set is fixed, so
    they are the same each time and show the progress. Attach it to a MONAI ``SupervisedEvaluator``. Under
    torch.distributed rank 0 draws cases of its own share.

    Args:
        output_dir: folder of the run.
        count: number of cases.
        interval: epochs between two panels.
        summary_writer: TensorBoard writer that gets the same picture as ``validation/panels``.
    """

    def __init__(
        self, output_dir: str | Path, count: int = 4, interval: int = 1, summary_writer: SummaryWriter | None = None
    ) -> None:
        self.output_dir = Path(output_dir)
        self.count = count
        self.interval = interval
        self.summary_writer = summary_writer
        self._with_lesion: list[Picture] = []
        self._without: list[Picture] = []

    def attach(self, engine: Engine) -> None:
        """Collect the cases of each validation and draw them at its end."""
        if is_main_rank():
            engine.add_event_handler(Events.EPOCH_STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._draw)

    def _start(self, _: Engine) -> None:
        self._with_lesion, self._without = [], []

    def _due(self, engine: Engine) -> bool:
        return (engine.state.epoch - 1) % self.interval == 0 and len(self._with_lesion) < self.count

    def _collect(self, engine: Engine) -> None:
        if not self._due(engine):
            return
        for case in cases_of(engine):
            group = self._with_lesion if bool(case["label_mask"].any()) else self._without
            if len(group) < self.count:
                group.append(picture_of(case))

    def _draw(self, engine: Engine) -> None:
        pictures = [*self._with_lesion, *self._without][: self.count]
        if not pictures:
            return
        figure = draw(pictures, f"epoch {engine.state.epoch}")
        save(figure, self.output_dir / "panels" / f"epoch_{engine.state.epoch:04d}.png")
        if self.summary_writer is not None:
            self.summary_writer.add_image("validation/panels", rgb(figure), engine.state.epoch, dataformats="HWC")
