"""One step of the trainer equals a textbook CycleGAN step; the engine keeps MONAI's contract."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor, nn

from bundle.networks import InstanceNorm
from bundle.trainer import ConstantThenLinear, CycleGANTrainer
from tests.conftest import in_memory

MakeTrainer = Callable[..., CycleGANTrainer]
Batch = dict[str, Tensor]


def with_torch_norm(module: nn.Module) -> nn.Module:
    """A copy that uses torch's own instance norm, in contiguous memory."""
    module = in_memory(copy.deepcopy(module), torch.contiguous_format)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, InstanceNorm):
                setattr(parent, name, nn.LazyInstanceNorm2d(affine=False))
    return module


def plain_step(nets: dict[str, nn.Module], batch: Batch, gamma: float) -> dict[str, Tensor]:
    """The losses of one CycleGAN step as papers write it: every image on its own, gradients left in ``nets``."""
    x, y, m_x, m_y = batch["image"], batch["label"], batch.get("mask"), batch.get("label_mask")
    g, f, d_x, d_y = nets["network"], nets["generator_ba"], nets["discriminator_a"], nets["discriminator_b"]

    def l1(a: Tensor, b: Tensor, m: Tensor | float = 1.0) -> Tensor:
        return nn.functional.l1_loss(a * m, b * m)

    fake_y = torch.cat([g(i) for i in x.split(1)])
    fake_x = torch.cat([f(i) for i in y.split(1)])
    rec_x, rec_y = f(fake_y), g(fake_x)
    idt_x, idt_y = f(x), g(y)
    total = ((d_y(fake_y) - 1) ** 2).mean() + ((d_x(fake_x) - 1) ** 2).mean()
    total = total + 10 * (l1(rec_x, x) + l1(rec_y, y)) + 5 * (l1(idt_x, x) + l1(idt_y, y))
    if m_x is not None and m_y is not None:
        total = total + gamma * (l1(rec_x, x, m_x) + l1(rec_y, y, m_y) + l1(idt_x, x, m_x) + l1(idt_y, y, m_y))
    total.backward()
    for net in (d_x, d_y):
        net.zero_grad()
    loss_x = 0.5 * (((d_x(x) - 1) ** 2).mean() + (d_x(fake_x.detach()) ** 2).mean())
    loss_y = 0.5 * (((d_y(y) - 1) ** 2).mean() + (d_y(fake_y.detach()) ** 2).mean())
    (loss_x + loss_y).backward()
    return {"loss": total.detach(), "D_A": loss_x.detach(), "D_B": loss_y.detach()}


def assert_same_step(trainer: CycleGANTrainer, batch: Batch, gamma: float) -> None:
    plain = {name: with_torch_norm(network) for name, network in trainer.networks.items()}
    expected = plain_step(plain, batch, gamma)
    output = trainer._iteration(trainer, batch)[0]
    for name, value in expected.items():
        torch.testing.assert_close(output[name], value, atol=1e-10, rtol=0)
    for name, network in trainer.networks.items():
        for ours, theirs in zip(network.parameters(), plain[name].parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=0)


def test_losses_and_gradients_equal_a_plain_step_with_masks(make_trainer: MakeTrainer, batch: Batch) -> None:
    # learning rate 0: the discriminators' step must see the generators before their update, as the plain one does
    assert_same_step(make_trainer(learning_rate=0.0, gamma=35), batch, gamma=35)


def test_losses_and_gradients_equal_a_plain_step_without_masks(make_trainer: MakeTrainer, batch: Batch) -> None:
    pairs = {name: batch[name] for name in ("image", "label")}
    assert_same_step(make_trainer(learning_rate=0.0, gamma=35), pairs, gamma=35)
    assert_same_step(make_trainer(learning_rate=0.0, gamma=0), batch, gamma=0)


def test_an_update_of_the_generators_does_not_reach_the_discriminators_step(
    make_trainer: MakeTrainer, batch: Batch
) -> None:
    still, moving = make_trainer(learning_rate=0.0), make_trainer(learning_rate=0.1)
    outputs = [trainer._iteration(trainer, batch)[0] for trainer in (still, moving)]
    assert torch.equal(outputs[0]["D_A"], outputs[1]["D_A"])


