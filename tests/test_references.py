"""Other trained generators are scored beside the model, on the same terms."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bundle.errors import root_cause
from tests.workflow import train_options, workflow


@pytest.fixture(scope="module")
def runs(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings on fold 0, one with lesion terms and one on the pairs alone, and one on fold 1."""
    folder = tmp_path_factory.mktemp("runs")
    for name, configs, fold in (("seg", [], 0), ("l1", ["l1.yaml"], 0), ("other", ["l1.yaml"], 1)):
        options = train_options(tiny_dataset, folder / name, max_epochs=1, warmup_epochs=0, fold=fold)
        workflow("train.json", *configs, **options).run()
    return folder


def evaluate(dataset: Path, output: Path, **options: object) -> None:
    workflow("train.json", "evaluate.json", run_id="evaluating", **train_options(dataset, output, **options)).run()


def model_rows(output: Path, predictor: str = "model") -> pd.DataFrame:
    rows = pd.read_csv(output / "cases.csv", dtype={"source": str})
    of_predictor = rows[rows["predictor"] == predictor].drop(columns=["predictor", "picture"])
    return of_predictor.reset_index(drop=True)


def test_a_reference_has_the_figures_of_its_own_evaluation(runs: Path, tiny_dataset: Path) -> None:
    evaluate(tiny_dataset, runs / "l1")
    evaluate(tiny_dataset, runs / "seg", references={"L1": str(runs / "l1")})
    pd.testing.assert_frame_equal(model_rows(runs / "seg", "L1"), model_rows(runs / "l1"), rtol=1e-4)
    summary = json.loads((runs / "seg" / "summary.json").read_text())
    assert list(summary["predictors"]) == ["model", "le_copy", "breast_constant", "mean_des", "L1"]


def test_a_reference_of_another_fold_would_score_training_cases_and_is_refused(runs: Path, tiny_dataset: Path) -> None:
    with pytest.raises(RuntimeError) as failure:
        evaluate(tiny_dataset, runs / "seg", references={"leaking": str(runs / "other")})
    assert "training cases would be scored as test cases" in str(root_cause(failure.value))


def test_a_reference_without_weights_is_named(runs: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as failure:
        evaluate(tiny_dataset, runs / "seg", references={"absent": str(tmp_path)})
    assert f"no weights at {tmp_path / 'model.pt'}" in str(root_cause(failure.value))


def test_the_validation_section_is_scored_into_a_folder_of_its_own(runs: Path, tiny_dataset: Path) -> None:
    evaluate(tiny_dataset, runs / "seg")
    before = (runs / "seg" / "cases.csv").read_bytes()
    evaluate(tiny_dataset, runs / "seg", section="validation")
    assert (runs / "seg" / "cases.csv").read_bytes() == before
    assert set(model_rows(runs / "seg" / "validation")["source"]) == {f"{number:02d}" for number in range(6, 12)}
    with pytest.raises(RuntimeError) as failure:
        evaluate(tiny_dataset, runs / "seg", section="training")
    assert "not evaluated on what it was trained on" in str(root_cause(failure.value))
