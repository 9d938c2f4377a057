"""A gamma that is found during the training does what its equation says, and goes on exactly where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bundle.adaptive_gamma import BalancedGamma, ControlledGamma, GammaFactor, UncertaintyGamma
from bundle.losses import DiscriminatorObjective, GeneratorObjective
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.trainer import CycleGANTrainer
from tests.conftest import in_memory
from tests.test_distributed import free_port
from tests.workflow import equal_networks, train_options, workflow

Batch = dict[str, Tensor]
OVERLAYS = ("gamma_uncertainty", "gamma_balanced", "gamma_controlled")


def terms_of(everywhere: float, lesion: float) -> Batch:
    """Two terms of each group, of these sums."""
    values = {"cycle_A": everywhere / 4, "idt_B": everywhere * 3 / 4}
    values |= {"lesion_cycle_A": lesion / 2, "lesion_idt_B": lesion / 2}
    return {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}


def trainer_with(make: Callable[[list[nn.Module]], GammaFactor], **options: Any) -> CycleGANTrainer:
    """A tiny trainer whose objective has the factor that ``make`` makes of the generators."""
    torch.manual_seed(0)
    dtype, wrap = options.pop("dtype", torch.float64), options.pop("wrap", lambda network: network)
    generators: Any = [wrap(in_memory(ResnetGenerator(width=4, blocks=1).to(dtype))) for _ in range(2)]
    judges: Any = [wrap(in_memory(PatchGAN(width=4, layers=1).to(dtype))) for _ in range(2)]
    factor = make(generators)
    groups: list[dict[str, Any]] = [{"params": [p for g in generators for p in g.parameters()]}]
    groups += [{"params": list(factor.parameters()), "lr": 0.05}] if list(factor.parameters()) else []
    of_g = torch.optim.SGD(groups, lr=1e-2)
    of_d = torch.optim.SGD([p for d in judges for p in d.parameters()], lr=1e-2)
    objective = GeneratorObjective(gamma=35, gamma_factor=factor)
    (g_ab, g_ba), (d_a, d_b), of_one = generators, judges, DiscriminatorObjective()
    return CycleGANTrainer("cpu", 1, [], g_ab, g_ba, d_a, d_b, of_g, of_d, objective, of_one, **options)


def factor_of(trainer: CycleGANTrainer) -> GammaFactor:
    factor = trainer.loss_function.gamma_factor
    assert factor is not None
    return factor


def train(trainer: CycleGANTrainer, *batches: dict[str, Any]) -> CycleGANTrainer:
    """The engine's own loop over these batches, in one epoch."""
    trainer.data_loader, trainer.state.epoch_length = batches, len(batches)
    trainer.run()
    return trainer


def balanced(every: int = 1, momentum: float = 0.0, **options: Any) -> Callable[[list[nn.Module]], GammaFactor]:
    return lambda generators: BalancedGamma(generators, every=every, momentum=momentum, **options)


def test_the_scales_of_uncertainty_settle_at_the_errors_they_divide() -> None:
    gamma = UncertaintyGamma()
    optimizer = torch.optim.Adam(gamma.parameters(), lr=0.05)
    errors = torch.tensor([[3.0, 0.2], [5.0, 0.6]])
    for step in range(2000):
        optimizer.zero_grad()
        weighted = gamma(terms_of(*errors[step % 2].tolist()), 1)
        weighted["lesion_cycle_A"].backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * 0.997**step
        optimizer.step()
    torch.testing.assert_close(gamma.log_scales.exp().detach(), errors.mean(0), rtol=0.02, atol=0)
    assert gamma(terms_of(4.0, 0.4), 1)["gamma_factor"].item() == pytest.approx(10, rel=0.02)


def test_the_scales_learn_without_changing_the_value_of_a_term_or_the_gradient_of_an_error() -> None:
    gamma, terms = UncertaintyGamma(), terms_of(4.0, 0.5)
    with torch.no_grad():
        gamma.log_scales.copy_(torch.tensor([0.7, 0.2]))
    weighted = gamma(terms, 1)
    factor = weighted.pop("gamma_factor")
    assert factor.item() == pytest.approx(math.exp(0.5))
    for name, value in weighted.items():
        expected = terms[name] * (factor if name.startswith("lesion") else 1)
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    torch.stack(list(weighted.values())).sum().backward()
    for name, term in terms.items():
        assert term.grad is not None
        assert term.grad.item() == pytest.approx(factor.item() if name.startswith("lesion") else 1)
    likelihood = lambda s: 4.0 * torch.exp(-s[0]) + s[0] + 0.5 * torch.exp(-s[1]) + s[1]  # noqa: E731
    expected = torch.autograd.functional.jacobian(likelihood, gamma.log_scales.detach())
    torch.testing.assert_close(gamma.log_scales.grad, expected)


