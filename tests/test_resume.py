"""A training that is killed and resumed ends as one that was never interrupted."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.workflow import equal_networks, run, train_options, workflow

# Everything that carries state from one epoch to the next is on.
STATEFUL: dict[str, Any] = {"pool_size": 5, "decay": 0.5, "max_epochs": 4, "augmentation_prob": 0.9}

KILLED = """
import json, os, signal, sys
import bundle.checkpoint
from ignite.engine import Events
from tests.workflow import workflow

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

where, options = sys.argv[1], json.loads(sys.argv[2])
made = workflow("train.json", **options)
trainer = made.parser.get_parsed_content("train#trainer")
if where == "within an epoch":
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), die)
elif where == "between best model and checkpoint":
    best = made.parser.get_parsed_content("best_model")
    accept = best._accept
    best._accept = lambda engine, value: (accept(engine, value), engine.state.epoch == 3 and die())
else:
    save = bundle.checkpoint.torch.save
    def half(content, path, *rest):
        if trainer.state.epoch == 3:
            with open(path, "wb") as stream:
                stream.write(b"half a file")
            die()
        save(content, path, *rest)
    bundle.checkpoint.torch.save = half
made.run()
"""


def epoch_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["epoch"])


@pytest.fixture(scope="module")
def uninterrupted(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted")
    workflow("train.json", **train_options(tiny_dataset, output, **STATEFUL)).run()
    return output


@pytest.mark.parametrize("where", ["within an epoch", "between best model and checkpoint", "while a file is written"])
def test_resume_after_kill_ends_bit_for_bit_like_an_uninterrupted_training(
    tiny_dataset: Path, tmp_path: Path, uninterrupted: Path, where: str
) -> None:
    options = train_options(tiny_dataset, tmp_path, **STATEFUL)
    killed = run("-c", KILLED, where, json.dumps(options))
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert epoch_of(tmp_path / "checkpoint.pt") == 2
    workflow("train.json", **options, resume=True).run()
    assert epoch_of(tmp_path / "checkpoint.pt") == 4
    assert equal_networks(uninterrupted, tmp_path)
    models = [torch.load(folder / "model.pt", weights_only=True) for folder in (uninterrupted, tmp_path)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    first, second = (pd.read_csv(folder / "history.csv") for folder in (uninterrupted, tmp_path))
    pd.testing.assert_frame_equal(first, second, check_like=True)


@pytest.mark.parametrize("changed", [{"fold": 1}, {"seed": 5}, {"learning_rate": 0.5}, {"image_size": 48}])
def test_resuming_with_other_data_or_settings_is_refused_by_name(
    uninterrupted: Path, tiny_dataset: Path, changed: dict[str, Any]
) -> None:
    options = train_options(tiny_dataset, uninterrupted, **STATEFUL) | changed
    with pytest.raises(RuntimeError) as failure:
        workflow("train.json", **options, resume=True).run()
    (name, value), reason = next(iter(changed.items())), str(failure.value.__cause__)
    assert f"{name} was" in reason
    assert f"is {value}; resume with the config that started the run" in reason.replace(")", "")


def test_resuming_a_complete_training_changes_nothing(tiny_dataset: Path, tmp_path: Path) -> None:
    options = train_options(tiny_dataset, tmp_path, max_epochs=1)
    workflow("train.json", **options).run()
    before = (tmp_path / "model.pt").read_bytes()
    workflow("train.json", **options, resume=True).run()
    assert epoch_of(tmp_path / "checkpoint.pt") == 1
    assert (tmp_path / "model.pt").read_bytes() == before


def test_more_epochs_can_be_added_to_a_complete_training(tiny_dataset: Path, tmp_path: Path) -> None:
    long, extended = tmp_path / "long", tmp_path / "extended"
    workflow("train.json", **train_options(tiny_dataset, long, max_epochs=2)).run()
    workflow("train.json", **train_options(tiny_dataset, extended, max_epochs=1)).run()
    workflow("train.json", **train_options(tiny_dataset, extended, max_epochs=2, resume=True)).run()
    assert equal_networks(long, extended)
