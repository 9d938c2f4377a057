from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scripts.prepare import workers
from scripts.prepare.datalist import patient_folds
from scripts.prepare.duplicates import leave_out_repeats
from scripts.prepare.pipeline import import_views
from scripts.prepare.view import View
from tests.archives.dataset import content_of, datalist, excluded_rows, imported, options


@pytest.mark.parametrize("seed", range(6))
def test_patients_who_share_an_image_are_one_group_and_the_copy_is_left_out(
    seed: int, views: list[View], output: Path
) -> None:
    shutil.copy(views[0].label.path, views[4].label.path)  # P0 and P1
    assert imported(views, output, "--folds", "3", "--seed", str(seed)) == 3
    (row,) = excluded_rows(output)
    assert row["name"] == views[4].name
    assert "patients P0 and P1 share an image" in row["reason"]
    assert "patient ids is wrong" in row["remedy"]
    folds = {case["patient_id"]: case["fold"] for case in datalist(output)["cases"]}
    assert folds["P0"] == folds["P1"]


def test_a_copy_also_joins_the_patients_of_what_is_left_out() -> None:
    digests = [("a", "b"), ("a", "c"), ("d", "c"), ("e", "f")]
    facts = [
        {"name": f"n{i}", "patient_id": f"P{i}", "image_digest": one, "label_digest": two}
        for i, (one, two) in enumerate(digests)
    ]
    kept, left_out, groups = leave_out_repeats(facts, ["f"] * 4)
    assert kept == [0, 2, 3]
    assert [one.name for one in left_out] == ["n1"]
    assert len({groups[f"P{i}"] for i in range(3)}) == 1
    assert groups["P3"] != groups["P0"]


def test_published_folds_are_kept_and_leaks_refused_unless_allowed(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = [replace(view, fold=int(view.patient_id[1]) % 3) for view in views]
    assert imported(published, output) == 0
    content = datalist(output)
    assert content["num_folds"] == 3
    assert [case["fold"] for case in content["cases"]] == [view.fold for view in published]
    leaking = [replace(published[0], fold=2), *published[1:]]
    assert imported(leaking, output) == 1
    assert "patient P0 is in folds 0, 2" in capsys.readouterr().err
    assert datalist(output) == content
    assert imported(leaking, output, allow_leak=True) == 0
    assert datalist(output)["allow_leak"] is True


def test_no_folds_are_an_external_test_set(views: list[View], output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(views[:2], output, "--folds", "0") == 0
    content = datalist(output)
    assert "num_folds" not in content
    assert all("fold" not in case for case in content["cases"])
    assert "an external test set" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "folds", "message"),
    [
        (16, "5", "--folds is 5, expected 3 to 4 (the number of patients), or 0"),
        (16, "2", "--folds is 2, expected 3 to 4"),
        (8, "10", "there are 2 patients: at least 3 are needed"),
    ],
)
def test_folds_that_cannot_be_filled_are_refused_before_the_work(
    count: int, folds: str, message: str, views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "converted", None)
    with pytest.raises(ValueError, match="--folds") as caught:
        imported(views[:count], output, "--folds", folds)
    assert message in str(caught.value)


def test_too_few_patients_after_exclusions_are_explained_with_the_exclusions(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for view in views[:4]:
        view.image.path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="expected 3 to 3"):
        imported(views, output)
    assert views[0].name in capsys.readouterr().err
    assert not (output / "datalist.json").exists()


def random_cases(seed: int) -> tuple[list[str], list[tuple[str, str]]]:
    rng = np.random.default_rng(seed)
    patients, strata = [], []
    for patient in range(int(rng.integers(12, 60))):
        sick, density = rng.random() < 0.4, "ABCD"[int(rng.integers(4))]
        for _ in range(int(rng.integers(1, 9))):
            patients.append(f"P{patient}")
            strata.append(("lesion" if sick and rng.random() < 0.7 else "none", density))
    return patients, strata


@pytest.mark.parametrize("seed", range(20))
def test_folds_split_no_patient_fill_every_fold_and_spread_the_lesions(seed: int) -> None:
    patients, strata = random_cases(seed)
    num_folds = (3, 5, 10)[seed % 3]
    folds = patient_folds(patients, strata, num_folds, seed)
    assert set(folds) == set(range(num_folds))
    assert len({(patient, fold) for patient, fold in zip(patients, folds, strict=True)}) == len(set(patients))
    assert folds == patient_folds(patients, strata, num_folds, seed)
    assert any(folds != patient_folds(patients, strata, num_folds, other) for other in range(seed + 1, seed + 4))
    sizes = Counter(folds)
    lesions = Counter(fold for fold, (kind, _) in zip(folds, strata, strict=True) if kind == "lesion")
    for counts in (sizes, lesions):  # a patient has up to 8 views: no fold is further from an equal share than that
        assert all(abs(counts[fold] - counts.total() / num_folds) <= 8 for fold in range(num_folds))


@pytest.mark.parametrize("patients", [3, 4, 7])
def test_every_fold_is_filled_even_with_as_many_folds_as_patients(patients: int) -> None:
    names = [f"P{n}" for n in range(patients) for _ in range(1 + 3 * (n == 0))]
    strata = [(name, "A") for name in names]  # too rare to be spread
    for seed in range(10):
        assert set(patient_folds(names, strata, patients, seed)) == set(range(patients))


def test_the_same_pixels_twice_in_a_patient_are_taken_once(views: list[View], output: Path) -> None:
    shutil.copy(views[0].image.path, views[1].image.path)
    assert imported(views, output) == 3
    (row,) = excluded_rows(output)
    assert (row["name"], row["reason"]) == (views[1].name, f"holds the same pixels as {views[0].name}")
    assert f"LE/{views[1].name}.png" not in content_of(output)


def test_a_repeat_is_known_to_a_later_run_and_used_when_what_it_repeats_is_gone(
    views: list[View],
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(views[0].image.path, views[1].image.path)
    assert imported(views, output) == 3
    before = content_of(output)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "converted", None)
        assert imported(views, output) == 3
    assert content_of(output) == before
    assert "earlier run" not in capsys.readouterr().out
    assert imported(views[1:], output) == 0
    assert imported(views[1:], tmp_path / "new") == 0
    assert content_of(output) == content_of(tmp_path / "new")


def test_a_published_fold_that_has_lost_its_cases_is_named(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = [replace(view, fold=int(view.patient_id[1])) for view in views]
    for view in published[12:]:
        view.image.path.write_bytes(b"broken")
    assert imported(published, output, num_folds=4) == 1
    assert "fold 3 of 4 has no case" in capsys.readouterr().err
    assert imported(published, output) == 3  # the number is not known: that of the largest fold


def test_without_folds_a_published_number_of_folds_is_dropped(views: list[View], output: Path) -> None:
    published = [replace(view, fold=int(view.patient_id[1])) for view in views]
    assert imported(published, output, "--folds", "0", num_folds=4) == 0
    assert "num_folds" not in datalist(output)


@pytest.mark.parametrize(("patients", "folds"), [(2, 0), (3, 3), (4, 4)])
def test_without_a_number_there_are_as_many_folds_as_the_patients_fill(
    patients: int, folds: int, views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [view for view in views if int(view.patient_id[1:]) < patients]
    chosen = options(output)
    chosen.folds = None
    assert import_views(few, [], chosen) == 0
    assert datalist(output).get("num_folds", 0) == folds
    assert f"too few patients for 10 folds: {folds or 'no'} folds were made" in capsys.readouterr().err
