from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch import Tensor

from bundle.handlers import Curves, FailureMonitor, Progress, RunRecord
from bundle.handlers.monitors import NonFiniteLossError
from bundle.handlers.run_record import data_hash
from bundle.handlers.running_losses import RunningLosses

LENGTH = 4


class Best:
    metric = "mae"
    best = 0.04
    best_epoch = 2


def trainer(losses: Callable[[Engine], dict[str, float]]) -> Engine:
    def step(engine: Engine, _: Any) -> dict[str, Tensor]:
        images = {"pred": torch.zeros(2, 1, 4, 4)}
        return images | {name: torch.tensor(value) for name, value in losses(engine).items()}

    return Engine(step)


def run(engine: Engine, epochs: int, first_epoch: int = 0) -> None:
    engine.state.epoch_length = LENGTH
    engine.state.max_epochs = epochs
    engine.state.epoch, engine.state.iteration = first_epoch, first_epoch * LENGTH
    engine.run(range(LENGTH), max_epochs=epochs, epoch_length=LENGTH)


def counting(engine: Engine) -> dict[str, float]:
    return {"loss": float(engine.state.iteration), "D_B": 0.25}


def validator(metrics: Callable[[int], dict[str, float]], training: Engine) -> Engine:
    """An evaluator that runs at the end of every epoch of ``training``."""
    evaluator = Engine(lambda _, __: None)

    def validate(engine: Engine) -> None:
        evaluator.state.epoch, evaluator.state.max_epochs = engine.state.epoch - 1, engine.state.epoch
        evaluator.run([0], max_epochs=engine.state.epoch)

    def keep(engine: Engine) -> None:
        engine.state.metrics = metrics(engine.state.epoch)

    evaluator.add_event_handler(Events.EPOCH_COMPLETED, keep)
    training.add_event_handler(Events.EPOCH_COMPLETED, validate)
    return evaluator


def test_running_losses_are_means_and_ignore_what_is_no_scalar() -> None:
    losses = RunningLosses()
    for value in (1.0, 2.0, 6.0):
        losses.update({"loss": torch.tensor(value), "pred": torch.zeros(2, 3), "name": "x"})
    assert losses.means() == {"loss": 3.0}
    losses.reset()
    assert losses.means() == {}


def test_adding_losses_never_reads_the_device() -> None:
    losses = RunningLosses()
    output = {"loss": torch.empty((), device="meta"), "D_A": torch.empty((), device="meta")}
    for _ in range(3):
        losses.update(output)  # a meta tensor has no value: reading one raises
    with pytest.raises(NotImplementedError):
        losses.means()


def test_history_has_epoch_means_and_validation_metrics(tmp_path: Path) -> None:
    engine = trainer(counting)
    evaluator = validator(lambda epoch: {"psnr": 20.0 + epoch, "lesion_mae": math.nan}, engine)
    Curves(tmp_path, evaluator, Best()).attach(engine)
    run(engine, 3)
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history.columns) == ["epoch", "loss", "D_B", "val_psnr", "val_lesion_mae"]
    assert history["loss"].tolist() == [2.5, 6.5, 10.5]
    assert history["val_psnr"].tolist() == [21.0, 22.0, 23.0]
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000


def test_a_metric_named_val_already_is_recorded_once_under_its_name(tmp_path: Path) -> None:
    engine = trainer(counting)
    evaluator = validator(lambda _: {"mae": 0.25, "val_mae": 0.26, "val_other": 0.5}, engine)
    Curves(tmp_path, evaluator, draw_every=None).attach(engine)
    run(engine, 1)
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history.columns) == ["epoch", "loss", "D_B", "val_mae", "val_other"]
    assert history[["val_mae", "val_other"]].values.tolist() == [[0.25, 0.5]]


def test_history_does_not_depend_on_the_order_of_handlers(tmp_path: Path) -> None:
    texts = []
    for first in (True, False):
        engine = trainer(counting)
        evaluator = validator(lambda epoch: {"psnr": 20.0 + epoch}, engine)
        Curves(tmp_path / str(first), evaluator, draw_every=None).attach(engine)
        if first:
            engine._event_handlers[Events.EPOCH_COMPLETED].reverse()
        run(engine, 2)
        texts.append((tmp_path / str(first) / "history.csv").read_text())
    assert texts[0] == texts[1]


