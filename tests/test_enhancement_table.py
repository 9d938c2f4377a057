"""The enhancement AUC of each kind of lesion is that of its enhancing lesions against all that do not enhance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from bundle.metrics.intervals import Resampling
from scripts.evidence.enhancement import enhancement_table
from scripts.study_table import main
from tests.report_study import write_json

KINDS = ["malignant", "benign", "dark"]


@pytest.fixture
def cases() -> pd.DataFrame:
    """Two arms over 60 cases: malignant, benign and dark lesions, and 15 cases without one."""
    generator = np.random.default_rng(0)
    kinds = np.array(["malignant", "benign", "dark", ""] * 15)
    virtual, real = generator.normal(0, 1, 60), np.select([kinds == "malignant", kinds == "benign"], [4.0, 2.0], 0.5)
    real[kinds == ""] = np.nan
    one = pd.DataFrame(
        {
            "patient_id": [f"P{number // 4}" for number in range(60)],
            "laterality": "L",
            "view": "CC",
            "source": [f"case{number}" for number in range(60)],
            "seed": "0",
            "lesion_kind": kinds,
            "lesion_mae": np.where(kinds == "", np.nan, 0.1),
            "lesion_cnr_real": real,
            "lesion_contrast_real": real / 10,
            "lesion_cnr_virtual": virtual,
            "lesion_contrast_virtual": virtual / 10,
        }
    )
    return pd.concat([one.assign(arm="first"), one.assign(arm="second", lesion_cnr_virtual=virtual + 2 * (real > 3))])


def cells(table: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def test_each_kind_is_compared_with_all_lesions_that_do_not_enhance(cases: pd.DataFrame) -> None:
    found = cells(enhancement_table(cases, ["first", "second"], Resampling(200)))
    assert list(found) == ["all", "benign", "malignant"]
    for kind, row in found.items():
        assert row[:2] == ["30" if kind == "all" else "15", "15"]
        for arm, cell in zip(("first", "second"), row[2:], strict=True):
            rows = cases[(cases["arm"] == arm) & cases["lesion_kind"].isin([kind, "dark"] if kind != "all" else KINDS)]
            expected = roc_auc_score(rows["lesion_cnr_real"] > 1, rows["lesion_cnr_virtual"])
            value, low, high = (float(part) for part in cell.replace("<br>", " to ").split(" to "))
            assert value == pytest.approx(expected, abs=6e-4)
            assert low < value < high


def test_lesions_of_no_stated_kind_count_among_all_alone(cases: pd.DataFrame) -> None:
    found = cells(enhancement_table(cases.drop(columns="lesion_kind"), ["first"], Resampling(20)))
    assert {kind: row[:2] for kind, row in found.items()} == {"all": ["30", "15"]}


def test_a_case_with_several_seeds_counts_once(cases: pd.DataFrame) -> None:
    twice = pd.concat([cases, cases.assign(seed="1")])
    assert cells(enhancement_table(twice, ["first"], Resampling(20)))["all"][:2] == ["30", "15"]


def test_where_all_lesions_enhance_there_is_nothing_to_tell_apart(cases: pd.DataFrame) -> None:
    with pytest.raises(LookupError, match="lesions that do not"):
        enhancement_table(cases[cases["lesion_kind"] != "dark"], ["first"], Resampling(20))


def test_the_command_prints_it_for_a_study_and_refuses_a_folder_without_one(
    tmp_path: Path, cases: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--enhancement"]) == 2
    assert "Run the study to its end" in capsys.readouterr().err
    arms: dict[str, object] = {"second": {"metrics": {}}, "first": {"metrics": {}}}
    summary = {"predictors": arms, "intervals": {"resamples": 50, "confidence": 0.9}, "comparisons": []}
    write_json(tmp_path / "summary.json", summary)
    write_json(tmp_path / "study.json", {"arms": dict.fromkeys(arms, "")})
    cases.assign(fold=0).to_csv(tmp_path / "cases.csv", index=False)
    assert main([str(tmp_path), "--enhancement"]) == 0
    expected = enhancement_table(cases, ["second", "first"], Resampling(50, confidence=0.9))
    assert capsys.readouterr().out == f"{expected}\n"


def test_other_figures_cannot_be_asked_for_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--enhancement", "--metrics", "psnr"])
    assert "leave --metrics out" in capsys.readouterr().err
