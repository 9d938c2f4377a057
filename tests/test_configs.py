"""The configs keep the contract that integrators of MONAI bundles read."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from bundle.checkpoint import save_atomically
from bundle.phantom import make_phantom
from tests.conftest import ROOT, TINY
from tests.workflow import CONFIGS, environment, train_options, workflow

TRAIN_IDS = (
    "bundle_root device dataset_dir output_dir network_def network val_interval train#trainer train#trainer#max_epochs "
    "train#dataset train#dataset#data train#dataloader train#inferer train#handlers train#preprocessing "
    "train#postprocessing train#key_metric validate#evaluator validate#dataset validate#dataset#data "
    "validate#dataloader validate#inferer validate#handlers validate#preprocessing validate#postprocessing "
    "validate#key_metric"
)
INFERENCE_IDS = (
    "bundle_root device dataset_dir output_dir network_def network preprocessing postprocessing dataset dataset#data "
    "dataloader inferer handlers evaluator run"
)


def parsed(*names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    parser.parse()
    return parser


@pytest.mark.parametrize(("name", "ids"), [("train.json", TRAIN_IDS), ("inference.json", INFERENCE_IDS)])
def test_the_ids_that_integrators_read_are_there(name: str, ids: str) -> None:
    parser = parsed(name)
    assert [i for i in ids.split() if i not in parser] == []


@pytest.mark.parametrize(("name", "kind"), [("train.json", "train"), ("inference.json", "infer")])
def test_monai_finds_every_property(name: str, kind: str) -> None:
    made = workflow(name, kind=kind, meta_file=str(CONFIGS / "metadata.json"), bundle_root=str(ROOT))
    assert made.check_properties() == []


@pytest.mark.parametrize(("name", "ids"), [("train.json", ("train", "validate")), ("inference.json", (None,))])
def test_handlers_are_literal_lists_that_tracking_can_extend(name: str, ids: tuple[str | None, ...]) -> None:
    parser = parsed(name)
    for section in ids:
        handlers = parser.get(f"{section}#handlers" if section else "handlers")
        assert all(isinstance(handler, dict) and isinstance(handler["_target_"], str) for handler in handlers)


def test_inference_has_the_generator_and_the_preprocessing_of_training() -> None:
    train, inference = parsed("train.json"), parsed("inference.json")
    generator = dict(train.get("network_def"), checkpointing=False)
    assert inference.get("network_def") == generator
    assert [inference.get(i) for i in ("image_size", "image_scaling")] == [
        train.get(i) for i in ("image_size", "image_scaling")
    ]
    for step in inference.get("preprocessing")["transforms"]:
        # A server's choice of the image, and the orientation of a file: training reads data sets that are prepared so.
        if step["_target_"] in ("bundle.monai_label.LabelSourced", "bundle.transforms.TurnUprightd"):
            continue
        twin = next(t for t in train.get("train")["deterministic_transforms"] if t["_target_"] == step["_target_"]
                    and "image" in (t["keys"] if isinstance(t["keys"], list) else [t["keys"]]))  # fmt: skip
        for name, value in step.items():
            if name not in ("keys", "mode", "window", "as_displayed"):  # training takes windows from its datalist
                assert twin[name] == value
        if "mode" in step:
            assert twin["mode"][twin["keys"].index("image")] == step["mode"]


def test_the_phantom_made_by_training_is_the_one_its_command_makes_by_default() -> None:
    phantom = parsed("train.json").get("phantom")
    defaults = {name: p.default for name, p in inspect.signature(make_phantom).parameters.items()}
    chosen = {name: phantom[name] for name in ("patients", "size", "site", "seed", "num_folds")}
    assert chosen == {name: defaults[name] for name in chosen}


def test_overlays_are_short() -> None:
    for path in CONFIGS.glob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 40, path.name


def test_overlays_that_change_the_method_say_so_in_a_sentence_and_are_explained() -> None:
    explained = (ROOT / "docs" / "method.md").read_text()
    for path in CONFIGS.glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert re.fullmatch(r"# [A-Z].*\.", first), path.name
        if path.stem not in ("quickstart", "baseline", "pretrain", "finetune"):
            assert f"`configs/{path.name}`" in explained, path.name


@pytest.mark.parametrize(
    "overlays",
    [
        ["contrast.yaml"],
        ["mask_guided.yaml"],
        ["paired_lesion.yaml", "mask_guided.yaml", "lesion_patch.yaml", "gamma_uncertainty.yaml"],
    ],
)
def test_an_overlay_trains_alone_or_with_others_and_is_evaluated(
    tiny_dataset: Path, tmp_path: Path, overlays: list[str]
) -> None:
    options = train_options(tiny_dataset, tmp_path, max_epochs=1, warmup_epochs=0, gamma=10.0)
    several = {"lesion_patch_side": 0.5, "lesion_discriminators_def#width": 4}
    patches: dict[str, Any] = several if len(overlays) > 1 else {}
    workflow("train.json", *overlays, run_id="training", **options, **patches).run()
    losses = pd.read_csv(tmp_path / "history.csv").iloc[0]
    named = {"contrast.yaml": "contrast", "paired_lesion.yaml": "paired_lesion", "lesion_patch.yaml": "lesion_G_AB"}
    for overlay in overlays:
        assert losses[named.get(overlay, "loss")] > 0
    options = train_options(tiny_dataset, tmp_path, resamples=100)
    workflow("train.json", *overlays, "evaluate.json", run_id="evaluating", **options, **patches).run()
    assert (tmp_path / "summary.json").is_file()


def test_the_default_setting_is_the_papers() -> None:
    train = parsed("train.json")
    paper = {"image_size": 256, "batch_size": 8, "learning_rate": 1e-5, "weight_decay": 1e-5, "lambda_cycle": 10.0,
             "lambda_identity": 5.0, "gamma": 35.0, "pool_size": 0, "terms": [], "critics": [],
             "gamma_factor": None}  # fmt: skip
    assert {name: train.get(name) for name in paper} == paper
    assert train.get("optimizer")["betas"] == [0.5, 0.999]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of the default generator, drawn at random."""
    network = parsed("train.json").get_parsed_content("network_def")
    path = tmp_path / "model.pt"
    save_atomically(network.state_dict(), path)
    return path


