"""Data sets that share patients or images are told apart from those that do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bundle.overlap import overlap_problems
from bundle.preflight import FileFacts
from scripts import check_data
from scripts.prepare.pseudonyms import Pseudonyms

PSEUDONYM = "P-ABCDEFG234"


def write_set(folder: Path, name: str, patients: Sequence[str], seed: int, **top: Any) -> Path:
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


def test_an_image_is_known_again_through_a_link_to_a_file_without_suffix(tmp_path: Path) -> None:
    a, b = (write_set(tmp_path / name, name, patient, seed) for name, patient, seed in (("a", "P", 0), ("b", "Q", 1)))
    link = b / "image" / "Q.png"
    link.unlink()
    blob = (a / "image" / "P.png").rename(tmp_path / "0f3a")  # as data version control stores files
    for place in (a / "image" / "P.png", link):
        place.symlink_to(blob)
    assert told(a, b) == [
        ("ERROR", "#0 Q L CC", f"image: the same pixels as the image of #0 P L CC in {a}"),
    ]


def test_a_patient_identifier_counts_within_one_source_and_is_doubtful_between_two(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", "here", "PQ", 0)
    same = write_set(tmp_path / "same", "here", "QR", 1)
    other = write_set(tmp_path / "other", "elsewhere", "QR", 2)
    assert told(a, same) == [("ERROR", "patient Q", f"patient Q is also in {a}")]
    assert told(a, other) == [("WARNING", "patient Q", f"a patient of the same identifier is in {a}")]


@pytest.mark.parametrize("name", ["here", "elsewhere"])
def test_the_same_pseudonym_is_the_same_patient_whatever_the_sets_are_called(name: str, tmp_path: Path) -> None:
    pseudonym = Pseudonyms(bytes(16)).patient("4711")
    a = write_set(tmp_path / "a", "here", ["P", pseudonym], 0)
    b = write_set(tmp_path / "b", name, [pseudonym, "R"], 1)
    assert told(a, b) == [("ERROR", f"patient {pseudonym}", f"patient {pseudonym} is also in {a}")]


@pytest.mark.parametrize(
    "patient", [PSEUDONYM[:-1], f"{PSEUDONYM}A", PSEUDONYM.lower(), f"X{PSEUDONYM}", "P-ABCDEFG018"]
)
def test_what_only_resembles_a_pseudonym_may_be_chance(patient: str, tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", "here", [patient], 0), write_set(tmp_path / "b", "elsewhere", [patient], 1)
    assert [row[0] for row in told(a, b)] == ["WARNING"]


def write_sources(folder: Path, rows: dict[str, tuple[str, str]]) -> Path:
    """The ``cases.csv`` of prepare_data.py: digests of LE and DES by patient."""
    columns = ("name", "patient_id", "laterality", "view", "image_digest", "label_digest")
    table = [(f"{patient}_L_CC", patient, "L", "CC", *digests) for patient, digests in rows.items()]
    pd.DataFrame(table, columns=list(columns)).to_csv(folder / "cases.csv", index=False)
    return folder


def test_an_image_that_was_resized_is_recognised_by_the_digests_of_its_source(tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", "here", "PQ", 0), write_set(tmp_path / "b", "elsewhere", "RS", 1)
    write_sources(a, {"P": ("1", "2"), "Q": ("3", "4")})
    assert told(a, b) == []
    write_sources(b, {"R": ("5", "6"), "S": ("4", "3")})
    problem = f"image: made from the same image as the label of Q_L_CC in {a}"
    assert told(a, b) == [("ERROR", "S_L_CC", problem)]
    write_sources(b, {"R": ("5", "6"), "S": ("7", "8"), "T": ("1", "2")})
    assert told(a, b) == [], "T was taken out of the datalist"


def test_a_case_with_the_same_pixels_and_the_same_source_is_one_row(tmp_path: Path) -> None:
    a = write_sources(write_set(tmp_path / "a", "here", "P", 0), {"P": ("1", "2")})
    b = write_sources(write_set(tmp_path / "b", "elsewhere", "R", 0), {"R": ("1", "2")})
    assert [row[:2] for row in told(a, b)] == [("ERROR", "#0 R L CC")]


@pytest.mark.parametrize("content", [b"", b"predictor,psnr\nmodel,20\n", b"\xff\xfe", b"image_digest\n1\n"])
def test_a_table_of_another_kind_beside_the_datalist_is_no_obstacle(content: bytes, tmp_path: Path) -> None:
    a, b = write_set(tmp_path / "a", "here", "P", 0), write_set(tmp_path / "b", "elsewhere", "R", 1)
    for folder in (a, b):
        (folder / "cases.csv").write_bytes(content)
    assert told(a, b) == []


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


def test_a_folder_that_is_given_twice_is_checked_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = write_set(tmp_path / "a", "here", "PQ", 0)
    (tmp_path / "link").symlink_to(a)
    monkeypatch.chdir(tmp_path)
    assert check_data.main([str(a), "a", "a/", "link", "a/datalist.json", "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines() == ["No problem found."]


def test_a_data_set_is_not_external_to_itself(tmp_path: Path) -> None:
    a = write_set(tmp_path / "a", "here", "PQ", 0)
    (tmp_path / "link").symlink_to(a)
    assert told(a, tmp_path / "link") == [("ERROR", "-", f"the same data set as {a}")]


def test_files_that_were_checked_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write_set(tmp_path / "a", "here", "PQ", 0), write_set(tmp_path / "b", "here", "QR", 1)
    known: FileFacts = {}
    first = overlap_problems([a, b], progress=False, known=known)
    assert len(known) == 8
    monkeypatch.setattr("bundle.image_facts.image_facts", None)
    assert overlap_problems([a, b], progress=False, known=known) == first
