"""The training engine: one optimisation step of Seg-CycleGAN inside MONAI's supervised trainer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bundle.image_pool import ImagePool
from bundle.lesion_patch import LesionCritic
from bundle.losses import DiscriminatorObjective, GeneratorObjective, total
from bundle.resumable_trainer import ResumableTrainer, full_precision, unwrap
from bundle.step_images import CycleGANImages

__all__ = ["ConstantThenLinear", "CycleGANTrainer"]


class ConstantThenLinear(LambdaLR):
    """Keep the learning rate, then let it fall linearly towards 0 over the last part of the epochs (Zhu et al. 2017).

    A restored schedule sets the rate that it has for the epoch itself, so a training can be prolonged.

    Args:
        optimizer: whose learning rate is scheduled, stepped once an epoch.
        max_epochs: epochs of the whole training.
        decay: share of the epochs, at the end, over which the rate falls: 0 keeps it constant as the paper does,
            0.5 is the original CycleGAN.

    Raises:
        ValueError: if ``decay`` is not in [0, 1].
    """

    def __init__(self, optimizer: Optimizer, max_epochs: int, decay: float = 0.0) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}; it is a share of the epochs and must lie in [0, 1]")
        falling = int(decay * max_epochs)

        def factor(epoch: int) -> float:
            return min(1.0, max(0.0, (max_epochs - epoch) / (falling + 1))) if falling else 1.0

        super().__init__(optimizer, factor)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the epoch and the base rate, then set the rate of that epoch."""
        super().load_state_dict(state_dict)
        for group, base, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["lr"] = base * factor(self.last_epoch)


