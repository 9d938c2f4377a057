"""The benchmarks of data, inference and growth run on tiny data, and compare only what agrees."""

from __future__ import annotations

import math

import pytest
from monai.transforms import Compose, ScaleIntensityd

from scripts.benchmarking import data, growth, inference_folder
from scripts.benchmarking.measure import Row
from scripts.benchmarking.samples import SYNTAXES

TINY = (260, 200)


def figures(rows: list[Row]) -> dict[str, float]:
    assert all(row.value is not None and math.isfinite(row.value) for row in rows)
    return {row.what: row.value for row in rows if row.value is not None}


def test_the_data_path_is_measured_beside_plain_monai_and_bare_decoding() -> None:
    found = figures(data.rows(size=32, full_size=TINY, budget_s=0.1))
    assert found["largest difference from plain MONAI, unmoved"] <= 1e-5
    assert {f"preparing DICOM ({name}) against bare pydicom" for name in SYNTAXES} < found.keys()
    assert min(value for name, value in found.items() if "difference" not in name) > 0


def test_pipelines_that_do_not_agree_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = data._plain

    def other(size: int, prob: float = 0.3) -> Compose:
        steps = plain(size, prob)
        return Compose([*steps.transforms, ScaleIntensityd(data.IMAGES, minv=None, maxv=None, factor=0.1)])

    monkeypatch.setattr(data, "_plain", other)
    with pytest.raises(RuntimeError, match="the times do not compare"):
        data.rows(size=32, full_size=TINY, budget_s=0.1)


def test_a_folder_gives_the_same_files_overlapped_and_one_part_after_the_other() -> None:
    found = figures(inference_folder.rows(2, 32, 4, 1, TINY, budget_s=0.1))
    shares = [value for name, value in found.items() if name.startswith("share of")]
    assert sum(shares) == pytest.approx(100)
    assert len(shares) == 3
    assert found["DICOM folder"] > 0


def test_growth_is_told_for_each_size_with_an_exponent() -> None:
    rows = growth.rows(sizes=(32, 64), batches=(1, 2), cases=(12, 24), processes=(1,), budget_s=0.1)
    found = figures(rows)
    assert [name for name in found if name.startswith("data check, nothing changed")] == [
        "data check, nothing changed: 12 cases",
        "data check, nothing changed: 24 cases",
        "data check, nothing changed: exponent",
    ]
    assert sum("exponent" in name for name in found) == 6
    assert not any(row.target for row in rows)  # a target is for the full number of cases
