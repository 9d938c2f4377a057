"""A training step that runs out of memory has no effect and is done again with less."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bundle import ranks
from bundle.losses import PairedObjective
from bundle.memory import is_out_of_memory
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.paired_trainer import PairedTrainer
from bundle.trainer import CycleGANTrainer

MakeTrainer = Callable[..., CycleGANTrainer]
Batch = dict[str, torch.Tensor]
ON_THE_CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


def iterate(trainer: Any, batch: dict[str, Any], times: int = 1) -> dict[str, Any]:
    """As the engine does it."""
    for _ in range(times):
        output: dict[str, Any] = trainer._process_function(trainer, batch)[0]
    return output


def weights(trainer: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for network in trainer.networks.values() for p in network.parameters()]


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(weights(a), weights(b), strict=True))


def scarce(network: nn.Module, images: int, error: Exception, plain: bool = False) -> None:
    """Let a network refuse more images than this at a time, or any as long as it keeps all activations."""

    def check(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > images or (plain and not getattr(module, "checkpointing", True)):
            raise error

    network.register_forward_pre_hook(check)


def recompute(network: Any) -> None:
    network.checkpointing = True


def test_a_guarded_step_is_the_plain_step_bit_for_bit(make_trainer: MakeTrainer, batch: Batch) -> None:
    plain, guarded = make_trainer(pool_size=4), make_trainer(pool_size=4)
    for _ in range(2):
        plain._iteration(plain, batch)
    iterate(guarded, batch, 2)
    assert equal(plain, guarded)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(ON_THE_CPU)])
def test_recomputing_is_switched_on_first_and_changes_no_bit(
    make_trainer: MakeTrainer, batch: Batch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rich, poor = make_trainer(pool_size=4), make_trainer(pool_size=4)
    scarce(poor.generator_ba, 100, error, plain=True)
    with caplog.at_level(logging.WARNING):
        iterate(poor, batch, 2)
    iterate(rich, batch, 2)
    assert equal(rich, poor)
    assert caplog.text.count("--activation_checkpointing True") == 1
    assert all(g.checkpointing for g in (poor.network, poor.generator_ba) if isinstance(g, ResnetGenerator))
    assert poor.memory.micro_batch_size is None


@pytest.mark.parametrize("normalisation", ["image", "mask"])
def test_parts_of_a_batch_give_the_step_of_the_whole_batch(
    make_trainer: MakeTrainer, batch: Batch, normalisation: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"gamma": 35, "normalisation": normalisation, "pool_size": 4}
    rich, poor = make_trainer(**options), make_trainer(**options)
    scarce(poor.discriminator_b, 4, torch.OutOfMemoryError("out of memory"))  # real and generated images of two cases
    outputs = [iterate(trainer, batch, 2) for trainer in (rich, poor)]
    assert poor.memory.micro_batch_size == 2
    assert "--micro_batch_size 2" in caplog.text
    for a, b in zip(weights(rich), weights(poor), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
    for name, value in outputs[0].items():
        torch.testing.assert_close(value, outputs[1][name], rtol=1e-7, atol=1e-7)


def test_running_out_of_memory_late_in_a_step_has_no_effect(make_trainer: MakeTrainer, batch: Batch) -> None:
    """The judge of the last discriminator fails, after the generators and both pools."""
    asked, stopped = make_trainer(pool_size=2), make_trainer(pool_size=2)
    asked.memory.micro_batch_size = stopped.memory.micro_batch_size = 2
    for trainer in (asked, stopped):
        recompute(trainer.network)
    calls = []

    def fail_once(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        calls.append(len(inputs[0]))
        if len(calls) == 4:  # generators' and discriminators' turn, of both parts
            raise torch.OutOfMemoryError("out of memory")

    stopped.discriminator_b.register_forward_pre_hook(fail_once)
    iterate(asked, batch, 2)
    iterate(stopped, batch, 2)
    assert len(calls) > 4
    assert equal(asked, stopped)
    for name in "AB":
        a, b = asked.pools[name].state_dict(), stopped.pools[name].state_dict()
        assert torch.equal(a["rng"], b["rng"])
        assert all(torch.equal(x, y) for x, y in zip(a["images"], b["images"], strict=True))
    judged = [*stopped.discriminator_a.parameters(), *stopped.discriminator_b.parameters()]
    assert all(parameter.requires_grad for parameter in judged)


def test_when_not_even_one_image_fits_the_error_says_what_to_do_and_no_weight_has_changed(
    make_trainer: MakeTrainer, batch: Batch
) -> None:
    trainer = make_trainer()
    before = weights(trainer)
    scarce(trainer.discriminator_a, 0, torch.OutOfMemoryError("out of memory"))
    with pytest.raises(torch.OutOfMemoryError, match=r"Not even one image .* --image_size"):
        iterate(trainer, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))


def test_processes_that_train_together_are_not_changed_one_by_one(
    make_trainer: MakeTrainer, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    scarce(trainer.network, 0, torch.OutOfMemoryError("out of memory"))
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    with pytest.raises(torch.OutOfMemoryError, match="--resume True, with --activation_checkpointing True"):
        iterate(trainer, batch)


def test_other_errors_of_a_step_are_not_taken_for_want_of_memory(make_trainer: MakeTrainer, batch: Batch) -> None:
    trainer = make_trainer()
    scarce(trainer.network, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        iterate(trainer, batch)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


def test_memory_that_is_short_for_the_state_of_an_optimiser_does_not_spoil_the_step(
    make_trainer: MakeTrainer, batch: Batch
) -> None:
    rich, poor = make_trainer(), make_trainer()
    original, failed = poor.discriminator_optimizer.step, list[bool]()

    def step(*arguments: Any, **options: Any) -> Any:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("out of memory")
        return original(*arguments, **options)

    poor.discriminator_optimizer.step = step  # type: ignore[method-assign]
    iterate(rich, batch, 2)
    iterate(poor, batch, 2)
    assert equal(rich, poor)


def test_the_paired_trainer_takes_micro_batches_from_the_start(batch: Batch) -> None:
    trainers = []
    for size in (None, 1):
        torch.manual_seed(0)
        network = ResnetGenerator(width=4, blocks=1).double()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        trainers.append(PairedTrainer("cpu", 1, [], network, optimizer, PairedObjective(), micro_batch_size=size))
        iterate(trainers[-1], batch, 2)
    for a, b in zip(weights(trainers[0]), weights(trainers[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="micro_batch_size is 0"):
        PairedTrainer("cpu", 1, [], network, optimizer, PairedObjective(), micro_batch_size=0)


def test_lists_in_a_batch_are_shared_out_with_the_images(make_trainer: MakeTrainer, batch: Batch) -> None:
    trainer = make_trainer()
    trainer.memory.micro_batch_size = 2
    seen: list[Any] = []
    original = trainer._iteration

    def watched(engine: Any, part: dict[str, Any]) -> Any:
        seen.append((part["patient_id"], part["number"], part["nested"]["row"].tolist()))
        return original(engine, part)

    trainer._iteration = watched  # type: ignore[method-assign,assignment]
    iterate(trainer, batch | {"patient_id": ["a", "b", "c"], "number": 7, "nested": {"row": torch.arange(3)}})
    assert seen == [(["a", "b"], 7, [0, 1]), (["c"], 7, [2])]


def test_the_discriminator_has_no_switch_and_is_left_alone() -> None:
    assert not hasattr(PatchGAN(width=4, layers=1), "checkpointing")
