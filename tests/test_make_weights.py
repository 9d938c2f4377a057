"""The recipe of weights to ship, shortened, leads from a folder of images to weights and their card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bundle.files import sha256_of
from bundle.networks import ResnetGenerator
from bundle.phantom import make_phantom
from bundle.weights import load_weights
from scripts import make_weights
from scripts.releasing.card import card_cases, lost_lesions
from scripts.releasing.recipe import keep_in_16_bits
from tests.conftest import ROOT
from tests.forks import run_forked
from tests.workflow import environment

SHORT = ["max_epochs=1", "val_interval=1", "image_size=32", "network_def#width=4", "network_def#blocks=1"]

TRAININGS = ("first", "second", "all_first", "all_second")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of the derivative's layout, with phantoms in it."""
    made, source = tmp_path / "phantom", tmp_path / "source"
    make_phantom(made, patients=12, size=48, site="W", seed=0, num_folds=3)
    names: dict[str, list[str]] = {"LE": ["image"], "DES": ["label"], "mask_LE": ["mask"], "mask_DES": ["mask"]}
    rows = []
    for case in json.loads((made / "datalist.json").read_text())["cases"]:
        name = f"{case['patient_id']}_{case['laterality']}_{case['view']}"
        rows.append([name, case["patient_id"], case["laterality"], case["view"], 0.95, "mass"])
        for folder, (key,) in names.items():
            (source / folder).mkdir(parents=True, exist_ok=True)
            grey = np.asarray(Image.open(made / case[key])) if key in case else np.zeros((48, 48))
            picture = np.round(grey * (255 / max(grey.max(), 1))).astype(np.uint8)
            Image.fromarray(picture).save(source / folder / f"{name}.png")
    rows[0][4] = 0.5  # framed differently: left out
    columns = ["name", "patient", "side", "view", "breast_iou", "DES_findings"]
    pd.DataFrame(rows, columns=columns).to_csv(source / "index.csv", index=False)
    return source


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the commands print, which run in copies of this process."""
    texts: list[str] = []

    def executed(line: Sequence[str]) -> int:
        done = run_forked([*line], ROOT, environment())
        texts.append(done.stdout + done.stderr)
        return done.returncode

    monkeypatch.setattr("scripts.releasing.recipe._executed", executed)
    return texts


@pytest.mark.slow
def test_the_short_recipe_makes_weights_that_load_and_a_card_that_counts(
    source: Path, tmp_path: Path, printed: list[str]
) -> None:
    folders = {"--source": source, "--output": tmp_path / "out", "--models": tmp_path / "models"}
    line = [word for name, folder in folders.items() for word in (name, str(folder))]
    line += ["--set", *SHORT, "discriminator_a_def#width=4"]
    assert make_weights.main(line) == 0, printed[-1][-3000:]
    models = tmp_path / "models"
    network = load_weights(ResnetGenerator(width=4, blocks=1), models / "model.pt").eval()
    image = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(torch.jit.load(str(models / "model.ts"))(image), network(image), rtol=0, atol=1e-5)

    cases = json.loads((tmp_path / "out/data/datalist.json").read_text())["cases"]
    assert len(cases) == len(list((source / "LE").iterdir())) - 1
    card, table = (models / "model_card/README.md").read_text(), pd.read_csv(models / "model_card/cases.csv")
    tested = [case for case in cases if case["fold"] == 0]
    assert f"{len(cases)} pairs of {len({case['patient_id'] for case in cases})} patients" in card
    assert set(table["source"]) == {Path(case["image"]).stem for case in tested}
    model = json.loads((tmp_path / "out/second/summary.json").read_text())["predictors"]["model"]["metrics"]
    assert sha256_of(models / "model.pt") in card
    assert f"| PSNR [dB] | {model['psnr']['mean']:.2f}" in card
    assert (models / "model_card/cases.png").stat().st_size > 10_000

    records = {name: json.loads((tmp_path / "out" / name / "run.json").read_text()) for name in TRAININGS}
    counted = {name: record["data"]["cases"] for name, record in records.items()}
    assert counted == dict(zip(TRAININGS, [len(cases) - len(tested)] * 2 + [len(cases)] * 2, strict=True))
    trained = torch.load(tmp_path / "out/all_second/model.pt", weights_only=True)
    assert all(torch.equal(trained[name].half().float(), tensor) for name, tensor in network.state_dict().items())

    first = {path.name: path.read_bytes() for path in models.rglob("*.*")}
    kept = [tmp_path / "out" / name / "run.json" for name in TRAININGS]
    written = [path.stat().st_mtime_ns for path in kept]
    assert make_weights.main(line) == 0
    assert [path.stat().st_mtime_ns for path in kept] == written  # nothing is trained a second time
    again = {path.name: path.read_bytes() for path in models.rglob("*.*")}
    assert [name for name in first if first[name] != again[name]] == []


def test_a_folder_that_is_no_source_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_weights.main(["--source", str(tmp_path)]) == 2
    assert f"no index.csv in {tmp_path}" in capsys.readouterr().err


def test_16_bits_are_near_and_what_they_cannot_hold_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([0.1, -3.0])}, tmp_path / "model.pt")
    keep_in_16_bits(tmp_path / "model.pt", tmp_path / "kept" / "model.pt")
    kept = torch.load(tmp_path / "kept" / "model.pt", weights_only=True)["a"]
    torch.testing.assert_close(kept.float(), torch.tensor([0.1, -3.0]), rtol=5e-4, atol=0)
    torch.save({"a": torch.tensor([1e6])}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="a has no place in 16 bits"):
        keep_in_16_bits(tmp_path / "model.pt", tmp_path / "kept" / "model.pt")


def rows(**columns: list[Any]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    plain = {"predictor": "model", "breast_psnr": 20.0, "false_enhancement": 0.0, "lesion_cnr_real": 2.0}
    plain |= {"lesion_contrast_real": 0.2, "lesion_contrast_virtual": 0.2}
    return pd.DataFrame({name: [value] * count for name, value in plain.items()} | columns)


def test_a_lesion_is_lost_where_it_enhances_and_less_than_half_of_it_comes_back() -> None:
    table = rows(
        lesion_cnr_real=[2.0, 2.0, 0.5, np.nan, 2.0],
        lesion_contrast_virtual=[0.09, 0.11, 0.0, np.nan, 0.0],
        predictor=["model"] * 4 + ["mean_des"],
    )
    assert lost_lesions(table) == (1, 2)


def test_the_card_shows_the_middle_the_lost_and_the_invented_once_each() -> None:
    table = rows(
        breast_psnr=[10.0, 20.0, 21.0, 22.0, 30.0, 40.0, 19.0, 5.0],
        lesion_contrast_virtual=[0.0, 0.2, 0.2, 0.2, 0.01, 0.02, 0.2, np.nan],
        false_enhancement=[0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.5, 0.8],
    )
    shown = [(place.name, why) for place, why in card_cases(table)]
    assert {place for place, why in shown if why == "typical"} == {1, 2}
    assert {place for place, why in shown if why == "lost"} == {0, 4, 5}
    assert {place for place, why in shown if why == "false"} == {3, 7}