def test_a_data_set_without_lesions_does_not_drive_the_factor_to_infinity() -> None:
    gamma = UncertaintyGamma(largest=50)
    with torch.no_grad():
        gamma.log_scales.copy_(torch.tensor([1.0, -200.0]))
    weighted = gamma(terms_of(3.0, 0.0), 1)
    assert weighted["gamma_factor"].item() == pytest.approx(50)
    assert weighted["lesion_idt_B"].item() == 0
    weighted["lesion_cycle_A"].backward()
    assert gamma.log_scales.grad is not None
    assert gamma.log_scales.grad.isfinite().all()
    (back,) = torch.autograd.grad(gamma(terms_of(3.0, 0.1), 1)["lesion_cycle_A"], gamma.log_scales)
    assert back[1] < 0  # a lesion brings it back


def norms(trainer: CycleGANTrainer, batch: Batch) -> tuple[float, float]:
    """Of the gradients of both groups at the last layers, from a plain backward pass for each; gamma alone."""
    found = []
    images = trainer._translate(batch["image"], batch["label"], batch["mask"], batch["label_mask"])
    terms = GeneratorObjective(gamma=35)(images, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    for lesion in (False, True):
        chosen = [v for n, v in terms.items() if not n.startswith("G_") and n.startswith("lesion") is lesion]
        for generator in (trainer.network, trainer.generator_ba):
            generator.zero_grad()
        torch.stack(chosen).sum().backward(retain_graph=True)
        last = [list(generator.parameters())[-2].grad for generator in (trainer.network, trainer.generator_ba)]
        found.append(torch.cat([one.flatten() for one in last if one is not None]).norm().item())
    return found[0], found[1]


@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_balanced_gamma_gives_the_gradients_the_wanted_ratio(batch: Batch, ratio: float) -> None:
    of_all, of_lesions = norms(trainer_with(balanced()), batch)
    trainer = train(trainer_with(balanced(ratio=ratio)), batch)
    factor = factor_of(trainer).get_buffer("factor").item()
    assert factor * of_lesions / of_all == pytest.approx(ratio, rel=1e-5)
    assert factor == pytest.approx(ratio * of_all / of_lesions, rel=1e-5)
    assert trainer.state.output is not None


def test_the_factor_is_a_geometric_running_mean_that_changes_after_every_so_many_steps(batch: Batch) -> None:
    first = norms(trainer_with(balanced()), batch)
    trainer = trainer_with(balanced(every=2, momentum=0.75))
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    seen: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output[0]["gamma_factor"].item())
    )
    train(trainer, *[batch] * 5)
    once, twice = (pytest.approx((first[0] / first[1]) ** power, rel=1e-5) for power in (0.25, 0.4375))
    assert seen == [1.0, 1.0, once, once, twice]


def test_a_step_without_a_lesion_is_passed_over(batch: Batch) -> None:
    empty = batch | {name: torch.zeros_like(batch[name]) for name in ("mask", "label_mask")}
    trainer = trainer_with(balanced(momentum=0.5))
    train(trainer, batch)
    before = factor_of(trainer).get_buffer("factor").clone()
    trainer.state.epoch, trainer.state.max_epochs = 0, 1
    train(trainer, empty)
    assert before != 1
    assert torch.equal(factor_of(trainer).get_buffer("factor"), before)


