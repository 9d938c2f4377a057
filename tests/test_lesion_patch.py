"""Lesion discriminators see nothing but a square around a lesion, and are trained and saved like the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bundle.lesion_patch import LesionCritic, LesionDiscriminators, lesion_pixels, patches
from bundle.losses import LeastSquaresLoss
from bundle.step_images import CycleGANImages
from bundle.trainer import CycleGANTrainer
from tests.test_distributed import on_two_processes
from tests.workflow import equal_networks, networks, train_options, workflow

MakeTrainer = Callable[..., CycleGANTrainer]
Batch = dict[str, Tensor]
SIZE, SIDE = 64, 16


@pytest.fixture
def critic() -> LesionCritic:
    torch.manual_seed(0)
    return LesionCritic(LesionDiscriminators(width=4).double(), side=SIDE / SIZE, weight=2.0)


@pytest.fixture
def images() -> CycleGANImages:
    """Two cases; the first has a lesion in the middle of A and in a corner of B, the second has none."""
    drawn = torch.rand(8, 2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mask_A, mask_B = torch.zeros(2, 2, 1, SIZE, SIZE, dtype=torch.float64)
    mask_A[0, 0, 30:34, 40:44] = 1
    mask_B[0, 0, 60:63, 1:4] = 1
    real_A, real_B, *generated = drawn
    return CycleGANImages(real_A, real_B, mask_A, mask_B, *generated)


def test_every_pixel_of_a_mask_is_chosen_and_no_other() -> None:
    mask = torch.zeros(2, 1, 9, 7)
    mask[0, 0, 2:5, 3:5] = 1
    mask[0, 0, 7, 0] = 0.6
    chosen = [lesion_pixels(mask, share) for share in torch.linspace(0, 1, 100)[:-1].tolist()]
    found = {tuple(pixels[0].tolist()) for pixels in chosen}
    assert found == {tuple(pixel) for pixel in mask[0, 0].nonzero().tolist()}
    assert all(pixels[1].tolist() == [0, 0] for pixels in chosen)
    assert lesion_pixels(mask, 1 - 1e-12)[0].tolist() == [7, 0]


def test_a_patch_is_the_square_around_its_pixel_moved_inwards_at_an_edge() -> None:
    image = torch.arange(2 * 3 * 20 * 24, dtype=torch.float32).view(2, 3, 20, 24)
    cut = patches(image, torch.tensor([[10, 12], [1, 23]]), 8)
    torch.testing.assert_close(cut[0], image[0, :, 6:14, 8:16])
    torch.testing.assert_close(cut[1], image[1, :, 0:8, 16:24])
    assert torch.equal(patches(image, torch.tensor([[0, 0], [19, 0]]), 20)[1], image[1, :, :, :20])


def square(image: Tensor, mask: Tensor) -> Tensor:
    """What the critic may see of a case in step 0: around the first pixel of the mask."""
    x, y = mask[0].nonzero()[0].tolist()
    left, top = (min(max(place - SIDE // 2, 0), SIZE - SIDE) for place in (x, y))
    return image[None, :, left : left + SIDE, top : top + SIDE]


def test_terms_and_losses_are_their_equations(critic: LesionCritic, images: CycleGANImages) -> None:
    network = critic.network
    assert isinstance(network, LesionDiscriminators)
    errors = {}
    for domain, judge, real, fake, mask in (
        ("A", network.a, images.real_A, images.fake_A, images.mask_A),
        ("B", network.b, images.real_B, images.fake_B, images.mask_B),
    ):
        of_real, of_fake = (judge(square(one[0], mask[0])) for one in (real, fake))
        errors[domain] = [((of_fake - 1) ** 2).mean(), ((of_real - 1) ** 2).mean(), (of_fake**2).mean()]
    terms, losses = critic.terms(images, 0), critic.losses(images, 0)
    assert list(terms) == ["lesion_G_AB", "lesion_G_BA"]
    for domain, term in (("B", "lesion_G_AB"), ("A", "lesion_G_BA")):
        fooled, real, fake = errors[domain]
        torch.testing.assert_close(terms[term], 2 * fooled / 2)  # weight 2, mean over two cases
        torch.testing.assert_close(losses[f"lesion_D_{domain}"], 0.5 * (real + fake) / 2)


@pytest.mark.parametrize("step", [0, 1, 7])
def test_a_generated_image_is_seen_near_its_lesion_alone(
    critic: LesionCritic, images: CycleGANImages, step: int
) -> None:
    fake_A, fake_B = (one.clone().requires_grad_() for one in (images.fake_A, images.fake_B))
    torch.stack(list(critic.terms(replace(images, fake_A=fake_A, fake_B=fake_B), step).values())).sum().backward()
    for fake, mask in ((fake_A, images.mask_A), (fake_B, images.mask_B)):
        assert fake.grad is not None
        seen, lesion = fake.grad[0, 0].nonzero(), mask[0, 0].nonzero()
        assert len(seen) > SIDE * SIDE / 2
        assert (seen.amax(0) - seen.amin(0) < SIDE).all()
        inside = (lesion >= seen.amin(0)) & (lesion <= seen.amax(0))
        assert inside.all(1).any()
        assert torch.equal(fake.grad[1], torch.zeros_like(fake.grad[1]))


def test_the_real_image_is_cut_where_the_generated_one_is(critic: LesionCritic, images: CycleGANImages) -> None:
    shown: list[tuple[Tensor, ...]] = []
    critic.network.register_forward_pre_hook(lambda _, inputs: shown.append(inputs))
    for step in range(20):
        critic.losses(replace(images, fake_A=images.real_A + 1, fake_B=images.real_B + 1), step)
    for inputs in shown:
        for both in inputs:
            real, fake = both.chunk(2)
            torch.testing.assert_close(fake, real + 1)
    assert len({float(inputs[0][0, 0, 0, 0]) for inputs in shown}) > 5  # another pixel in each step


def test_without_a_lesion_terms_and_losses_are_exactly_0_and_so_are_their_gradients(
    critic: LesionCritic, images: CycleGANImages
) -> None:
    empty = torch.zeros_like(images.mask_A)
    fake = images.fake_B.clone().requires_grad_()
    without = replace(images, fake_B=fake, mask_A=empty, mask_B=empty)
    values = critic.terms(without, 3) | critic.losses(without, 3)
    assert all(value == 0 for value in values.values())
    torch.stack(list(values.values())).sum().backward()
    assert fake.grad is not None
    for gradient in (fake.grad, *(weight.grad for weight in critic.network.parameters())):
        assert gradient is not None
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_losses_leave_the_generators_alone(critic: LesionCritic, images: CycleGANImages) -> None:
    fake = images.fake_B.clone().requires_grad_()
    torch.stack(list(critic.losses(replace(images, fake_B=fake), 0).values())).sum().backward()
    assert fake.grad is None


def test_they_can_be_squashed_like_the_others(images: CycleGANImages) -> None:
    torch.manual_seed(0)
    network = LesionDiscriminators(width=4).double()
    squashed = LesionCritic(network, SIDE / SIZE, adversarial=LeastSquaresLoss(sigmoid=True))
    logits = network(square(images.fake_A[0], images.mask_A[0]), square(images.fake_B[0], images.mask_B[0]))
    expected = (logits[1].sigmoid() - 1).square().mean() / 2
    torch.testing.assert_close(squashed.terms(images, 0)["lesion_G_AB"], expected)


def test_impossible_squares_are_refused(images: CycleGANImages) -> None:
    for side, weight in ((0.0, 1.0), (1.5, 1.0), (0.5, -1.0)):
        with pytest.raises(ValueError, match=r"expected a side in \(0, 1\]"):
            LesionCritic(LesionDiscriminators(width=4), side, weight)
    with pytest.raises(ValueError, match=r"has 6 pixels a side .* larger side"):
        LesionCritic(LesionDiscriminators(width=4).double(), side=0.1).terms(images, 0)


def with_critic(make_trainer: MakeTrainer, **options: Any) -> CycleGANTrainer:
    trainer = make_trainer(torch.float64, **options)
    torch.manual_seed(1)
    network = LesionDiscriminators(width=4).double()
    trainer.critics = [LesionCritic(network, side=0.5)]
    trainer.discriminator_optimizer.add_param_group({"params": list(network.parameters())})
    return trainer


def test_a_step_trains_them_and_adds_their_terms_to_the_generators(make_trainer: MakeTrainer, batch: Batch) -> None:
    plain, trainer = make_trainer(torch.float64), with_critic(make_trainer)
    before = [weight.clone() for weight in trainer.critics[0].network.parameters()]
    outputs = [one._iteration(one, batch)[0] for one in (plain, trainer)]
    added = {"lesion_G_AB", "lesion_G_BA", "lesion_D_A", "lesion_D_B"}
    assert outputs[1].keys() - outputs[0].keys() == added
    assert not any(outputs[1][name].requires_grad for name in added)
    terms = outputs[0]["loss"] + outputs[1]["lesion_G_AB"] + outputs[1]["lesion_G_BA"]
    torch.testing.assert_close(outputs[1]["loss"], terms)
    assert all(torch.equal(outputs[1][name], outputs[0][name]) for name in ("G_AB", "cycle_A", "D_A", "D_B"))
    after = list(trainer.critics[0].network.parameters())
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True) if one.ndim > 1)
    assert all(weight.requires_grad for weight in after)
    assert list(trainer.networks)[-1] == "lesion_discriminators"


def test_parts_of_a_batch_give_the_step_of_the_whole_batch(make_trainer: MakeTrainer, batch: Batch) -> None:
    whole, parts = with_critic(make_trainer), with_critic(make_trainer)
    parts.memory.micro_batch_size = 2
    for trainer in (whole, parts):
        trainer.data_loader, trainer.state.epoch_length = [batch] * 2, 2
        trainer.run()
    for name, network in whole.networks.items():
        for one, other in zip(network.parameters(), parts.networks[name].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_no_value_is_read_back_from_the_device_in_a_step(
    make_trainer: MakeTrainer, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = with_critic(make_trainer)

    def forbidden(*_: Any) -> None:
        raise AssertionError("a step waits for the device")

    for method in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy"):
        monkeypatch.setattr(Tensor, method, forbidden)
    trainer._iteration(trainer, batch)


OPTIONS: dict[str, Any] = {"lesion_patch_side": 0.5, "lesion_discriminators_def#width": 4, "warmup_epochs": 0}


def test_the_overlay_trains_and_resumes_exactly(tiny_dataset: Path, tmp_path: Path) -> None:
    for name, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
        made = train_options(tiny_dataset, tmp_path / name, max_epochs=epochs, resume=True, **OPTIONS)
        workflow("train.json", "lesion_patch.yaml", **made).run()
    saved = networks(tmp_path / "whole")
    assert list(saved)[-1] == "lesion_discriminators"
    assert equal_networks(tmp_path / "whole", tmp_path / "parts")
    best = torch.load(tmp_path / "whole" / "best_networks.pt", weights_only=True)
    assert best.keys() == saved.keys()
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["status"] == "completed"


def test_two_processes_keep_them_equal(tiny_dataset: Path, tmp_path: Path) -> None:
    overlays = ["lesion_patch.yaml"]
    on_two_processes(tiny_dataset, tmp_path, overlays=overlays, max_epochs=1, **OPTIONS | {"batch_size": 2})
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert len({rank["fingerprint"] for rank in state["ranks"]}) == 1
    network: nn.Module = LesionDiscriminators(width=4)
    network.load_state_dict(state["networks"]["lesion_discriminators"])
