"""A trained model is tested on a data set that took no part in its training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bundle.errors import root_cause
from bundle.provenance import check_settings
from tests.workflow import train_options, workflow


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated run."""
    output = tmp_path_factory.mktemp("run")
    options = train_options(tiny_dataset, output, max_epochs=1, warmup_epochs=0)
    workflow("train.json", **options).run()
    evaluate(tiny_dataset, output)
    return output


@pytest.fixture
def external(tiny_dataset: Path, tmp_path: Path) -> Path:
    """The tiny data without folds, with other pixels and other patients."""
    folder = tmp_path / "other_site"
    shutil.copytree(tiny_dataset, folder)
    for file in [*(folder / "LE").iterdir(), *(folder / "DES").iterdir()]:
        pixels = np.asarray(Image.open(file))
        Image.fromarray(np.where(pixels > 0, pixels - 1, 0).astype(np.uint16)).save(file)
    change(folder, lambda _: None, None, "other site")
    return folder


def change(folder: Path, fold: Callable[[dict[str, Any]], int | None], num_folds: int | None, name: str) -> None:
    """Give the cases other folds, or none."""
    content = json.loads((folder / "datalist.json").read_text()) | {"name": name, "num_folds": num_folds}
    content["cases"] = [case | {"fold": fold(case)} for case in content["cases"]]
    for entry in (content, *content["cases"]):
        for key in [key for key in entry if entry[key] is None]:
            del entry[key]
    (folder / "datalist.json").write_text(json.dumps(content))


def evaluate(dataset: Path, output: Path, **options: Any) -> None:
    workflow("train.json", "evaluate.json", run_id="evaluating", **train_options(dataset, output, **options)).run()


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in ("summary.json", "cases.csv", "panels/worst.png"):
        yield name, (folder / name).read_bytes()


def test_all_cases_of_an_external_set_are_scored_beside_predictors_of_the_training(
    run: Path, external: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(files(run))
    evaluate(tiny_dataset, run, external_dir=str(external))
    results = run / "external" / "other_site"
    rows = pd.read_csv(results / "cases.csv")
    assert rows["predictor"].value_counts().to_dict() == dict.fromkeys(
        ("model", "le_copy", "breast_constant", "mean_des"), 18
    )
    assert dict(files(run)) == before
    caveat = "data set 'other site' is SYNTHETIC: what is trained or measured on it says nothing about patients"
    assert (results / "caveats.txt").read_text() == f"{caveat}\n"
    assert f"NOTE: {caveat}" in capsys.readouterr().out


def test_without_the_data_of_the_training_a_doubt_is_logged(
    run: Path, external: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = json.loads((run / "run.json").read_text())["settings"]
    check_settings(run, settings, external)
    check_settings(run, settings | {"data": "other"})
    assert not caplog.records
    check_settings(run, settings | {"data": "other"}, external)
    assert "dataset_dir is not the data of the training" in caplog.text


def test_an_external_set_that_holds_images_of_the_training_is_refused(
    run: Path, external: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(tiny_dataset / "LE/15.png", external / "LE/02.png")
    with pytest.raises(SystemExit):
        evaluate(tiny_dataset, run, external_dir=str(external))
    assert "image: the same pixels as the image of #15 P5 R CC" in capsys.readouterr().err


def test_an_external_set_in_the_place_of_the_training_data_is_explained(run: Path, external: Path) -> None:
    for configs in (("train.json",), ("train.json", "evaluate.json")):
        options = train_options(external, run)
        with pytest.raises(RuntimeError) as failure:
            workflow(*configs, run_id="run", **options).run()
        assert "--external_dir" in str(root_cause(failure.value))


def test_results_on_other_data_with_folds_do_not_replace_those_of_the_run(run: Path, external: Path) -> None:
    before = dict(files(run))
    change(external, lambda case: int(case["patient_id"][1:]) % 3, 3, "other site")
    evaluate(external, run)
    assert dict(files(run)) == before
    assert len(pd.read_csv(run / "external" / "other_site" / "cases.csv")) == 4 * 6