def test_a_resumed_history_is_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    for folder, parts in (("whole", [(0, 4)]), ("parts", [(0, 3), (2, 4)])):  # the third epoch was after the checkpoint
        for first, last in parts:
            engine = trainer(counting)
            Curves(tmp_path / folder, draw_every=None).attach(engine)
            run(engine, last, first)
    assert (tmp_path / "whole" / "history.csv").read_text() == (tmp_path / "parts" / "history.csv").read_text()


def test_a_new_run_starts_a_new_history(tmp_path: Path) -> None:
    for epochs in (3, 1):
        engine = trainer(counting)
        Curves(tmp_path, draw_every=None).attach(engine)
        run(engine, epochs)
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_within_the_epoch(value: float) -> None:
    engine = trainer(lambda e: {"loss": 1.0, "cycle_B": value if e.state.iteration == 2 else 1.0})
    FailureMonitor(check_every=100).attach(engine)
    saved: list[int] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: saved.append(e.state.epoch))
    with pytest.raises(
        NonFiniteLossError, match=r"Loss cycle_B is NaN or infinite .*iteration 4 .*Start anew \(--resume False\)"
    ):
        run(engine, 3)
    assert saved == []


def test_losses_are_looked_at_only_every_n_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    engine = trainer(lambda _: {"loss": 1.0})
    means = RunningLosses.means

    def counted(losses: RunningLosses) -> dict[str, float]:
        looks.append(engine.state.iteration)
        return means(losses)

    monkeypatch.setattr(RunningLosses, "means", counted)
    FailureMonitor(check_every=3).attach(engine)
    run(engine, 2)
    assert looks == [3, 4, 4, 6, 8, 8]  # every third, the last of an epoch, and the epoch's own mean


HEALTHY = {"diversity": 0.9, "contrast_recovery": 0.8, "lesion_contrast_real": 0.1, "false_enhancement": 0.02}


def monitored(
    metrics: Callable[[int], dict[str, float]], epochs: int = 3, discriminator: float = 0.2
) -> tuple[dict[str, float], FailureMonitor]:
    engine = trainer(lambda _: {"D_A": 0.25, "D_B": discriminator})
    monitor = FailureMonitor(validator(metrics, engine), start_epoch=1)
    monitor.attach(engine)
    run(engine, epochs)
    return engine.state.metrics, monitor


def test_a_healthy_training_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    metrics, _ = monitored(lambda _: HEALTHY)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    signs = ("discriminator_collapse", "output_collapse", "lesion_disappearance", "background_artefacts")
    assert [metrics[name] for name in signs] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("sign", "metrics", "discriminator"),
    [
        ("discriminator_collapse", {}, 0.001),
        ("output_collapse", {"diversity": 0.05}, 0.2),
        ("lesion_disappearance", {"contrast_recovery": 0.1}, 0.2),
        ("background_artefacts", {"false_enhancement": 0.2}, 0.2),
    ],
)
def test_each_failure_is_warned_of_once_with_figure_and_advice(
    sign: str, metrics: dict[str, float], discriminator: float, caplog: pytest.LogCaptureFixture
) -> None:
    flags, monitor = monitored(lambda _: HEALTHY | metrics, discriminator=discriminator)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert sign.replace("_", " ") in warnings[0]
    assert monitor.active == {sign}
    assert flags[sign] == 1.0


def test_a_failure_that_goes_away_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _, monitor = monitored(lambda epoch: HEALTHY | ({"diversity": 0.0} if epoch == 1 else {}))
    assert "output collapse is over" in caplog.text
    assert not monitor.active


def test_lesions_that_do_not_enhance_cannot_disappear() -> None:
    _, monitor = monitored(lambda _: HEALTHY | {"contrast_recovery": 0.0, "lesion_contrast_real": 0.001})
    assert not monitor.active


def test_a_validation_without_lesions_shows_no_sign() -> None:
    _, monitor = monitored(lambda _: dict.fromkeys(HEALTHY, math.nan))
    assert not monitor.active


