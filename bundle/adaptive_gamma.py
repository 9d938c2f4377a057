"""How strong the lesion terms are, found during the training: a factor beside the gamma that was chosen beforehand.

``GeneratorObjective(gamma_factor=...)`` multiplies its lesion terms by it and logs it as ``gamma_factor``. All that a
factor remembers are parameters and buffers: they are part of the checkpoint, and a step that runs out of memory gives
back those it had before (see ``bundle.memory``), so buffers are replaced and never changed in place.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from bundle import ranks

__all__ = ["BalancedGamma", "ControlledGamma", "GammaFactor", "UncertaintyGamma"]

logger = logging.getLogger("cesm")
Terms = Mapping[str, Tensor]
_SCALE = 256.0
"""Gradients that pass through float16 would vanish without; only their ratio is used."""
_WIDEST = 20.0
"""Of a logarithm of a scale: data without lesions would drive it on until its exponential is infinite."""


class GammaFactor(nn.Module):
    """What the lesion terms are multiplied by, 1 at the start, between ``1 / largest`` and ``largest``.

    Args:
        largest: the largest factor.

    Raises:
        ValueError: if ``largest`` is below 1.
    """

    def __init__(self, largest: float) -> None:
        super().__init__()
        if largest < 1:
            raise ValueError(f"largest is {largest}; expected 1 or more: the factor may be up to it")
        self.largest = largest

    def forward(self, terms: Terms, images: int) -> dict[str, Tensor]:
        """The terms, those of lesions multiplied, and the factor itself as ``gamma_factor``, which is no term.

        Args:
            terms: the weighted L1 terms of ``images`` images, those inside lesions called ``lesion_...``.
            images: how many images the terms are means over.
        """
        factor = self.find(terms, images)
        weighted = {name: value * factor if _of_lesions(name) else value for name, value in terms.items()}
        return weighted | {"gamma_factor": factor}

    def find(self, terms: Terms, images: int) -> Tensor:
        """The factor of this step, a scalar on the device; its arguments are those of :meth:`forward`."""
        raise NotImplementedError

    def attach(self, trainer: Engine) -> None:
        """Follow a training."""


class UncertaintyGamma(GammaFactor):
    """Weighting by homoscedastic uncertainty: each group of terms is divided by a scale that is learned with it.

    ``L_global / b_g + L_lesion / b_l + log b_g + log b_l`` is the negative log-likelihood of L1 errors with unknown
    scales. It is least where each scale is the mean of its group, so neither group outgrows the other. The objective
    keeps the global terms as they are: the factor is ``b_g / b_l``, and the scales learn from detached terms.

    The two scales are parameters, as logarithms: the config hands them to the generators' optimiser, with a learning
    rate of their own, since Adam moves a parameter by its learning rate in a step.

    Args:
        largest: see :class:`GammaFactor`.

    Source: Kendall et al. 2018 (arXiv 1705.07115), section 3.2, for the Laplace distribution.
    """

    def __init__(self, largest: float = 100.0) -> None:
        super().__init__(largest)
        self.log_scales = nn.Parameter(torch.zeros(2))

    def forward(self, terms: Terms, images: int) -> dict[str, Tensor]:
        """As in :class:`GammaFactor`; one lesion term brings the scales' gradient with it, its value is not changed."""
        with torch.no_grad():
            self.log_scales.clamp_(-_WIDEST, _WIDEST)
        weighted = super().forward(terms, images)
        means = torch.stack([_sum(terms, lesion) for lesion in (False, True)]).detach().float()
        means = ranks.summed(means) / ranks.world_size()
        likelihood = (means * (-self.log_scales).exp() + self.log_scales).sum()
        name = next(filter(_of_lesions, terms))
        weighted[name] = weighted[name] + (likelihood - likelihood.detach())
        return weighted

    def find(self, terms: Terms, images: int) -> Tensor:
        """``b_g / b_l``."""
        bound = math.log(self.largest)
        logarithm = (self.log_scales[0] - self.log_scales[1]).detach()
        return logarithm.clamp(-bound, bound).exp()


