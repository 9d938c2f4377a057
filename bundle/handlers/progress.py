"""One progress bar for a whole training: epochs, remaining time, running losses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from bundle import ranks
from bundle.handlers.running_losses import RunningLosses

__all__ = ["Progress"]


class Progress:
    """A bar over all iterations of the run, on standard error, from rank 0.

    Ignite's ``ProgressBar`` starts anew in every epoch, so its remaining time is that of the epoch; this one's is that
    of the run, validation included, also after a resume. Losses are means since the last report. They are read from the
    device only every ``every`` iterations. Where standard error is no terminal, a line is written about every 30 s.

    Args:
        names: losses to show, as far as the engine's output has them.
        every: iterations between two reports of the losses.
    """

    def __init__(self, names: Sequence[str] = ("loss", "G_AB", "cycle_B", "D_B"), every: int = 20) -> None:
        self.names = tuple(names)
        self.every = every
        self._losses = RunningLosses()
        self._bar: tqdm[Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a training engine."""
        if ranks.is_main_rank():
            engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
            engine.add_event_handler(Events.COMPLETED, self._close)

    def _start_epoch(self, engine: Engine) -> None:
        if self._bar is None:
            length = engine.state.epoch_length
            total = engine.state.max_epochs * length if engine.state.max_epochs and length else None
            interval = 0.5 if sys.stderr.isatty() else 30.0
            # smoothing 0: the rate is the mean over the run, so that pauses for validation are part of it
            self._bar = tqdm(
                total=total,
                initial=engine.state.iteration,
                unit="step",
                smoothing=0,
                mininterval=interval,
                dynamic_ncols=True,
            )
        self._bar.set_description(f"epoch {engine.state.epoch}/{engine.state.max_epochs}", refresh=False)

    def _advance(self, engine: Engine) -> None:
        self._losses.update(engine.state.output)
        if self._bar is None:
            return
        if engine.state.iteration % self.every == 0:
            means = self._losses.means()
            self._losses.reset()
            shown = {name: f"{means[name]:.3f}" for name in self.names if name in means}
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def _close(self, _: Engine) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
