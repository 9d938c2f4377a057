"""Overrides that nothing reads are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.overrides import unknown_ids
from tests.conftest import ROOT
from tests.workflow import command, run, train_options, workflow


def test_an_id_is_unknown_when_it_is_neither_known_nor_referred_to() -> None:
    config = {"gamma": 1, "gama": 2, "mine": 3, "other": "@mine", "_note": "x", "macro": 1, "use": "%macro#a"}
    assert unknown_ids(config, known={"gamma", "other", "use"}) == ["gama"]


def test_a_part_of_a_name_is_no_reference() -> None:
    assert unknown_ids({"gam": 1, "other": "@gamma"}, known={"other"}) == ["gam"]


def test_a_misspelt_override_ends_the_command_before_anything_is_built(tiny_dataset: Path, tmp_path: Path) -> None:
    finished = run(*command("training", "train.json", **train_options(tiny_dataset, tmp_path, gama=35)))
    assert finished.returncode == 1
    assert "unknown override --gama: did you mean --gamma?" in finished.stderr
    assert not list(tmp_path.iterdir())


def test_a_misspelt_override_is_refused_from_python_too(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = workflow("train.json", **train_options(tiny_dataset, tmp_path, batchsize=3))
    with pytest.raises(SystemExit) as stop:
        made.run()
    assert stop.value.code == 1
    assert "--batch_size" in capsys.readouterr().err


def test_every_shipped_combination_is_accepted() -> None:
    overlays = [path.name for path in (ROOT / "configs").glob("*.yaml")]
    for overlay in [*overlays, "evaluate.json"]:
        made = workflow("train.json", overlay, bundle_root=str(ROOT))
        made.parser.get_parsed_content("run::0")
