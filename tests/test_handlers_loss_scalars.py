"""TensorBoard gets the losses and their shares."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from bundle.handlers import LossScalars


class Recorder:
    def __init__(self) -> None:
        self.scalars: dict[str, list[tuple[int, float]]] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.setdefault(name, []).append((step, value))


def run(recorder: Any, iterations: int) -> None:
    def step(engine: Engine, _: Any) -> list[dict[str, torch.Tensor]]:
        cycle, lesion = float(engine.state.iteration), 1.0
        values = {"loss": cycle + lesion, "cycle_A": cycle, "lesion_cycle_A": lesion, "D_A": 0.25}
        values |= {"lesion_D_B": 0.1, "gamma_factor": 3.0}
        return [{name: torch.tensor(value) for name, value in values.items()}]

    engine = Engine(step)
    engine.optimizer = SimpleNamespace(param_groups=[{"lr": 0.01}])  # type: ignore[attr-defined]
    LossScalars(recorder, every=2).attach(engine)
    engine.run(range(iterations), max_epochs=1)


def test_losses_are_means_since_the_last_report() -> None:
    recorder = Recorder()
    run(recorder, 5)
    assert recorder.scalars["loss/cycle_A"] == [(2, 1.5), (4, 3.5)]
    assert recorder.scalars["learning_rate"] == [(2, 0.01), (4, 0.01)]


def test_the_shares_of_all_terms_add_up_to_1_and_leave_discriminators_and_the_factor_of_gamma_out() -> None:
    recorder = Recorder()
    run(recorder, 2)
    shares = {name: values[0][1] for name, values in recorder.scalars.items() if name.startswith("share/")}
    assert shares == pytest.approx({"share/cycle_A": 0.6, "share/lesion_cycle_A": 0.4})
    assert recorder.scalars["loss/gamma_factor"] == [(2, 3.0)]


def test_ranks_without_a_writer_record_nothing() -> None:
    engine = Engine(lambda _, __: [{}])
    LossScalars(None).attach(engine)
    assert engine.run(range(3), max_epochs=1).iteration == 3
