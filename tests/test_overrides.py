"""Overrides that nothing reads are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bundle.overrides import known_ids, running_config, unknown_ids
from tests.conftest import ROOT
from tests.workflow import CONFIGS, command, run, train_options, workflow


def test_an_id_is_unknown_when_it_is_neither_known_nor_referred_to() -> None:
    config = {"gamma": 1, "gama": 2, "mine": 3, "other": "@mine", "_note": "x", "macro": 1, "use": "%macro#a"}
    assert unknown_ids(config, known={"gamma", "other", "use"}) == ["gama"]


def test_a_part_of_a_name_is_no_reference() -> None:
    assert unknown_ids({"gam": 1, "other": "@gamma"}, known={"other"}) == ["gam"]


def test_a_misspelt_id_inside_a_section_is_unknown_but_not_one_inside_a_component() -> None:
    config = {"train": {"hanlders": [], "trainer": {"_target_": "x", "what_it_takes": 1}}}
    assert unknown_ids(config, known={"train", "train#trainer"}) == ["train#hanlders"]


def test_what_is_inside_a_mapping_that_is_read_as_a_whole_is_known() -> None:
    config = {"references": {"L1": "runs/l1"}, "use": "@references", "train": {"typo": 1}, "other": "@train#dataset"}
    assert unknown_ids(config, known={"references", "use", "train", "other"}) == ["train#typo"]


def test_an_id_of_inference_is_unknown_to_training_and_the_other_way_round() -> None:
    assert "dataset" not in known_ids(CONFIGS, {"train": {}})
    assert "gamma" not in known_ids(CONFIGS, {"evaluator": {}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gama": 35}, "unknown override --gama: did you mean --gamma?"),
        ({"amp": "false"}, "--amp is the text 'false': write False"),
        ({"dataset": "data/my"}, "unknown override --dataset: did you mean --dataset_dir?"),
        ({"validate#handler": 1}, "unknown override --validate#handler: did you mean --validate#handlers?"),
    ],
)
def test_a_misspelt_override_is_refused_before_anything_is_built(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], message: str
) -> None:
    made = workflow("train.json", **train_options(tiny_dataset, tmp_path), **options)
    with pytest.raises(SystemExit) as stop:
        made.run()
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_misspelt_override_ends_the_command_with_exit_code_1(tiny_dataset: Path, tmp_path: Path) -> None:
    finished = run(*command("training", "train.json", **train_options(tiny_dataset, tmp_path, gama=35)))
    assert finished.returncode == 1
    assert "did you mean --gamma?" in finished.stderr


@pytest.mark.parametrize("overlay", [*sorted(p.name for p in CONFIGS.glob("*.yaml")), "evaluate.json"])
def test_every_shipped_overlay_is_accepted(overlay: str) -> None:
    workflow("train.json", overlay, bundle_root=str(ROOT)).parser.get_parsed_content("run::1")


def test_several_gpus_tracking_and_inference_are_accepted() -> None:
    for names in (["train.json", "multi_gpu_train.json"], ["inference.json"]):
        made = workflow(*names, bundle_root=str(ROOT), init_id="nothing")
        made.parser.get_parsed_content("run::1")


def test_a_folder_without_configs_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="set --bundle_root"):
        known_ids(tmp_path, {"train": {}})


def test_there_is_no_running_config_outside_an_evaluation() -> None:
    with pytest.raises(RuntimeError, match="inside the evaluation"):
        running_config()


def test_a_config_that_is_neither_training_nor_inference_is_named_so() -> None:
    with pytest.raises(ValueError, match="neither a training nor an inference: no train and no evaluator"):
        known_ids(ROOT / "configs", {"network": {}})
