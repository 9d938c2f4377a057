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
from bundle.provenance import DIGEST_FILE, cases_digest, check_settings, results_dir
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


def edit(folder: Path, **top: Any) -> None:
    """Change top-level keys of a datalist."""
    file = folder / "datalist.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | top))


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
    shift = json.loads((results / "domain_shift.json").read_text())
    assert [shift[part]["cases"] for part in ("training", "external")] == [6, 18]
    assert 0 < shift["image"]["wasserstein"] < 0.05
    assert (results / "domain_shift.png").is_file()
    assert not (run / "domain_shift.json").exists()
    said = capsys.readouterr().out
    lines = (results / "caveats.txt").read_text().splitlines()
    assert lines == [
        f"data set {name!r} is SYNTHETIC: what is trained or measured on it says nothing about patients"
        for name in ("other site", "tiny")
    ]
    assert all(f"NOTE: {caveat}" in said for caveat in lines)


def test_what_is_to_be_said_of_the_training_data_is_said_on_real_external_data_too(
    run: Path, external: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = tmp_path / "leaking"
    shutil.copytree(tiny_dataset, training)
    edit(training, allow_leak=True)
    edit(external, synthetic=False)
    evaluate(training, run, external_dir=str(external))
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("NOTE: data set 'tiny'")]
    assert ["SYNTHETIC" in notes[0], "LEAKING FOLDS" in notes[1], len(notes)] == [True, True, 2]


def test_results_on_folders_of_one_name_do_not_replace_each_other(
    run: Path, external: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    sites = [external.rename(tmp_path / "out")]
    (tmp_path / "b").mkdir()
    sites.append(tmp_path / "b" / "out")
    shutil.copytree(sites[0], sites[1])
    edit(sites[1], cases=json.loads((sites[1] / "datalist.json").read_text())["cases"][:12])
    for site in sites:
        evaluate(tiny_dataset, run, external_dir=str(site))
    found = sorted((run / "external").glob("out*"))
    assert [len(pd.read_csv(path / "cases.csv")) for path in found] == [4 * 18, 4 * 12]
    assert found[0].name == "out"
    assert found[1].name.startswith("out-")


def test_results_go_where_there_are_none_or_older_ones_on_the_same_cases(tmp_path: Path) -> None:
    cases = [{"image": "b/LE/1.png", "patient_id": "P1"}, {"image": "b/LE/2.png", "patient_id": "P2"}]
    digest, folder = cases_digest(cases), tmp_path / "run" / "external" / "out"

    def results() -> str:
        return results_dir(tmp_path / "run", "training", None, "b/out", digest)

    assert results() == str(folder)
    folder.mkdir(parents=True)
    assert results() == f"{folder}-{digest[:8]}", "results that do not say on what they were measured"
    (folder / DIGEST_FILE).write_text(f"{digest}\n")
    assert results() == str(folder)
    (folder / DIGEST_FILE).write_text(cases_digest(cases[:1]))
    assert results() == f"{folder}-{digest[:8]}"


def test_results_at_another_size_have_folders_of_their_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert results_dir(run, "data", None, score_size=128) == str(run / "scored_at_128")
    assert results_dir(run, "data", None, section="validation", score_size=128) == str(run / "scored_at_128/validation")
    assert results_dir(run, "data", None, "b/out", "1f", score_size=128) == str(run / "scored_at_128/external/out")


def test_an_external_set_that_holds_patients_of_the_training_is_refused(
    run: Path, external: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = tmp_path / "training"
    shutil.copytree(tiny_dataset, training)
    for folder in (training, external):
        file = folder / "datalist.json"
        file.write_text(file.read_text().replace('"P3"', '"P-ABCDEFG234"'))
    with pytest.raises(SystemExit):
        evaluate(training, run, external_dir=str(external))
    assert f"patient P-ABCDEFG234 is also in {training}" in capsys.readouterr().err


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
    other = external.rename(external.parent / "with_folds")
    change(other, lambda case: int(case["patient_id"][1:]) % 3, 3, "other site")
    evaluate(other, run)
    assert dict(files(run)) == before
    assert len(pd.read_csv(run / "external" / "with_folds" / "cases.csv")) == 4 * 6
