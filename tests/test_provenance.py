from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine

from bundle.handlers import RunRecord
from bundle.provenance import check_settings

SETTINGS = {
    "data": "abc",
    "fold": 1,
    "seed": 0,
    "image_size": (256, 256),
    "image_scaling": "minmax",
    "label_scaling": "window",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    engine = Engine(lambda _, __: None)
    RunRecord(tmp_path, settings=SETTINGS).attach(engine)
    engine.run([0], max_epochs=1)
    return tmp_path


def test_the_settings_of_the_training_are_accepted_silently(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_settings(run, SETTINGS)
    check_settings(run, SETTINGS | {"seed": 5})  # an evaluation draws no random numbers
    assert not caplog.records


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 128}, r"image_size was \[256, 256\] in the training and is 128.*--image_size \[256, 256\]"),
        ({"image_scaling": "window"}, r"image_scaling was minmax .* is window.*--image_scaling minmax"),
        (
            {"label_scaling": "minmax", "data": "other"},
            r"label_scaling was window .* is minmax.*--label_scaling window",
        ),
    ],
)
def test_images_prepared_in_another_way_are_refused(run: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_settings(run, SETTINGS | changed)


def test_another_fold_of_the_same_data_is_refused(run: Path) -> None:
    with pytest.raises(
        ValueError, match=r"fold was 1 .* is 2.*training cases would be scored as test cases; use --fold 1"
    ):
        check_settings(run, SETTINGS | {"fold": 2})


@pytest.mark.parametrize("data", ["other", None])
def test_an_external_data_set_may_be_evaluated_with_any_fold(run: Path, data: str | None) -> None:
    check_settings(run, SETTINGS | {"fold": 2, "data": data})


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"settings": None})])
def test_weights_without_a_record_are_noted(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    check_settings(tmp_path, SETTINGS)
    assert "it is unknown which cases these weights were trained on" in caplog.text