def test_the_bar_counts_the_whole_run_and_shows_losses(capsys: pytest.CaptureFixture[str]) -> None:
    engine = trainer(counting)
    Progress(names=("loss", "D_B", "absent"), every=2).attach(engine)
    run(engine, 3, first_epoch=1)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "epoch 3/3" in shown
    assert "12/12" in shown
    assert "loss=11.500, D_B=0.250" in shown


def test_the_record_says_what_ran_and_how_far(tmp_path: Path) -> None:
    engine = trainer(counting)
    config = {"lr": 1e-5, "folder": Path.home() / "data"}
    record = RunRecord(tmp_path, config, seed=7, best=Best(), settings={"fold": 1, "image_size": (64, 64)})
    record.attach(engine)
    seen: list[str] = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED(once=1),
        lambda _: seen.append(json.loads((tmp_path / "run.json").read_text())["status"]),
    )
    run(engine, 2)
    content = json.loads((tmp_path / "run.json").read_text())
    assert seen == ["running"]
    assert (content["status"], content["epoch"], content["seed"]) == ("completed", 2, 7)
    assert content["best"] == {"metric": "mae", "value": 0.04, "epoch": 2}
    assert content["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert content["config"] == {"lr": 1e-5, "folder": "~/data"}
    assert content["settings"] == {"fold": 1, "image_size": [64, 64]}
    assert content["error"] is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED(once=6), Events.EPOCH_COMPLETED(once=1)])
def test_the_record_of_a_run_that_raises_says_so_and_the_error_goes_on(
    tmp_path: Path, error: type[BaseException], event: Any
) -> None:
    def fail(_: Engine) -> None:
        raise error("details")

    engine = trainer(counting)
    RunRecord(tmp_path).attach(engine)
    engine.add_event_handler(event, fail)
    with pytest.raises(error, match="details"):
        run(engine, 3)
    content = json.loads((tmp_path / "run.json").read_text())
    assert (content["status"], content["error"]) == ("failed", error.__name__)


def test_a_failure_before_the_start_leaves_the_record_of_an_earlier_run(tmp_path: Path) -> None:
    def fail(_: Engine) -> None:
        raise ValueError("too early")

    (tmp_path / "run.json").write_text("earlier")
    engine = trainer(counting)
    engine.add_event_handler(Events.STARTED, fail)
    RunRecord(tmp_path).attach(engine)
    with pytest.raises(ValueError, match="too early"):
        run(engine, 1)
    assert (tmp_path / "run.json").read_text() == "earlier"


def test_the_record_of_a_stopped_and_resumed_run_keeps_its_first_start_and_adds_up_its_time(tmp_path: Path) -> None:
    engine = trainer(counting)
    RunRecord(tmp_path).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda e: e.terminate())
    run(engine, 5)
    path = tmp_path / "run.json"
    content = json.loads(path.read_text())
    assert (content["status"], content["epoch"], content["best"]) == ("stopped early", 2, None)
    path.write_text(json.dumps(content | {"started": "2020-01-01T00:00:00+00:00", "seconds": 5000.0}))
    resumed = trainer(counting)
    RunRecord(tmp_path).attach(resumed)
    run(resumed, 3, first_epoch=2)
    content = json.loads(path.read_text())
    assert (content["started"][:4], content["resumed_after_epoch"], content["status"]) == ("2020", 2, "completed")
    assert 5000 <= content["seconds"] < 6000


def test_the_data_hash_follows_the_content_and_not_the_folder(tmp_path: Path) -> None:
    cases = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "x.png").write_bytes(b"image")
        (folder / "y.png").write_bytes(b"label")
        cases.append([{"image": folder / "x.png", "label": folder / "y.png", "mask": None}])
    first = data_hash(cases[0])
    assert first == data_hash(cases[1])
    assert (first["cases"], first["files"]) == (1, 2)
    assert first == data_hash([*cases[0], *cases[0]]), "a case of two sections counts once"
    (tmp_path / "b" / "y.png").write_bytes(b"lAbel")
    assert data_hash(cases[1])["sha256"] != first["sha256"]
