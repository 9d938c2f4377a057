"""A training state survives the file, and nothing is ever half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bundle import ranks
from bundle.checkpoint import TrainingCheckpoint, load_networks, save_atomically
from bundle.trainer import CycleGANTrainer

MakeTrainer = Callable[..., CycleGANTrainer]
Batch = dict[str, torch.Tensor]


def step(trainer: CycleGANTrainer, batch: Batch, times: int) -> torch.Tensor:
    for _ in range(times):
        output = trainer._iteration(trainer, {name: value.float() for name, value in batch.items()})[0]
    loss: torch.Tensor = output["loss"]
    return loss


def same(a: CycleGANTrainer, b: CycleGANTrainer) -> bool:
    pairs = zip(a.networks.values(), b.networks.values(), strict=True)
    return all(torch.equal(p, q) for x, y in pairs for p, q in zip(x.parameters(), y.parameters(), strict=True))


@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
def test_a_restored_trainer_goes_on_bit_for_bit(
    make_trainer: MakeTrainer, batch: Batch, tmp_path: Path, amp: torch.dtype | None
) -> None:
    options = {"pool_size": 4} | ({"amp": True, "amp_kwargs": {"dtype": amp}} if amp else {})
    original, restored = make_trainer(torch.float32, **options), make_trainer(torch.float32, **options)
    step(original, batch, 3)
    TrainingCheckpoint(tmp_path / "checkpoint.pt").save(original)
    random = torch.rand(3)
    step(original, batch, 2)
    TrainingCheckpoint(tmp_path / "checkpoint.pt", resume=True).restore(restored)
    assert torch.equal(torch.rand(3), random)
    step(restored, batch, 2)
    assert same(original, restored)


def test_resume_without_a_checkpoint_starts_from_the_beginning(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer()
    TrainingCheckpoint(tmp_path / "checkpoint.pt", resume=True).restore(trainer)
    assert trainer.state.epoch == 0
    assert "starts from the beginning" in caplog.text


def test_a_new_training_keeps_the_last_checkpoint_under_another_name(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    TrainingCheckpoint(path).save(make_trainer())
    content = path.read_bytes()
    TrainingCheckpoint(path).restore(make_trainer())
    assert not path.exists()
    assert (tmp_path / "checkpoint.pt.previous").read_bytes() == content


@pytest.mark.parametrize("content", [{"networks": {}}, {"epoch": 3}])
def test_a_foreign_checkpoint_is_refused_by_name(
    make_trainer: MakeTrainer, tmp_path: Path, content: dict[str, object]
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_atomically(content, path)
    with pytest.raises(ValueError, match=r"checkpoint.pt does not fit this training .* --resume False"):
        TrainingCheckpoint(path, resume=True).restore(make_trainer())


def test_a_truncated_checkpoint_is_refused_by_name(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    TrainingCheckpoint(path).save(make_trainer())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="does not fit this training"):
        TrainingCheckpoint(path, resume=True).restore(make_trainer())


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_atomically({"old": torch.ones(2)}, path)

    def stopped(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"new": torch.ones(2)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["old"], torch.ones(2))


def test_a_second_stage_starts_from_the_four_networks_of_the_first(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first, second = make_trainer(), make_trainer()
    for network in first.networks.values():
        for parameter in network.parameters():
            parameter.data.add_(0.1)
    path = tmp_path / "best_networks.pt"
    save_atomically({name: network.state_dict() for name, network in first.networks.items()}, path)
    assert not same(first, second)
    load_networks(second, path)
    assert same(first, second)


def test_a_training_starts_from_a_generator_alone_and_says_so(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, untouched = make_trainer(), make_trainer(), make_trainer()
    for parameter in first.network.parameters():
        parameter.data.add_(0.1)
    save_atomically(first.network.state_dict(), tmp_path / "model.pt")
    load_networks(second, tmp_path / "model.pt")
    for name, network in second.networks.items():
        expected = (first if name == "network" else untouched).networks[name].state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in network.state_dict().items())
    assert "holds the generator alone" in caplog.text


def test_a_resumed_second_stage_does_not_need_the_first_any_more(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    TrainingCheckpoint(path).save(make_trainer())
    TrainingCheckpoint(path, resume=True, initial_weights=tmp_path / "gone.pt").restore(make_trainer())
    with pytest.raises(FileNotFoundError, match="run the first stage"):
        TrainingCheckpoint(tmp_path / "new.pt", initial_weights=tmp_path / "gone.pt").restore(make_trainer())


def test_processes_whose_networks_drifted_apart_are_noticed_before_anything_is_written(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer()
    monkeypatch.setattr(ranks, "gather", lambda state: [state, {**state, "fingerprint": "another"}])
    with pytest.raises(RuntimeError, match="networks differ"):
        TrainingCheckpoint(tmp_path / "checkpoint.pt").save(trainer)
    assert not list(tmp_path.iterdir())


def test_another_number_of_steps_an_epoch_resumes_at_the_start_of_the_next_epoch(
    make_trainer: MakeTrainer, batch: Batch, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    first, second = make_trainer(), make_trainer()
    for trainer, steps in ((first, 6), (second, 4)):
        trainer.data_loader, trainer.state.epoch_length, trainer.state.max_epochs = [batch] * steps, steps, 1
    TrainingCheckpoint(path).attach(first)
    first.run()
    TrainingCheckpoint(path, resume=True).restore(second)
    second.state.max_epochs = 2
    second.run()
    assert (second.state.epoch, second.state.iteration) == (2, 8)


def test_missing_or_wrong_first_stage_networks_are_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the first stage"):
        load_networks(make_trainer(), tmp_path / "best_networks.pt")
    save_atomically({"network": {}}, tmp_path / "best_networks.pt")
    with pytest.raises(ValueError, match=r"must be best_networks\.pt or model\.pt"):
        load_networks(make_trainer(), tmp_path / "best_networks.pt")