def test_looking_changes_no_gradient_of_the_step(batch: Batch) -> None:
    looking, blind = trainer_with(balanced()), trainer_with(balanced(every=100))
    for trainer in (looking, blind):
        train(trainer, batch)
    for one, other in zip(looking.network.parameters(), blind.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_factor_is_the_same_in_parts_of_the_batch_recomputed_and_after_a_step_that_was_undone(batch: Batch) -> None:
    whole = train(trainer_with(balanced()), *[batch] * 2)
    parts = trainer_with(balanced(), micro_batch_size=2)
    calls: list[int] = []

    def fail(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append(len(inputs[0]))
        if len(calls) in (3, 6):  # in the second part's turn, when the gradients of the first are noted
            raise torch.OutOfMemoryError("out of memory")

    parts.discriminator_b.register_forward_pre_hook(fail)
    train(parts, *[batch] * 2)
    assert all(getattr(g, "checkpointing") for g in (parts.network, parts.generator_ba))  # noqa: B009 - of any module
    assert parts.memory.micro_batch_size == 1
    factors = [factor_of(trainer).get_buffer("factor") for trainer in (whole, parts)]
    torch.testing.assert_close(*factors, rtol=1e-5, atol=0)
    assert factors[0] != 1
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_the_scales_are_the_same_in_parts_of_the_batch(batch: Batch) -> None:
    trainers = [trainer_with(lambda _: UncertaintyGamma(), micro_batch_size=size) for size in (None, 1)]
    scales = [factor_of(train(trainer, *[batch] * 3)).get_parameter("log_scales").detach() for trainer in trainers]
    torch.testing.assert_close(*scales, rtol=1e-5, atol=1e-7)
    assert scales[0].ne(0).all()


MAKERS: dict[str, Callable[[list[nn.Module]], GammaFactor]] = {
    "balanced": balanced(momentum=0.5),
    "uncertainty": lambda _: UncertaintyGamma(),
}


def rank_main(rank: int, port: int, batch: Batch, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    share = {name: value[rank::2] for name, value in batch.items()}
    for name, make in MAKERS.items():
        trainer = train(trainer_with(make, wrap=DistributedDataParallel), *[share] * 3)
        torch.save(trainer.training_state(), f"{folder}/{name}{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_find_the_factor_of_one_on_the_joint_batch(batch: Batch, tmp_path: Path) -> None:
    four = {name: torch.cat([value, value[:1].flip(3)]) for name, value in batch.items()}
    mp.start_processes(rank_main, (free_port(), four, str(tmp_path)), nprocs=2, start_method="fork")
    for name, make in MAKERS.items():
        alone = train(trainer_with(make), *[four] * 3)
        states = [torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1)]
        for key, value in alone.training_state()["objective"].items():
            assert torch.equal(states[0]["objective"][key], states[1]["objective"][key])
            torch.testing.assert_close(states[0]["objective"][key], value, rtol=1e-5, atol=1e-7)
            assert value.ne(1).all()
            assert value.ne(0).all()
        for key, weight in alone.network.state_dict().items():
            torch.testing.assert_close(states[0]["networks"]["network"][key], weight, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_that_pass_through_half_precision_give_about_the_same_factor(
    batch: Batch, dtype: torch.dtype
) -> None:
    single = {name: value.float() for name, value in batch.items()}
    half = {"amp": True, "amp_kwargs": {"dtype": dtype}}
    trainers = [trainer_with(balanced(), dtype=torch.float32, **options) for options in ({}, half)]
    factors = [factor_of(train(trainer, single)).get_buffer("factor").item() for trainer in trainers]
    assert factors[1] == pytest.approx(factors[0], rel=0.02)


@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
def test_no_value_is_read_back_from_the_device_in_a_step(
    make: Callable[[list[nn.Module]], GammaFactor], batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_with(make, dtype=torch.float32)
    single = {name: value.float() for name, value in batch.items()}
    train(trainer, single)

    def forbidden(*_: Any) -> None:
        raise AssertionError("a step waits for the device")

    for event in (Events.ITERATION_STARTED, Events.ITERATION_COMPLETED):
        monkeypatch.setattr(trainer.state, "iteration", 1)
        with monkeypatch.context() as patch:
            for method in ("item", "tolist", "__bool__", "__float__", "__int__", "numpy"):
                patch.setattr(Tensor, method, forbidden)
            trainer.fire_event(event)
            if event is Events.ITERATION_STARTED:
                trainer._iteration(trainer, single)


def controlled(**options: Any) -> tuple[ControlledGamma, Callable[[float, float], float]]:
    """A controlled factor and what it becomes after a validation with these errors, lesion and breast."""
    evaluator = Engine(lambda _, __: None)
    gamma = ControlledGamma(evaluator, **options)
    gamma.attach(Engine(lambda _, __: None))

    def validate(lesion: float, breast: float) -> float:
        evaluator.state.metrics = {"lesion_mae": lesion, "breast_mae": breast}
        evaluator.fire_event(Events.COMPLETED)
        return float(gamma(terms_of(1.0, 1.0), 1)["gamma_factor"])

    return gamma, validate


def test_the_controller_raises_gamma_while_lesions_lag_and_lowers_it_when_they_are_ahead() -> None:
    _, validate = controlled(gain=0.5)
    assert validate(0.2, 0.1) == 1
    assert validate(0.2, 0.05) == pytest.approx(2**0.5)
    assert validate(0.2, 0.05) == pytest.approx(2)
    assert validate(0.1, 0.05) == pytest.approx(2)
    assert validate(0.05, 0.05) == pytest.approx(2**0.5)
    assert validate(0.05, 0.05) == pytest.approx(1)


def test_the_controller_keeps_within_its_bounds() -> None:
    _, validate = controlled(gain=2.0, largest=5.0)
    validate(0.2, 0.1)
    assert validate(0.2, 0.001) == 5
    assert validate(0.001, 0.1) == pytest.approx(0.2)


def test_a_validation_without_lesions_leaves_the_factor_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    gamma, validate = controlled()
    assert validate(math.nan, 0.1) == 1
    assert validate(0.0, 0.1) == 1
    assert caplog.text.count("which needs lesions, has no lesion_mae or no breast_mae above 0") == 1
    assert gamma.start.isnan().all()
    validate(0.2, 0.1)
    raised = validate(0.2, 0.05)
    assert validate(math.nan, 0.01) == raised > 1


def test_nothing_to_adapt_is_refused() -> None:
    for options in ({"gamma": 0.0}, {"gamma": 35.0, "lambda_cycle": 0.0, "lambda_identity": 0.0}):
        with pytest.raises(ValueError, match="nothing to adapt"):
            GeneratorObjective(**options, gamma_factor=UncertaintyGamma())  # type: ignore[arg-type]
    GeneratorObjective(gamma=0.0, gamma_cycle=1.0, gamma_factor=UncertaintyGamma())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: UncertaintyGamma(largest=0.5), "largest is 0.5"),
        (lambda: BalancedGamma([], ratio=0.0), r"ratio 0\.0"),
        (lambda: BalancedGamma([], every=0), "every 0"),
        (lambda: BalancedGamma([], momentum=1.0), r"momentum 1\.0"),
        (lambda: ControlledGamma(Engine(lambda _, __: None), gain=0.0), r"gain is 0\.0"),
    ],
)
def test_impossible_numbers_are_refused(make: Callable[[], GammaFactor], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_overlay_trains_is_logged_and_resumes_exactly(tiny_dataset: Path, tmp_path: Path, overlay: str) -> None:
    options: dict[str, Any] = {"warmup_epochs": 0, "resume": True}
    options |= {"gamma_factor#every": 1} if overlay == "gamma_balanced" else {}
    for name, epochs in (("whole", 3), ("parts", 2), ("parts", 3)):
        made = train_options(tiny_dataset, tmp_path / name, max_epochs=epochs, **options)
        workflow("train.json", f"{overlay}.yaml", **made).run()
    assert equal_networks(tmp_path / "whole", tmp_path / "parts")
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")]
    kept = [state["objective"] for state in states]
    assert kept[0]
    for name, value in kept[0].items():
        assert torch.equal(value, kept[1][name]), name
    history, other = (pd.read_csv(tmp_path / name / "history.csv") for name in ("whole", "parts"))
    pd.testing.assert_frame_equal(history, other, check_like=True)
    assert history["gamma_factor"].ne(1).any()
    terms = [name for name in map(str, history) if name.startswith(("G_", "cycle", "idt", "lesion"))]
    assert history[terms].sum(axis=1).tolist() == pytest.approx(history["loss"].tolist(), rel=1e-4)
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["status"] == "completed"


def test_a_checkpoint_from_before_resumes_with_the_papers_method_and_no_other(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    workflow("train.json", **train_options(tiny_dataset, tmp_path, max_epochs=1)).run()
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    assert state.pop("objective") == {}
    torch.save(state, path)
    options = train_options(tiny_dataset, tmp_path, max_epochs=2, resume=True)
    with pytest.raises(RuntimeError) as failure:
        workflow("train.json", "gamma_controlled.yaml", **options).run()
    assert "resume with the config that started the run" in str(failure.value.__cause__)
    workflow("train.json", **options).run()
    assert torch.load(path, weights_only=True)["epoch"] == 2
