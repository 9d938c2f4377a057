from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import compare_runs


def evaluated(run: Path, psnr: float, patients: str = "AB") -> Path:
    run.mkdir()
    rows = "".join(f"{predictor},{one},L,CC\n" for predictor in ("model", "constant") for one in patients)
    (run / "cases.csv").write_text("predictor,patient_id,laterality,view\n" + rows)
    figure = {"mean": psnr, "low": psnr - 0.5, "high": psnr + 0.5}
    metrics = {"psnr": figure, "lesion_mae": {"mean": None}}
    summary = {"predictors": {"model": {"metrics": metrics}, "constant": {"metrics": {}}}}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


def test_runs_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(evaluated(tmp_path / name, psnr)) for name, psnr in (("a", 20.5), ("b", 21.25))]
    assert compare_runs.main(runs) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["2", "test", "cases"]
    assert lines[1] == ["metric", *runs]
    assert ["psnr", "20.50", "[20.00,", "21.00]", "21.25", "[20.75,", "21.75]"] in lines
    assert ["lesion_mae", "-", "-"] in lines


def test_runs_on_different_cases_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(evaluated(tmp_path / patients, 20.0, patients)) for patients in ("AB", "AC")]
    assert compare_runs.main(runs) == 2
    assert "different cases (2 differ)" in capsys.readouterr().err


def test_a_run_without_evaluation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_runs.main([str(tmp_path)]) == 2
    assert f"{tmp_path}: no results of an evaluation" in capsys.readouterr().err


def test_damaged_results_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluated(tmp_path / "a", 20.0)
    (run / "summary.json").write_text('["model"]')
    assert compare_runs.main([str(run)]) == 2
    assert "no results of an evaluation" in capsys.readouterr().err