class CycleGANTrainer(ResumableTrainer):
    """Train two generators and two discriminators, with lesion masks where cases have them.

    Per step: translate, reconstruct, one generator update, one update of both discriminators. Identity and translation
    run as one batch through a generator, and so do real and generated images through a discriminator: instance norm
    works per image, so this is exact. No value is read back from the device inside a step.

    ``engine.state.output`` is a list of one dictionary, as MONAI's ``from_engine`` reads it, with ``image``, ``label``,
    ``pred`` (``fake_B``), ``loss`` (the generators' total), every term of the objective with its weight, ``D_A``,
    ``D_B`` and the terms and losses of further discriminators; all detached.

    The networks are quickest in channels-last memory. Change the memory format before a network is wrapped in
    ``DistributedDataParallel``: afterwards the wrapper would exchange scrambled gradients.

    Args:
        device: where to train.
        max_epochs: epochs to run.
        train_data_loader: batches with ``image`` (LE), ``label`` (DES), each ``(B, 1, W, H)`` in [0, 1], and optionally
            ``mask`` and ``label_mask`` (lesions drawn on each; a missing ``label_mask`` is ``mask``, a missing ``mask``
            is empty).
        network: the served generator LE -> DES, ``G_AB``.
        generator_ba: the generator DES -> LE.
        discriminator_a: judges LE images.
        discriminator_b: judges DES images.
        optimizer: of both generators.
        discriminator_optimizer: of both discriminators.
        loss_function: the generators' named terms.
        discriminator_loss: of one discriminator.
        critics: further discriminators, with terms for the generators; their parameters are in
            ``discriminator_optimizer`` too.
        pool_size: images each discriminator's history keeps, see :class:`~bundle.image_pool.ImagePool`.
        seed: of the image pools.
        train_handlers: handlers, attached when the engine is complete.
        kwargs: the other arguments of :class:`~bundle.resumable_trainer.ResumableTrainer`, such as ``amp``.

    Raises:
        ValueError: from a step, when ``image`` and ``label`` differ in shape.
    """

    loss_function: GeneratorObjective
    discriminator_loss: DiscriminatorObjective
    network_names = ("network", "generator_ba", "discriminator_a", "discriminator_b")

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        network: nn.Module,
        generator_ba: nn.Module,
        discriminator_a: nn.Module,
        discriminator_b: nn.Module,
        optimizer: Optimizer,
        discriminator_optimizer: Optimizer,
        loss_function: GeneratorObjective,
        discriminator_loss: DiscriminatorObjective,
        critics: Sequence[LesionCritic] = (),
        pool_size: int = 0,
        seed: int = 0,
        train_handlers: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(device, max_epochs, train_data_loader, network, optimizer, loss_function, **kwargs)
        self.generator_ba, self.discriminator_a, self.discriminator_b = generator_ba, discriminator_a, discriminator_b
        self.discriminator_optimizer, self.discriminator_loss = discriminator_optimizer, discriminator_loss
        self.critics = list(critics)
        self.add_optimizer("D", discriminator_optimizer)
        self.pools = {name: ImagePool(pool_size, seed + i) for i, name in enumerate("AB")}
        if loss_function.gamma_factor is not None:
            loss_function.gamma_factor.attach(self)
        self.attach_handlers(train_handlers)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks without distributed wrappers, by name."""
        return super().networks | {critic.name: unwrap(critic.network) for critic in self.critics}

    def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        real_A, real_B, mask_A, mask_B = self._batch(batchdata)
        for network in self.networks.values():
            network.train()
        images, terms = self._update_generators(real_A, real_B, mask_A, mask_B)
        losses = self._update_discriminators(images)
        named = {name: value.detach() for name, value in (terms | losses).items()}
        engine.state.output |= named
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return [engine.state.output]

    def _update_generators(
        self, real_A: Tensor, real_B: Tensor, mask_A: Tensor, mask_B: Tensor
    ) -> tuple[CycleGANImages, dict[str, Tensor]]:
        judges = [self.networks[name] for name in self.networks if name not in ("network", "generator_ba")]
        for judge in judges:
            judge.requires_grad_(False)
        self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        with self._autocast():
            images = self._translate(real_A, real_B, mask_A, mask_B)
            logits = [full_precision(judges[0](images.fake_A)), full_precision(judges[1](images.fake_B))]
            further = [critic.terms(images, self.state.iteration) for critic in self.critics]
        self.state.output = {Keys.IMAGE: real_A, Keys.LABEL: real_B, Keys.PRED: images.fake_B.detach()}
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        terms = self.loss_function(images, *logits)
        for named in further:
            terms |= named
        loss = total(terms)
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._step(loss, self.optimizer, self.scalers["G"])
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        for judge in judges:
            judge.requires_grad_(True)
        return images, {Keys.LOSS: loss} | terms

    def _translate(self, real_A: Tensor, real_B: Tensor, mask_A: Tensor, mask_B: Tensor) -> CycleGANImages:
        if self.loss_function.uses_identity:
            fake_B, idt_B = self.network(torch.cat((real_A, real_B))).chunk(2)
            fake_A, idt_A = self.generator_ba(torch.cat((real_B, real_A))).chunk(2)
        else:
            fake_B = idt_B = self.network(real_A)
            fake_A = idt_A = self.generator_ba(real_B)
        rec_A, rec_B = self.generator_ba(fake_B), self.network(fake_A)
        generated = map(full_precision, (fake_B, fake_A, rec_A, rec_B, idt_A, idt_B))
        return CycleGANImages(real_A, real_B, mask_A, mask_B, *generated)

    def _update_discriminators(self, images: CycleGANImages) -> dict[str, Tensor]:
        self.discriminator_optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        pairs = {
            "D_A": (self.discriminator_a, images.real_A, images.fake_A, images.mask_A, self.pools["A"]),
            "D_B": (self.discriminator_b, images.real_B, images.fake_B, images.mask_B, self.pools["B"]),
        }
        with self._autocast():
            losses = {name: self._judge(*pair) for name, pair in pairs.items()}
            for critic in self.critics:
                losses |= critic.losses(images, self.state.iteration)
        self._step(total(losses), self.discriminator_optimizer, self.scalers["D"])
        return losses

    def _judge(self, discriminator: nn.Module, real: Tensor, fake: Tensor, mask: Tensor, pool: ImagePool) -> Tensor:
        guided = self.discriminator_loss.uses_masks
        # An old image keeps the lesions that it was made with.
        shown = pool(torch.cat((fake, mask.to(fake)), dim=1)) if guided else pool(fake)
        fake = shown[:, : fake.shape[1]]
        real_logits, fake_logits = full_precision(discriminator(torch.cat((real, fake)))).chunk(2)
        masks = (mask, shown[:, -1:]) if guided else ()
        return cast(Tensor, self.discriminator_loss(real_logits, fake_logits, *masks))
