"""The weights that come with the bundle are those that their card and the metadata speak of."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.exports import stale_reason
from bundle.files import sha256_of
from bundle.metrics import summarise
from bundle.saved_state import load_saved
from bundle.weights import load_weights
from scripts import prepare_data
from tests.conftest import ROOT
from tests.workflow import CONFIGS, workflow

WEIGHTS = ROOT / "models" / "model.pt"
CARD = ROOT / "models" / "model_card"
METADATA = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))


def card_cases() -> pd.DataFrame:
    """The model's rows of the card, by the name of the case."""
    rows = pd.read_csv(CARD / "cases.csv", dtype={"patient_id": str})
    return rows[rows["predictor"] == "model"].set_index("source")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "inference.json"))
    made: torch.nn.Module = parser.get_parsed_content("network_def")
    return load_weights(made, WEIGHTS).eval()


def test_the_weights_fit_the_network_that_is_trained_and_the_one_that_is_served(network: torch.nn.Module) -> None:
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "train.json"))
    trained = load_weights(parser.get_parsed_content("network_def"), WEIGHTS)
    kept = load_saved(WEIGHTS)
    for state in (network.state_dict(), trained.state_dict()):
        assert list(state) == list(kept)
        assert all(torch.equal(tensor, kept[name].float()) for name, tensor in state.items())


def test_the_torchscript_is_the_same_network(network: torch.nn.Module) -> None:
    image = torch.rand(1, 1, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = torch.jit.load(str(WEIGHTS.with_suffix(".ts")))(image)
        torch.testing.assert_close(found, network(image), rtol=0, atol=1e-5)


def test_the_torchscript_says_of_itself_what_the_metadata_say() -> None:
    assert stale_reason(WEIGHTS) is None
    files = {"metadata.json": ""}
    torch.jit.load(str(WEIGHTS.with_suffix(".ts")), _extra_files=files)
    assert json.loads(files["metadata.json"])["eval_metrics"] == METADATA["eval_metrics"]


def test_the_card_is_about_these_weights_which_need_no_large_files() -> None:
    assert sha256_of(WEIGHTS) in (CARD / "README.md").read_text(encoding="utf-8")
    assert WEIGHTS.stat().st_size < 25_000_000
    assert WEIGHTS.with_suffix(".ts").stat().st_size < 25_000_000


def test_the_metadata_have_the_means_of_the_cards_cases() -> None:
    claimed = METADATA["eval_metrics"]
    assert len(claimed) > 5
    measured = summarise(card_cases())
    assert claimed == pytest.approx({name: measured[name] for name in claimed}, abs=0.006)


@pytest.mark.slow
def test_the_weights_are_nearer_to_the_real_des_than_a_constant(shared_data: Path, tmp_path: Path) -> None:
    """They have seen these cases: this tells that weights, scaling and configs fit, not how good they are."""
    root, rows = shared_data / "cdd-cesm-512", card_cases()
    names = rows.groupby("patient_id").head(1).index[:3]
    for kind in ("LE", "DES", "mask_LE", "mask_DES"):
        (tmp_path / "source" / kind).mkdir(parents=True)
        for file in [file for name in names for file in (root / kind).glob(f"{name}.*")]:
            (tmp_path / "source" / kind / file.name).symlink_to(file)
    index = pd.read_csv(root / "index.csv")
    index[index["name"].isin(names)].to_csv(tmp_path / "source" / "index.csv", index=False)
    line = ["pairs", "--table", str(tmp_path / "source/index.csv"), "--laterality-column", "side", "--folds", "3"]
    folders = {"--image-dir": "LE", "--label-dir": "DES", "--mask-dir": "mask_LE", "--label-mask-dir": "mask_DES"}
    line += [word for option, name in folders.items() for word in (option, str(tmp_path / "source" / name))]
    assert prepare_data.main([*line, "--output", str(tmp_path / "data"), "--quiet", "--workers", "1"]) == 0
    configs = ("train.json", "l1.yaml", "weights.yaml", "weights_256.yaml", "evaluate.json")
    place = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "run"), "model_path": str(WEIGHTS)}
    workflow(*configs, run_id="evaluating", device="cpu", bundle_root=str(ROOT), resamples=20, **place).run()
    found = pd.read_csv(tmp_path / "run" / "cases.csv").set_index("source")
    model, constant = (found[found["predictor"] == name] for name in ("model", "breast_constant"))
    assert len(model)
    assert set(model.index) <= set(names)
    assert (model["psnr"] > constant["psnr"]).all()
