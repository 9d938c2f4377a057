"""Signs of the known failures of CycleGAN training, as warnings and scalars."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.handlers.running_losses import RunningLosses

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["FailureMonitor", "NonFiniteLossError"]

logger = logging.getLogger("cesm")

_ADVICE = {
    "discriminator_collapse": "the discriminators tell every image apart and the generators learn nothing from them; "
    "lower the learning rate of the discriminators, set pool_size to 50, or lower gamma",
    "output_collapse": "the virtual DES hardly depends on the input; "
    "look at the panels, lower gamma or the learning rate, and check that the pairs differ",
    "lesion_disappearance": "lesions of the real DES are missing in the virtual one; "
    "raise gamma, check that cases have masks, and look at the panels",
    "background_artefacts": "the virtual DES enhances tissue outside lesions; "
    "train longer, lower gamma, and look at the panels",
}

_AFTER_NAN = (
    "The networks cannot recover from it. The last checkpoint, if there is one, is from before it and whole: go on "
    "from there (--resume True). If it comes back: Start anew (--resume False) with a lower --learning_rate or "
    "--gamma, or with --amp False, and check the data (scripts/check_data.py)."
)


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; the networks are spoilt from that step on."""


class FailureMonitor:
    """Watches losses and validation metrics and says which known failure they show, and what to do about it.

    Every ``check_every`` iterations and at the last one of an epoch, the sum of the losses is read once; if it is not
    finite the run ends with `NonFiniteLossError`, before a checkpoint of that epoch is written. So it does when a
    weight is not finite at the end of an epoch: the last step may spoil what its own loss does not show. At the end of
    an epoch and of a validation these signs are judged, each 1 or 0 in ``trainer.state.metrics``:

    - ``discriminator_collapse``: mean ``D_A`` or ``D_B`` of the epoch below ``discriminator_loss`` (chance is 0.25 with
      the least-squares loss); the precursor of mode collapse.
    - ``output_collapse``: `bundle.metrics.diversity` of the validation below ``diversity``.
    - ``lesion_disappearance``: ``contrast_recovery`` below ``contrast_recovery``, where the real lesions enhance by at
      least 0.02 on average.
    - ``background_artefacts``: ``false_enhancement`` above ``false_enhancement``.

    A warning is logged when a sign appears and a note when it goes. Before epoch ``start_epoch`` nothing is warned of.

    Args:
        evaluator: validation engine with `CaseMetrics`; without it only the losses are watched.
        summary_writer: TensorBoard writer that gets the signs as ``monitor/<sign>``.
        check_every: iterations between two looks at the losses.
        start_epoch: first epoch that is judged.
        discriminator_loss: see above, as the others.
        diversity: ratio, 1 = as diverse as the real images.
        contrast_recovery: ratio, 1 = the real contrast.
        false_enhancement: mean excess over the real DES on the [0, 1] scale; a copied low-energy image has about 0.08.
    """

    def __init__(
        self,
        evaluator: Engine | None = None,
        summary_writer: SummaryWriter | None = None,
        check_every: int = 50,
        start_epoch: int = 5,
        discriminator_loss: float = 0.02,
        diversity: float = 0.3,
        contrast_recovery: float = 0.25,
        false_enhancement: float = 0.08,
    ) -> None:
        self.evaluator = evaluator
        self.summary_writer = summary_writer
        self.check_every = check_every
        self.start_epoch = start_epoch
        self.discriminator_loss = discriminator_loss
        self.diversity = diversity
        self.contrast_recovery = contrast_recovery
        self.false_enhancement = false_enhancement
        self.active: set[str] = set()
        self._recent = RunningLosses()
        self._epoch = RunningLosses()
        self._trainer: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to the training engine, and through it to the evaluator."""
        self._trainer = engine
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self._epoch.reset())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._watch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._judge_losses)
        if self.evaluator is not None:
            # COMPLETED comes after every EPOCH_COMPLETED, so the metrics are there whatever the order of the handlers
            self.evaluator.add_event_handler(Events.COMPLETED, self._judge_validation)

    def _watch(self, engine: Engine) -> None:
        self._recent.update(engine.state.output)
        self._epoch.update(engine.state.output)
        length = engine.state.epoch_length
        last = length is not None and engine.state.iteration % length == 0
        if engine.state.iteration % self.check_every == 0 or last:
            self._require_finite(engine)
            self._recent.reset()
        if last:
            self._require_finite_weights(engine)

    def _require_finite(self, engine: Engine) -> None:
        means = self._recent.means()
        spoilt = [name for name, value in means.items() if not math.isfinite(value)]
        if spoilt:
            raise NonFiniteLossError(
                f"Loss {', '.join(spoilt)} is NaN or infinite at or before iteration {engine.state.iteration} "
                f"(epoch {engine.state.epoch}; looked at every {self.check_every} iterations). {_AFTER_NAN}"
            )

    @staticmethod
    def _require_finite_weights(engine: Engine) -> None:
        networks: Mapping[str, nn.Module] = getattr(engine, "networks", {})
        spoilt = [name for name, network in networks.items() if not _finite(network)]
        if spoilt:
            raise NonFiniteLossError(
                f"A weight of {', '.join(spoilt)} is NaN or infinite after iteration {engine.state.iteration} (epoch "
                f"{engine.state.epoch}), although the losses were finite. {_AFTER_NAN}"
            )

    def _judge_losses(self, engine: Engine) -> None:
        means = self._epoch.means()
        found = {name: means[name] for name in ("D_A", "D_B") if name in means}
        if found:
            name, value = min(found.items(), key=lambda pair: pair[1])
            text = f"{name} = {value:.4f}, below {self.discriminator_loss}"
            self._judge("discriminator_collapse", value < self.discriminator_loss, text, engine.state.epoch)

    def _judge_validation(self, evaluator: Engine) -> None:
        metrics: Mapping[str, float] = evaluator.state.metrics
        epoch = evaluator.state.epoch
        value = metrics.get("diversity", math.nan)
        text = f"diversity = {value:.3f}, below {self.diversity}"
        self._judge("output_collapse", value < self.diversity, text, epoch)
        value = metrics.get("contrast_recovery", math.nan)
        enhances = metrics.get("lesion_contrast_real", math.nan) >= 0.02
        text = f"contrast_recovery = {value:.3f}, below {self.contrast_recovery}"
        self._judge("lesion_disappearance", enhances and value < self.contrast_recovery, text, epoch)
        value = metrics.get("false_enhancement", math.nan)
        text = f"false_enhancement = {value:.3f}, above {self.false_enhancement}"
        self._judge("background_artefacts", value > self.false_enhancement, text, epoch)

    def _judge(self, sign: str, shows: bool, text: str, epoch: int) -> None:
        """NaN compares as False: what was not measured shows no sign."""
        if self._trainer is not None:
            self._trainer.state.metrics[sign] = float(shows)
        if self.summary_writer is not None:
            self.summary_writer.add_scalar(f"monitor/{sign}", float(shows), epoch)
        if epoch < self.start_epoch:
            return
        if shows and sign not in self.active:
            self.active.add(sign)
            logger.warning("epoch %d: %s (%s): %s", epoch, sign.replace("_", " "), text, _ADVICE[sign])
        elif not shows and sign in self.active:
            self.active.discard(sign)
            logger.info("epoch %d: %s is over", epoch, sign.replace("_", " "))


def _finite(network: nn.Module) -> bool:
    weights = [torch.isfinite(parameter.detach()).all() for parameter in network.parameters()]
    return not weights or bool(torch.stack(weights).all())