def test_gamma_0_ends_with_the_weights_of_training_without_masks(make_trainer: MakeTrainer, batch: Batch) -> None:
    with_masks, without = make_trainer(gamma=0), make_trainer(gamma=0)
    for _ in range(3):
        with_masks._iteration(with_masks, batch)
        without._iteration(without, {name: batch[name] for name in ("image", "label")})
    for a, b in zip(with_masks.network.parameters(), without.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_total_is_the_sum_of_the_named_terms_and_all_are_detached(make_trainer: MakeTrainer, batch: Batch) -> None:
    trainer = make_trainer(gamma=35)
    output = trainer._iteration(trainer, batch)[0]
    names = set(output) - {"image", "label", "pred", "loss", "D_A", "D_B"}
    assert {"G_AB", "cycle_A", "idt_B", "lesion_cycle_A", "lesion_idt_B"} <= names
    torch.testing.assert_close(output["loss"], torch.stack([output[name] for name in names]).sum())
    assert not any(value.requires_grad for value in output.values())
    assert output["pred"].shape == batch["image"].shape


def test_one_mask_serves_both_images(make_trainer: MakeTrainer, batch: Batch) -> None:
    both = batch | {"label_mask": batch["mask"]}
    one = {name: batch[name] for name in ("image", "label", "mask")}
    outputs = [trainer._iteration(trainer, b)[0] for trainer, b in ((make_trainer(), both), (make_trainer(), one))]
    assert torch.equal(outputs[0]["loss"], outputs[1]["loss"])


def test_the_discriminators_learn_from_the_pool_not_from_the_fresh_images(
    make_trainer: MakeTrainer, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(learning_rate=0.0)
    old = {name: torch.rand_like(batch["image"]) for name in "AB"}
    monkeypatch.setattr(trainer, "pools", {name: lambda _, name=name: old[name] for name in "AB"})
    judge = trainer.networks["discriminator_b"]
    expected = 0.5 * (((judge(batch["label"]) - 1) ** 2).mean() + (judge(old["B"]) ** 2).mean())
    torch.testing.assert_close(trainer._iteration(trainer, batch)[0]["D_B"], expected.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_under_autocast_stays_close_to_full_precision(
    make_trainer: MakeTrainer, batch: Batch, dtype: torch.dtype
) -> None:
    single = {name: value.float() for name, value in batch.items()}
    full = make_trainer(torch.float32, learning_rate=0.0)
    half = make_trainer(torch.float32, amp=True, amp_kwargs={"dtype": dtype})
    outputs = [trainer._iteration(trainer, single)[0] for trainer in (full, half)]
    for name in ("loss", "cycle_A", "lesion_cycle_A", "D_A"):
        assert outputs[1][name].dtype == torch.float32
        torch.testing.assert_close(outputs[0][name], outputs[1][name], rtol=0.005, atol=0.0)
    assert half.scalers["G"].is_enabled() == (dtype is torch.float16)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in half.network.parameters())


def test_no_value_is_read_back_from_the_device_in_a_step(
    make_trainer: MakeTrainer, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(torch.float32)
    single = {name: value.float() for name, value in batch.items()}

    def forbidden(*_: Any) -> None:
        raise AssertionError("a step waits for the device")

    for method in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy"):
        monkeypatch.setattr(Tensor, method, forbidden)
    trainer._iteration(trainer, single)


def test_images_of_different_size_are_refused(make_trainer: MakeTrainer, batch: Batch) -> None:
    trainer = make_trainer()
    with pytest.raises(ValueError, match="must agree"):
        trainer._iteration(trainer, batch | {"label": batch["label"][..., :16]})


def test_it_is_a_supervised_trainer_that_fires_monais_events(make_trainer: MakeTrainer, batch: Batch) -> None:
    trainer = make_trainer()
    assert isinstance(trainer, SupervisedTrainer)
    fired: list[str] = []
    for event in IterationEvents:
        trainer.add_event_handler(event, lambda _, name=event.name: fired.append(name))
    trainer.data_loader, trainer.state.epoch_length = [batch], 1
    trainer.run()
    assert fired == ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"]


def test_the_learning_rate_is_constant_then_falls_to_almost_0() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = ConstantThenLinear(optimizer, max_epochs=8, decay=0.5)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [1.0] * 4
    assert rates[4:] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_a_decay_beyond_all_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match="share of the epochs"):
        ConstantThenLinear(torch.optim.SGD([torch.zeros(1)], lr=1.0), 8, decay=15)


def test_without_decay_the_rate_never_changes() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = ConstantThenLinear(optimizer, max_epochs=3)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_a_schedule_restored_for_a_longer_training_has_the_longer_trainings_rate() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    short = ConstantThenLinear(optimizer, max_epochs=4, decay=0.5)
    for _ in range(4):
        optimizer.step()
        short.step()
    assert optimizer.param_groups[0]["lr"] == 0
    ConstantThenLinear(optimizer, max_epochs=8, decay=0.5).load_state_dict(short.state_dict())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.8)
