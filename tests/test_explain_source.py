"""Which network and cases are explained: those of the record, taken as values and never run as code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from bundle.data import datalist_digest
from bundle.networks import ResnetGenerator
from scripts.explaining.recorded import component_names, recorded_values
from scripts.explaining.source import CONFIGS, Place, held_out, runs_of
from scripts.explaining.study import Options, chosen_lesions
from tests.report_study import write_json

KNOWN = component_names([*CONFIGS.glob("*.json"), *CONFIGS.glob("*.yaml")])
NETWORK = {"_target_": "bundle.networks.ResnetGenerator", "width": 4, "blocks": 1, "checkpointing": "@saving"}


def record(folder: Path, dataset: Path, **config: Any) -> Path:
    """A run with weights and a record of these values."""
    values = {"network_def": NETWORK, "image_size": 32, "fold": 0, "dataset_dir": str(dataset), "saving": True} | config
    write_json(folder / "run.json", {"config": values, "settings": {"image_size": values["image_size"], "fold": 0}})
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), folder / "model.pt")
    return folder


def test_network_and_images_are_those_of_the_record(tiny_dataset: Path, tmp_path: Path) -> None:
    augmentation = {"_target_": "bundle.transforms.RandSharedAffined", "rotate": 3, "flip": False, "zoom": "@zoom"}
    train = {"random_transforms": [{"_target_": "EnsureTyped"}, augmentation]}
    run = held_out(record(tmp_path / "run", tiny_dataset, train=train, fold=2), [], Place())
    network = run.network()
    assert isinstance(network, ResnetGenerator)
    assert network.checkpointing
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    assert len(run.entries) == 6
    assert {entry["fold"] for entry in run.entries} == {2}
    assert run.load(run.entries[0]).image.shape == (1, 1, 32, 32)
    assert run.augmentation == {"rotate": 3, "flip": False}
    assert run.members == ()


@pytest.mark.parametrize(
    "network",
    [
        {"_target_": "os.system", "command": "touch {}"},
        {"_target_": "bundle.networks.ResnetGenerator", "width": "$__import__('os').system('touch {}')"},
        {"_target_": "bundle.networks.ResnetGenerator", "width": {"_target_": "os.system", "command": "touch {}"}},
        {"_target_": "bundle.networks.ResnetGenerator", "width": "@hidden"},
        {"_target_": "bundle.networks.ResnetGenerator", "width": "%hidden"},
        {"_target_": ["os.system"]},
        {"width": "$1"},
        "$__import__('os').system('touch {}')",
        None,
    ],
)
def test_a_record_is_never_run_as_code(tiny_dataset: Path, tmp_path: Path, network: Any) -> None:
    touched = tmp_path / "touched"
    hostile = json.loads(json.dumps(network).replace("{}", str(touched)))
    code = f"$__import__('os').system('touch {touched}')"
    run = record(tmp_path / "run", tiny_dataset, network_def=hostile, hidden=code)
    with pytest.raises(ValueError, match=r"run\.json: "):
        held_out(run, [], Place())
    assert not touched.exists()


def test_other_expressions_of_a_record_are_left_alone(tiny_dataset: Path, tmp_path: Path) -> None:
    found = recorded_values(
        record(tmp_path / "run", tiny_dataset, seed="$1", image_scaling="@x", fold=1, train="$2", device="$3"), KNOWN
    )
    assert set(found) == {"network_def", "image_size", "fold", "dataset_dir", "augmentation"}
    assert found["augmentation"] == {}


def test_instructions_of_the_parser_inside_a_network_are_dropped(tiny_dataset: Path, tmp_path: Path) -> None:
    network = NETWORK | {"norm": ["INSTANCE", {"affine": True}]}
    instructions = {"_mode_": "debug", "_disabled_": True, "_requires_": "$1", "_desc_": "words"}
    found = recorded_values(record(tmp_path / "run", tiny_dataset, network_def=network | instructions), KNOWN)
    assert found["network_def"] == network | {"checkpointing": True}


def test_a_network_of_an_own_overlay_is_made_when_its_config_is_given(tiny_dataset: Path, tmp_path: Path) -> None:
    own = {"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2, "out_channels": 1}
    run = record(tmp_path / "run", tiny_dataset, network_def=own)
    with pytest.raises(ValueError, match="no config here names"):
        held_out(run, [], Place())
    overlay = tmp_path / "own.yaml"
    overlay.write_text(yaml.safe_dump({"network_def": own}), encoding="utf-8")
    found = held_out(run, [], Place((CONFIGS / "train.json", overlay)))
    with pytest.raises(ValueError, match=r"model\.pt does not fit the network"):
        found.network()


def test_a_home_folder_in_the_record_is_that_of_this_user(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny_dataset.parent))
    run = record(tmp_path / "run", Path("~") / tiny_dataset.name)
    assert len(held_out(run, [], Place()).entries) == 6


def test_a_network_that_was_trained_on_the_cases_is_not_in_their_ensemble(tiny_dataset: Path, tmp_path: Path) -> None:
    run, seed, fold = (record(tmp_path / name, tiny_dataset) for name in ("run", "seed", "fold"))
    digest = datalist_digest(tiny_dataset)
    for folder, number in ((run, 0), (seed, 0), (fold, 1)):
        settings = {"image_size": 32, "fold": number, "data": digest}
        write_json(folder / "run.json", json.loads((folder / "run.json").read_text()) | {"settings": settings})
    assert len(held_out(run, [seed, seed / "model.pt"], Place()).members) == 2
    with pytest.raises(ValueError, match="cannot be in the ensemble of these cases"):
        held_out(run, [fold], Place())


def test_an_arm_is_its_folds_with_their_seeds_in_order_and_what_is_neither_is_refused(tmp_path: Path) -> None:
    for name in ("fold_10_seed_0", "fold_2_seed_10", "fold_2_seed_3", "fold_x_seed_0", "fold_3_seed_0"):
        (tmp_path / name).mkdir()
        if name != "fold_3_seed_0":  # not trained yet
            (tmp_path / name / "model.pt").touch()
    found = [[path.name for path in seeds] for seeds in runs_of(tmp_path)]
    assert found == [["fold_2_seed_3", "fold_2_seed_10"], ["fold_10_seed_0"]]
    with pytest.raises(ValueError, match=r"no run\.json, so this is no run"):
        runs_of(tmp_path / "fold_x_seed_0")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": 1}', "[" * 100_000])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.json: (no readable record|it holds no config)"):
        recorded_values(tmp_path, KNOWN)


def test_chosen_lesions_are_spread_over_the_range_of_real_contrast() -> None:
    contrast = [0.5, 0.1, 0.3, 0.2, 0.4]
    rows = pd.DataFrame({"lesion_contrast_real": contrast, "source": list("abcde")})
    found = chosen_lesions(rows, Options(lesions=3))["lesion_contrast_real"]
    assert found.tolist() == [0.1, 0.3, 0.5]
    assert len(chosen_lesions(rows, Options(lesions=9))) == 5
    assert chosen_lesions(rows, Options(lesions=0)).empty
    assert chosen_lesions(rows, Options(names=("b", "c")))["source"].tolist() == ["b", "c"]