def test_monai_verifies_the_metadata(shared_data: Path, tmp_path: Path) -> None:
    schema = json.loads((shared_data / "monai" / "meta_schema_20240725.json").read_text())
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    local = tmp_path / "metadata.json"
    served = tmp_path / "schema.json"
    served.write_text(json.dumps(schema))
    local.write_text(json.dumps({**metadata, "schema": served.as_uri()}))
    monai.bundle.verify_metadata(meta_file=str(local), filepath=str(served), create_dir=False)
    broken = {**metadata, "network_data_format": {}}
    local.write_text(json.dumps({**broken, "schema": served.as_uri()}))
    with pytest.raises(ValueError, match="required property"):
        monai.bundle.verify_metadata(meta_file=str(local), filepath=str(served), create_dir=False)


def test_metadata_is_consistent_with_itself_and_the_bundle() -> None:
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    formats = metadata["network_data_format"]
    assert metadata["version"] in metadata["changelog"]
    assert (next(iter(formats["inputs"])), next(iter(formats["outputs"]))) == ("image", "pred")
    assert formats["inputs"]["image"]["type"] == formats["outputs"]["pred"]["type"] == "image"


def test_monai_verifies_what_goes_in_and_out_of_the_network() -> None:
    monai.bundle.verify_net_in_out(
        net_id="network_def", config_file=str(CONFIGS / "inference.json"), meta_file=str(CONFIGS / "metadata.json"),
        device="cpu", n=1, p=1, any=64,
    )  # fmt: skip