class BalancedGamma(GammaFactor):
    """The lesion terms pull as hard as the terms that they repeat, times ``ratio``, at the generators' last layers.

    Every ``every`` steps the gradients of both groups there are compared, those of all images of the step, whatever
    parts of the batch or ranks they are in. The factor is the running geometric mean of what would have given
    ``ratio``. A step without a lesion is passed over.

    Args:
        generators: both generators, also in a distributed wrapper.
        ratio: wanted ratio of the gradients' norms, lesion to global.
        every: steps between two looks; a look costs about two more backward passes through the generators.
        momentum: of the running mean.
        largest: see :class:`GammaFactor`.

    Raises:
        ValueError: a number out of its range.

    Source: after Chen et al. 2018 (GradNorm, arXiv 1711.02257), with two groups and a fixed target.
    """

    factor: Tensor
    found: Tensor

    def __init__(
        self,
        generators: Sequence[nn.Module],
        ratio: float = 1.0,
        every: int = 10,
        momentum: float = 0.9,
        largest: float = 100.0,
    ) -> None:
        super().__init__(largest)
        if ratio <= 0 or every < 1 or not 0 <= momentum < 1:
            raise ValueError(
                f"ratio {ratio}, every {every}, momentum {momentum}; expected ratio above 0, every from 1, momentum in "
                "[0, 1)"
            )
        self.ratio, self.every, self.momentum = ratio, every, momentum
        self.weights = [[p for p in generator.parameters() if p.ndim > 1][-1] for generator in generators]
        numbers = sum(weight.numel() for weight in self.weights)
        self.register_buffer("factor", torch.ones(()))
        self.register_buffer("found", torch.zeros(2, numbers), persistent=False)
        self.looking = False

    def attach(self, trainer: Engine) -> None:
        """Look in every so many iterations of ``trainer``; the factor changes after them."""
        trainer.add_event_handler(Events.ITERATION_STARTED(every=self.every), self._open)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self._close)

    def find(self, terms: Terms, images: int) -> Tensor:
        """The factor; in between, the gradients of a part of the step are noted."""
        if self.looking:
            gradients = torch.stack([self._gradient(_sum(terms, lesion)) for lesion in (False, True)])
            self.found = self.found + images * gradients
        return self.factor

    def _gradient(self, group: Tensor) -> Tensor:
        gradients = torch.autograd.grad(_SCALE * group, self.weights, retain_graph=True, materialize_grads=True)
        return torch.cat([gradient.float().flatten() for gradient in gradients])

    def _open(self) -> None:
        self.looking = True

    def _close(self) -> None:
        of_all, of_lesions = ranks.summed(self.found).norm(dim=1)
        wanted = (self.ratio * of_all / of_lesions).clamp(1 / self.largest, self.largest)
        mean = self.factor**self.momentum * wanted ** (1 - self.momentum)
        usable = (of_lesions > 0) & of_all.isfinite() & of_lesions.isfinite()
        self.factor = torch.where(usable, mean, self.factor)
        self.found, self.looking = torch.zeros_like(self.found), False


class ControlledGamma(GammaFactor):
    """Raised while lesions lag behind in validation, and lowered again when they are ahead.

    ``lag = (lesion error now / at the start) / (global error now / at the start)``, where the start is the first
    validation. The factor is multiplied by ``lag ** gain`` after each validation, the first one apart.

    Args:
        evaluator: the validation engine, with both metrics.
        lesion_metric: an error in lesions.
        global_metric: an error everywhere.
        gain: how quickly the factor follows.
        largest: see :class:`GammaFactor`.

    Raises:
        ValueError: if ``gain`` is not above 0.
    """

    factor: Tensor
    start: Tensor

    def __init__(
        self,
        evaluator: Engine,
        lesion_metric: str = "lesion_mae",
        global_metric: str = "breast_mae",
        gain: float = 0.5,
        largest: float = 10.0,
    ) -> None:
        super().__init__(largest)
        if gain <= 0:
            raise ValueError(f"gain is {gain}; expected above 0")
        self.evaluator, self.gain = evaluator, gain
        self.metrics = (lesion_metric, global_metric)
        self.register_buffer("factor", torch.ones(()))
        self.register_buffer("start", torch.full((2,), math.nan))
        self._warned = False

    def attach(self, trainer: Engine) -> None:
        """Follow each validation: all ranks find the same, for they have the same metrics."""
        self.evaluator.add_event_handler(Events.COMPLETED, self._follow)

    def find(self, terms: Terms, images: int) -> Tensor:
        """The factor that the last validation left."""
        return self.factor

    def _follow(self, evaluator: Engine) -> None:
        now = [float(evaluator.state.metrics.get(name, math.nan)) for name in self.metrics]
        if not all(math.isfinite(error) and error > 0 for error in now):
            if not self._warned:
                missing = " or no ".join(self.metrics)
                logger.warning(f"gamma_factor stays: the validation, which needs lesions, has no {missing} above 0")
            self._warned = True
            return
        if self.start.isnan().any():
            self.start = self.start.new_tensor(now)
        start = self.start.tolist()
        lag = (now[0] / start[0]) / (now[1] / start[1])
        factor = float(self.factor) * lag**self.gain
        self.factor = torch.full_like(self.factor, min(max(factor, 1 / self.largest), self.largest))
        logger.info(f"lesions lag by {lag:.3f}: gamma_factor {float(self.factor):.3f}")


def _of_lesions(name: str) -> bool:
    return name.startswith("lesion_")


def _sum(terms: Terms, lesion: bool) -> Tensor:
    """Of the lesion terms, or of the terms that they repeat inside the masks."""
    return torch.stack([value for name, value in terms.items() if _of_lesions(name) is lesion]).sum()
