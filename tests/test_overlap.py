"""Data sets that share patients or images are told apart from those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.overlap import overlap_problems
from bundle.preflight import FileFacts
from scripts import check_data


def write_set(folder: Path, name: str, patients: str, seed: int, **top: Any) -> Path:
    """A correct external test set with one pair a patient."""
    random = np.random.default_rng(seed)
    cases = []
    for patient in patients:
        case = {"patient_id": patient, "laterality": "L", "view": "CC", "label_window": [2048, 4096]}
        for key in ("image", "label"):
            case[key] = f"{key}/{patient}.png"
            file = folder / str(case[key])
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 4096, (20, 12)).astype(np.uint16)).save(file)
        cases.append(case)
    content = {"name": name, "synthetic": False, "cases": cases} | top
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def told(*folders: Path) -> list[tuple[str, str, str]]:
    return [(row.level, row.case, row.problem) for row in overlap_problems(folders, progress=False)]


def test_sets_of_other_patients_and_images_share_nothing(tmp_path: Path) -> None:
    assert told(write_set(tmp_path / "a", "here", "PQ", 0), write_set(tmp_path / "b", "here", "RS", 1)) == []


def test_a_patient_identifier_counts_within_one_source_and_is_doubtful_between_two(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", "here", "PQ", 0)
    same = write_set(tmp_path / "same", "here", "QR", 1)
    other = write_set(tmp_path / "other", "elsewhere", "QR", 2)
    assert told(a, same) == [("ERROR", "patient Q", f"patient Q is also in {a}")]
    assert told(a, other) == [("WARNING", "patient Q", f"a patient of the same identifier is in {a}")]


@pytest.mark.parametrize(("key", "as_key"), [("image", "image"), ("label", "label"), ("label", "image")])
def test_the_same_pixels_are_found_under_any_name_and_in_any_lossless_format(
    key: str, as_key: str, tmp_path: Path
) -> None:
    a, b = write_set(tmp_path / "a", "here", "PQ", 0), write_set(tmp_path / "b", "elsewhere", "RS", 1)
    content = json.loads((b / "datalist.json").read_text())
    content["cases"][1][as_key] = "hidden.tif"
    (b / "datalist.json").write_text(json.dumps(content))
    Image.open(a / key / "Q.png").save(b / "hidden.tif")
    assert told(a, b) == [
        ("ERROR", "#1 S L CC", f"{as_key}: the same pixels as the {key} of #1 Q L CC in {a}"),
    ]


def test_a_case_that_is_copied_as_a_whole_is_one_row(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", "here", "P", 0), write_set(tmp_path / "b", "elsewhere", "R", 0)
    assert [row[:2] for row in told(a, b)] == [("ERROR", "#0 R L CC")]


def test_an_unreadable_set_or_image_shares_nothing(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", "here", "P", 0)
    b = write_set(tmp_path / "b", "here", "R", 0)
    (b / "image/R.png").write_text("not an image")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "datalist.json").write_text('{"cases": [3, {"image": 5}]}')
    assert [row[2] for row in told(a, b, tmp_path / "c", tmp_path / "none")] == [
        f"label: the same pixels as the label of #0 P L CC in {a}"
    ]


def test_the_command_checks_each_of_several_folders_and_what_they_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = write_set(tmp_path / "a", "here", "PQ", 0), write_set(tmp_path / "b", "elsewhere", "RS", 1)
    assert check_data.main([str(a), str(b), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shared = "shared by several of them: No problem found."
    assert lines == [f"{a}: No problem found.", f"{b}: No problem found.", shared]
    c = write_set(tmp_path / "c", "other", "Q", 0)
    assert check_data.main([str(a), str(b), str(c), "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "1 errors, 1 warnings" in printed
    assert f"the same pixels as the image of #0 P L CC in {a}" in printed
    assert check_data.main([str(a), str(write_set(tmp_path / "d", "other", "Q", 5)), "--quiet"]) == 0
    (b / "image/R.png").unlink()
    assert check_data.main([str(a), str(b), "--quiet"]) == 1


def test_files_that_were_checked_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write_set(tmp_path / "a", "here", "PQ", 0), write_set(tmp_path / "b", "here", "QR", 1)
    known: FileFacts = {}
    first = overlap_problems([a, b], progress=False, known=known)
    assert len(known) == 8
    monkeypatch.setattr("bundle.image_facts.image_facts", None)
    assert overlap_problems([a, b], progress=False, known=known) == first
