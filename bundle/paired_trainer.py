"""Training on the pairs themselves: one generator, with a discriminator beside it if one is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer

from bundle.losses import DiscriminatorObjective, PairedObjective, total
from bundle.resumable_trainer import ResumableTrainer, full_precision
from bundle.step_images import PairedImages

__all__ = ["PairedTrainer"]


class PairedTrainer(ResumableTrainer):
    """Train the generator LE -> DES to be near the real DES of each pair.

    With L1 alone this is what any CycleGAN has to be compared with, since CESM images are paired. It needs about a
    quarter of the computation of a CycleGAN step. With a discriminator it is pix2pix (Isola et al. 2017): the
    discriminator sees the LE image beside a real or virtual DES and judges whether they go together.

    ``engine.state.output`` is a list of one dictionary with ``image``, ``label``, ``pred``, ``loss``, every term of the
    objective with its weight, and ``D_B`` where there is a discriminator; all detached.

    Args:
        loss_function: the generator's named terms.
        discriminator_b: judges LE and DES together, ``(B, 2, W, H)``; none trains without an adversary.
        discriminator_optimizer: of the discriminator.
        discriminator_loss: of the discriminator.
        train_handlers: handlers, attached when the engine is complete.
        device, max_epochs, train_data_loader, network, optimizer, kwargs: as in
            :class:`~bundle.resumable_trainer.ResumableTrainer`.

    Raises:
        ValueError: there is an adversarial term without a discriminator, or the other way round; from a step, when
            ``image`` and ``label`` differ in shape.
    """

    loss_function: PairedObjective

    def __init__(
        self,
        device: Any,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: PairedObjective,
        discriminator_b: nn.Module | None = None,
        discriminator_optimizer: Optimizer | None = None,
        discriminator_loss: DiscriminatorObjective | None = None,
        train_handlers: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(device, max_epochs, train_data_loader, network, optimizer, loss_function, **kwargs)
        given = [one is not None for one in (discriminator_b, discriminator_optimizer, discriminator_loss)]
        if len({*given, loss_function.adversarial is not None}) > 1:
            raise ValueError(
                "a discriminator needs its optimiser, its loss and an adversarial term of the objective; give all of "
                "them, or none"
            )
        self.discriminator_b, self.discriminator_loss = discriminator_b, discriminator_loss
        if discriminator_b is not None and discriminator_optimizer is not None:
            self.network_names = ("network", "discriminator_b")
            self.discriminator_optimizer = discriminator_optimizer
            self.add_optimizer("D", discriminator_optimizer)
        self.attach_handlers(train_handlers)

    def _iteration(self, engine: ResumableTrainer, batchdata: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        real_A, real_B, mask_A, mask_B = self._batch(batchdata)
        for network in self.networks.values():
            network.train()
        images, terms = self._update_generator(real_A, real_B, mask_A, mask_B)
        if self.discriminator_b is not None and self.discriminator_loss is not None:
            terms |= self._update_discriminator(self.discriminator_b, self.discriminator_loss, images)
        engine.state.output |= {name: value.detach() for name, value in terms.items()}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return [engine.state.output]

    def _update_generator(
        self, real_A: Tensor, real_B: Tensor, mask_A: Tensor, mask_B: Tensor
    ) -> tuple[PairedImages, dict[str, Tensor]]:
        judge = self.networks.get("discriminator_b")
        if judge is not None:
            judge.requires_grad_(False)
        self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        with self._autocast():
            fake_B = full_precision(self.network(real_A))
            logits = None if judge is None else full_precision(judge(torch.cat((real_A, fake_B), dim=1)))
        images = PairedImages(real_A, real_B, mask_A, mask_B, fake_B)
        self.state.output = {Keys.IMAGE: real_A, Keys.LABEL: real_B, Keys.PRED: fake_B.detach()}
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        terms = self.loss_function(images, logits)
        loss = total(terms)
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._step(loss, self.optimizer, self.scalers["G"])
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if judge is not None:
            judge.requires_grad_(True)
        return images, {Keys.LOSS: loss} | terms

    def _update_discriminator(
        self, judge: nn.Module, objective: DiscriminatorObjective, images: PairedImages
    ) -> dict[str, Tensor]:
        self.discriminator_optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        pairs = [torch.cat((images.real_A, shown), dim=1) for shown in (images.real_B, images.fake_B.detach())]
        with self._autocast():
            real, fake = full_precision(judge(torch.cat(pairs))).chunk(2)
        loss = objective(real, fake, images.mask_B, images.mask_B)
        self._step(loss, self.discriminator_optimizer, self.scalers["D"])
        return {"D_B": loss}