def test_monai_exports_the_weights_as_torchscript(weights: Path, tmp_path: Path) -> None:
    monai.bundle.ckpt_export(
        net_id="network_def", filepath=str(tmp_path / "model.ts"), ckpt_file=str(weights),
        meta_file=str(CONFIGS / "metadata.json"), config_file=str(CONFIGS / "inference.json"),
        input_shape=[1, 1, 64, 64], use_trace=False,
    )  # fmt: skip
    network = parsed("train.json").get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    x = torch.rand(2, 1, 48, 64)
    torch.testing.assert_close(torch.jit.load(str(tmp_path / "model.ts"))(x), network(x))


def test_monai_loads_the_bundle_from_another_directory(weights: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo" / "cesm_virtual_contrast"
    zoo.mkdir(parents=True)
    for name in ("bundle", "configs"):
        (zoo / name).symlink_to(ROOT / name)
    (zoo / "models").mkdir()
    weights.rename(zoo / "models" / "model.pt")
    code = (
        "import monai.bundle, torch\n"
        f"net = monai.bundle.load('cesm_virtual_contrast', bundle_dir={str(zoo.parent)!r}, source='github')\n"
        f"state = torch.load({str(zoo / 'models' / 'model.pt')!r}, weights_only=True)\n"
        "assert all(torch.equal(net.state_dict()[k], v) for k, v in state.items())\n"
    )
    env = {**environment(), "PYTHONPATH": str(zoo), **{k: v for k, v in os.environ.items() if k == "PATH"}}
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]


def federated_bundle(folder: Path) -> Path:
    """The bundle in another folder, with train.json made tiny, as a federation would provision it."""
    (folder / "configs").mkdir(parents=True)
    (folder / "bundle").symlink_to(ROOT / "bundle")
    content = json.loads((CONFIGS / "train.json").read_text())
    for key, value in TINY.items():
        target, *rest = key.split("#")
        if rest:
            content[target][rest[0]] = value
        else:
            content[target] = value
    content |= {"max_epochs": 10, "device": "cpu"}
    (folder / "configs" / "train.json").write_text(json.dumps(content))
    (folder / "configs" / "metadata.json").write_text((CONFIGS / "metadata.json").read_text())
    return folder


def test_a_federated_round_trains_and_returns_weights(tiny_dataset: Path, tmp_path: Path) -> None:
    root = federated_bundle(tmp_path / "client")
    (root / "data").mkdir()
    (root / "data" / "phantom").symlink_to(tiny_dataset)
    algo = MonaiAlgo(
        bundle_root=str(root), local_epochs=1, config_train_filename="configs/train.json",
        config_evaluate_filename=None, config_filters_filename=None, send_weight_diff=False,
    )  # fmt: skip
    algo.initialize(extra={ExtraItems.CLIENT_NAME: "site", ExtraItems.APP_ROOT: str(tmp_path)})
    assert algo.trainer is not None
    sent = {name: tensor.clone() for name, tensor in algo.trainer.network.state_dict().items()}
    for round_number in (1, 2):
        algo.train(ExchangeObject(weights=sent, weight_type=WeightType.WEIGHTS), extra={})
        received = algo.get_weights(extra={})
        assert algo.trainer.state.epoch == round_number
        assert received.weights.keys() == sent.keys()
        assert any(not torch.equal(received.weights[name], sent[name]) for name in sent)


def test_label_can_supply_bare_pairs_and_no_validation(tiny_dataset: Path, tmp_path: Path) -> None:
    cases = json.loads((tiny_dataset / "datalist.json").read_text())["cases"]
    items = [{key: str(tiny_dataset / case[key]) for key in ("image", "label")} for case in cases[:3]]
    options: dict[str, Any] = train_options(tmp_path / "nowhere", tmp_path / "run", max_epochs=1)
    options |= {"train#dataset#data": items, "validate#dataset#data": []}
    workflow("train.json", **options).run()
    assert torch.load(tmp_path / "run" / "model.pt", weights_only=True)
