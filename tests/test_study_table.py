"""A study's figures in Markdown say what its summary says, and mark what chance does not explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.evidence.markdown import figures_table
from scripts.study_table import main


def figure(mean: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"mean": mean, "low": low, "high": high}


def compared(a: str, b: str, difference: float, low: float, high: float) -> dict[str, Any]:
    return {"a": a, "b": b, "metric": "ssim", "difference": difference, "low": low, "high": high}


SUMMARY: dict[str, Any] = {
    "predictors": {
        "baseline": {"metrics": {"ssim": figure(0.5, 0.25, 0.75), "psnr": figure(20.0)}},
        "l1": {"metrics": {"ssim": figure(0.625, 0.5, 0.75), "psnr": figure(None)}},
        "seg35": {"metrics": {"ssim": figure(0.5004, 0.2, 0.7), "psnr": figure(21.0)}},
        "le_copy": {"metrics": {"ssim": figure(0.125), "psnr": figure(11.0)}},
    },
    "comparisons": [
        compared("baseline", "l1", 0.125, 0.0625, 0.1875),
        compared("baseline", "seg35", 0.0004, -0.05, 0.25),
        compared("l1", "seg35", -0.1246, -0.25, -0.0625),
    ],
}


def test_every_predictor_has_a_row_and_what_is_missing_is_none() -> None:
    lines = figures_table(SUMMARY["predictors"], ["ssim", "psnr"]).splitlines()
    assert lines[0] == "|  | SSIM | PSNR [dB] |"
    assert [line.count("|") for line in lines] == [4] * 6
    assert lines[2].endswith("| 0.500<br>0.250 to 0.750 | 20.00 |")
    assert lines[3].endswith("| 0.625<br>0.500 to 0.750 | none |")


def test_the_other_way_round_the_same_cells_stand() -> None:
    tables = [figures_table(SUMMARY["predictors"], ["ssim", "psnr"], by_metric=turned) for turned in (False, True)]
    cells = [[line.strip("| ").split(" | ") for line in table.splitlines() if "---" not in line] for table in tables]
    assert cells[1][1][1:] == [row[1] for row in cells[0][1:]]


def test_differences_are_bold_where_the_interval_excludes_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    assert main([str(tmp_path), "--metrics", "ssim"]) == 0
    rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert [row.split(" | ", 1)[1] for row in rows[2:]] == [
        "**+0.125**<br>+0.062 to +0.188 |",
        "+0.000<br>-0.050 to +0.250 |",
    ]
    assert main([str(tmp_path), "--metrics", "ssim", "--reference", "seg35"]) == 0
    rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert rows[3].split(" | ", 1)[1] == "**+0.125**<br>+0.062 to +0.250 |"


def test_a_study_that_is_not_finished_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "Run the study to its end" in capsys.readouterr().err


def test_groups_of_cases_have_a_row_for_each_predictor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {
        "malignant": {"cases": 7, "metrics": {"ssim": figure(0.25, 0.125, 0.375)}},
        "non_mass": {"cases": 2, "metrics": {}},
    }
    predictors = {
        "baseline": {"metrics": {}, "strata": {"lesion_kind": kinds, "view": {}}},
        "le_copy": {"metrics": {}, "strata": {"lesion_kind": kinds}},
    }
    (tmp_path / "summary.json").write_text(json.dumps({"predictors": predictors, "comparisons": []}))
    assert main([str(tmp_path), "--metrics", "ssim", "--by", "lesion_kind"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[1:] for row in rows[2:]] == [
        ["malignant", "7", "0.250<br>0.125 to 0.375 |"],
        ["non_mass", "2", "none |"],
    ] * 2
    assert main([str(tmp_path), "--by", "age"]) == 2
    assert "not grouped by 'age', but by lesion_kind, view" in capsys.readouterr().err


def test_a_figure_that_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--metrics", "lesion_mea"])
    assert "'lesion_mea'" in capsys.readouterr().err
