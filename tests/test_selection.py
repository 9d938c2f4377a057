"""The best generator is kept, and training stops when nothing improves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events

from bundle.selection import BestModel
from bundle.trainer import CycleGANTrainer

MakeTrainer = Callable[..., CycleGANTrainer]
NAN = float("nan")


class Validation:
    """Plays back validation errors, one an epoch, and marks the generator with the epoch."""

    def __init__(self, trainer: CycleGANTrainer, folder: Path, errors: list[float], **options: int) -> None:
        self.trainer, self.folder, self.errors = trainer, folder, errors
        self.evaluator = SimpleNamespace(state=SimpleNamespace(epoch_length=1, metrics={}))
        options = {"warmup_epochs": 0, "patience": 0} | options
        self.copy = folder / "models" / "model.pt"
        self.best = BestModel(self.evaluator, trainer.network, folder, self.copy, **options)  # type: ignore[arg-type]
        trainer.terminate = self._stop  # type: ignore[method-assign]
        self.stopped = False
        self.epochs = 0

    def _stop(self, skip_completed: bool = False) -> None:
        self.stopped = True

    def run(self) -> BestModel:
        bias = next(iter(self.trainer.network.parameters()))
        for epoch, error in enumerate(self.errors, start=1):
            if self.stopped:
                break
            bias.data.fill_(epoch)
            self.evaluator.state.metrics["mae"] = error
            self.trainer.state.epoch = self.epochs = epoch
            self.best._compare(self.trainer)
        return self.best

    @property
    def written(self) -> int:
        weights = torch.load(self.folder / "model.pt", weights_only=True)
        return int(next(iter(weights.values())).flatten()[0])


def test_the_weights_of_the_lowest_error_are_written(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    validation = Validation(make_trainer(), tmp_path, [0.5, 0.3, 0.4])
    best = validation.run()
    assert (best.best, best.best_epoch, validation.written) == (0.3, 2, 2)


def test_a_better_epoch_of_the_warmup_is_replaced_by_the_first_after_it(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    validation = Validation(make_trainer(), tmp_path, [0.1, 0.2, 0.5, 0.4, 0.6], warmup_epochs=2)
    assert validation.run().best_epoch == validation.written == 4


def test_a_training_shorter_than_the_warmup_still_leaves_its_best_weights(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    validation = Validation(make_trainer(), tmp_path, [0.3, 0.2, 0.4], warmup_epochs=50)
    validation.run()
    assert validation.written == 2


def test_training_stops_after_patience_validations_without_a_new_best(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    validation = Validation(make_trainer(), tmp_path, [0.9, 0.8, 0.5, 0.6, 0.6, 0.6, 0.1], patience=3, warmup_epochs=2)
    validation.run()
    assert (validation.stopped, validation.epochs) == (True, 6)


def test_epochs_of_the_warmup_do_not_count_towards_patience(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    validation = Validation(make_trainer(), tmp_path, [0.1] + 6 * [0.5], patience=3, warmup_epochs=5)
    validation.run()
    assert not validation.stopped


def test_without_a_validation_set_the_newest_weights_are_written(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    validation = Validation(make_trainer(), tmp_path, [0.1, 0.2, 0.3])
    validation.evaluator.state.epoch_length = 0
    validation.run()
    assert validation.written == 3


def test_a_training_that_would_end_before_its_first_validation_is_refused(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer()
    trainer.state.max_epochs = 4
    best = Validation(trainer, tmp_path, [], interval=5).best
    with pytest.raises(ValueError, match=r"max_epochs is 4 and val_interval 5: .* Set val_interval to 4 or less"):
        best.attach(trainer)


def test_a_round_of_a_federation_may_end_before_the_first_validation(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer()
    trainer.state.max_epochs = 5
    Validation(trainer, tmp_path, [], interval=5).best.attach(trainer)
    started = []
    trainer.add_event_handler(Events.STARTED, lambda: started.append(trainer.state.max_epochs))
    trainer.state.max_epochs = 1
    trainer.fire_event(Events.STARTED)
    assert started == [1]


def test_a_restored_selection_does_not_overwrite_a_better_model(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first = Validation(make_trainer(), tmp_path, [0.5, 0.2])
    state = first.run().state_dict()
    second = Validation(make_trainer(), tmp_path, [0.3])
    second.best.load_state_dict(state)
    second.run()
    assert (second.written, second.best.best, second.best.waited) == (2, 0.2, 1)


def test_the_file_is_the_raw_state_dict_and_the_other_holds_four_networks(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer()
    Validation(trainer, tmp_path, [0.5]).run()
    assert torch.load(tmp_path / "model.pt", weights_only=True).keys() == trainer.network.state_dict().keys()
    assert torch.load(tmp_path / "best_networks.pt", weights_only=True).keys() == trainer.networks.keys()
    assert (tmp_path / "models" / "model.pt").read_bytes() == (tmp_path / "model.pt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best_networks.pt", "model.pt", "models"]


@pytest.mark.parametrize(("errors", "warmup"), [([0.5, NAN, 0.4], 0), ([NAN, 0.4], 0), ([0.1, NAN, 0.4], 1)])
def test_a_nan_error_never_counts_as_best(
    make_trainer: MakeTrainer, tmp_path: Path, errors: list[float], warmup: int
) -> None:
    validation = Validation(make_trainer(), tmp_path, errors, warmup_epochs=warmup)
    assert validation.run().best == pytest.approx(0.4)
    assert validation.written == len(errors)


def test_a_training_that_stopped_early_stays_stopped_when_it_is_resumed(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    first = Validation(make_trainer(), tmp_path, [0.2, 0.5, 0.5], patience=2)
    state = first.run().state_dict()
    second = make_trainer()
    second.data_loader, second.state.epoch_length, second.state.max_epochs = [None], 1, 9
    best = Validation(second, tmp_path, [], patience=2).best
    best.load_state_dict(state)
    del second.terminate  # the engine's own again
    best.attach(second)
    second.run()
    assert second.state.iteration == 0
