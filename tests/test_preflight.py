from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bundle import facts_cache
from bundle.facts_cache import FactsCache
from bundle.image_facts import image_facts
from bundle.preflight import Problem, check_cases, check_datalist, format_table
from scripts import check_data

Case = dict[str, Any]
RANDOM = np.random.default_rng(0)


def save(folder: Path, name: str, pixels: NDArray[Any]) -> str:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return name


def grey(width: int = 20, height: int = 30) -> NDArray[np.uint16]:
    return RANDOM.integers(0, 4096, (height, width)).astype(np.uint16)


def spot(width: int = 20, height: int = 30) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[5:9, 5:9] = 255
    return mask


def good_case(folder: Path, number: int) -> Case:
    return {
        "image": save(folder, f"LE/{number}.png", grey()),
        "label": save(folder, f"DES/{number}.png", grey()),
        "mask": save(folder, f"mask/{number}.png", spot()),
        "patient_id": f"P{number}",
        "laterality": "L",
        "view": "CC",
        "fold": number % 3,
        "image_window": [2048, 4096],
        "label_window": [2048, 4096.0],
        "info": {"birads": 5},
    }


def write(folder: Path, cases: list[Any], **top: Any) -> Path:
    content = {"name": "test", "synthetic": False, "num_folds": 3, "cases": cases} | top
    (folder / "datalist.json").write_text(
        json.dumps({key: value for key, value in content.items() if value is not ...})
    )
    return folder


def said(problems: list[Problem], level: str = "ERROR") -> list[str]:
    return [problem.problem for problem in problems if problem.level == level]


def test_correct_data_have_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [good_case(tmp_path, number) for number in range(6)])
    assert check_datalist(tmp_path) == []
    assert check_data.main([str(tmp_path), "--quiet"]) == 0
    assert "No problem" in capsys.readouterr().out


def test_absolute_paths_and_paths_outside_the_folder_are_fine(tmp_path: Path) -> None:
    cases = [good_case(tmp_path / "elsewhere", number) for number in range(3)]
    for case in cases:
        case["image"] = str(tmp_path / "elsewhere" / case["image"])
        case["label"], case["mask"] = (f"../elsewhere/{case[key]}" for key in ("label", "mask"))
    (tmp_path / "data").mkdir()
    assert check_datalist(write(tmp_path / "data", cases)) == []


# What is done to a correct case, and a part of the row it must cause.
Spoil = Callable[[Path, Case], Any]


def pixels(key: str, make: Callable[[], NDArray[Any]], suffix: str = ".png") -> Spoil:
    def spoil(folder: Path, case: Case) -> None:
        case[key] = save(folder, f"bad/{case['patient_id']}_{key}{suffix}", make())

    return spoil


def content(key: str, name: str, data: bytes) -> Spoil:
    def spoil(folder: Path, case: Case) -> None:
        case[key] = f"{case['patient_id']}_{name}"
        (folder / case[key]).write_bytes(data)

    return spoil


def truncate(folder: Path, case: Case) -> None:
    file = folder / case["label"]
    file.write_bytes(file.read_bytes()[:200])


def set_values(**values: Any) -> Spoil:
    return lambda _, case: case.update(values)


BAD: dict[str, tuple[Spoil, str]] = {
    "missing file": (set_values(image="LE/none.png"), "image: no such file"),
    "truncated": (truncate, "label: cannot be decoded"),
    "not an image": (content("image", "x.png", b"hello"), "image: cannot be decoded"),
    "unknown format": (content("image", "x.txt", b"hello"), "image: unknown suffix '.txt'"),
    "sizes": (pixels("label", lambda: grey(21)), "different sizes: image 20x30, label 21x30"),
    "mask size": (pixels("mask", lambda: spot(19)), "different sizes: image 20x30, mask 19x30"),
    "label mask size": (pixels("label_mask", lambda: spot(20, 29)), "different sizes: label 20x30, label_mask 20x29"),
    "nan": (
        pixels("label", lambda: np.where(grey() > 4000, np.nan, 1).astype(np.float32), ".tif"),
        "label: holds NaN or infinite",
    ),
    "infinite": (
        pixels("image", lambda: np.where(grey() > 4000, np.inf, 1).astype(np.float32), ".tif"),
        "image: holds NaN or infinite",
    ),
    "constant": (pixels("image", lambda: np.full((30, 20), 7, np.uint8)), "image: every pixel is 7"),
    "non-binary mask": (pixels("mask", lambda: grey().astype(np.uint8)), "mask: not binary"),
    "colour": (pixels("label", lambda: RANDOM.integers(0, 99, (30, 20, 3)).astype(np.uint8)), "a colour image"),
    "one pixel": (pixels("image", lambda: grey(1, 1)), "image: 1x1 pixels, expected at least 8"),
    "same file": (lambda _, case: case.update(label=case["image"]), "same file serves as image and as label"),
    "copied image": (
        lambda folder, case: (folder / case["label"]).write_bytes((folder / case["image"]).read_bytes()),
        "image and label hold the same pixels",
    ),
    "unknown key": (set_values(lateralty="L"), "unknown key `lateralty`"),
    "missing key": (lambda _, case: case.pop("view"), "key `view` is missing"),
    "wrong type": (set_values(patient_id=7), "`patient_id` is 7, expected a text"),
    "empty text": (set_values(view=" "), "`view` is"),
    "laterality": (set_values(laterality="left"), '`laterality` is "left", expected "L" or "R"'),
    "negative fold": (set_values(fold=-1), "`fold` is -1"),
    "fraction of a fold": (set_values(fold=1.5), "`fold` is 1.5"),
    "fold too large": (set_values(fold=3), "fold is 3, expected 0 to 2"),
    "window width": (set_values(image_window=[100, 0]), "`image_window` is [100, 0]"),
    "window type": (set_values(label_window="wide"), '`label_window` is "wide"'),
    "window beside the data": (set_values(label_window=[90000, 10]), "leaves nothing of the pixel values"),
    "path type": (set_values(mask=5), "`mask` is 5, expected the path of a file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_of_bad_case_is_reported_alone(kind: str, tmp_path: Path) -> None:
    cases = [good_case(tmp_path, number) for number in range(6)]
    spoil, expected = BAD[kind]
    spoil(tmp_path, cases[4])
    problems = check_datalist(write(tmp_path, cases))
    assert len(said(problems)) == 1, format_table(problems)
    assert expected in said(problems)[0]
    assert all(problem.case.startswith("#4 ") and problem.file and problem.remedy for problem in problems)


def test_one_table_names_every_kind_of_bad_data_in_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases: list[Any] = []
    for number, (spoil, _) in enumerate(BAD.values()):
        cases.append(good_case(tmp_path, number))
        spoil(tmp_path, cases[-1])
    cases += [{**good_case(tmp_path, 50), "patient_id": "P0"}, dict(good_case(tmp_path, 50)), "not a case"]
    cases[-3]["fold"] = 1  # P0 in two folds, and one case listed twice
    status = check_data.main([str(write(tmp_path, cases, num_folds=7, typo=1)), "--quiet"])
    table = capsys.readouterr().out
    assert status == 1
    rows = table.splitlines()
    missing = [
        kind
        for number, (kind, (_, expected)) in enumerate(BAD.items())
        if "fold too large" not in kind and not any(f"#{number} " in row and expected in row for row in rows)
    ]
    assert missing == []
    for expected in (
        "unknown key `typo`",
        "patient P0 is in folds 0, 1",
        "the file is also that of",
        "is a str, expected an object",
        "fold 6 of 7 has no case",
    ):
        assert expected in table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "no such file"),
        ("{", "not readable as JSON"),
        ("[]", "holds a list, expected an object"),
        ('{"cases": {}, "name": "a", "synthetic": true, "num_folds": 3}', "`cases` is {}, expected a list"),
        ('{"cases": [], "name": "a", "synthetic": true, "num_folds": 3}', "expected a list with at least one case"),
    ],
)
def test_a_broken_datalist_is_one_row(text: str | None, expected: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "datalist.json").write_text(text)
    problems = said(check_datalist(tmp_path))
    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ({"num_folds": 2}, "`num_folds` is 2, expected a whole number >= 3"),
        ({"num_folds": "ten"}, '`num_folds` is "ten"'),
        ({"num_folds": ...}, "key `num_folds` is missing"),
        ({"synthetic": "no"}, "`synthetic` is"),
        ({"num_fold": 3}, "unknown key `num_fold`"),
        ({"num_folds": 4}, "fold 3 of 4 has no case"),
        ({"allow_leak": "yes"}, '`allow_leak` is "yes", expected true or false'),
    ],
)
def test_wrong_entries_at_the_top_are_named(top: dict[str, Any], expected: str, tmp_path: Path) -> None:
    problems = check_datalist(write(tmp_path, [good_case(tmp_path, number) for number in range(6)], **top))
    assert any(expected in problem for problem in said(problems)), format_table(problems)


def test_a_draft_of_the_datalist_is_called_as_it_will_be(tmp_path: Path) -> None:
    folder = write(tmp_path, [good_case(tmp_path, number) for number in range(6)], num_folds=2)
    draft = (folder / "datalist.json").rename(tmp_path / ".datalist.json.123.draft")
    assert {row.file for row in check_datalist(draft)} == {"datalist.json"}


def test_a_misspelt_key_comes_with_a_suggestion(tmp_path: Path) -> None:
    case = good_case(tmp_path, 0)
    case["pateint_id"] = case.pop("patient_id")
    problems = check_cases([case], tmp_path, 1)
    assert [row.remedy for row in problems if "unknown" in row.problem] == ["Did you mean `patient_id`?"]


def test_the_same_pixels_in_two_folds_are_a_leak(tmp_path: Path) -> None:
    cases = [good_case(tmp_path, number) for number in range(6)]
    (tmp_path / cases[1]["image"]).write_bytes((tmp_path / cases[0]["image"]).read_bytes())
    (tmp_path / cases[5]["label"]).write_bytes((tmp_path / cases[2]["label"]).read_bytes())
    problems = check_datalist(write(tmp_path, cases))
    assert said(problems) == ["image: the same pixels as #0 P0 L CC, in another fold"]
    assert said(problems, "WARNING") == ["label: the same pixels as #2 P2 L CC"]


def leaking(folder: Path) -> list[Case]:
    """Two patients in two folds each, and one image in two folds under two names."""
    cases = [good_case(folder, number) for number in range(6)]
    cases[1]["patient_id"], cases[4]["patient_id"] = "P0", "P3"
    (folder / cases[5]["image"]).write_bytes((folder / cases[0]["image"]).read_bytes())
    return cases


def test_leaks_that_are_allowed_are_warnings_that_share_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = leaking(tmp_path)
    assert len(said(check_datalist(write(tmp_path, cases)))) == 3
    assert len(said(check_datalist(write(tmp_path, cases, allow_leak=False)))) == 3
    problems = check_datalist(write(tmp_path, cases, allow_leak=True))
    pixels = "image: the same pixels as #0 P0 L CC, in another fold"
    assert said(problems) == []
    assert said(problems, "WARNING") == ["the patient is in folds 0, 1"] * 2 + [pixels]
    assert check_data.main([str(tmp_path)]) == 0
    assert "patient P0 and 1 more" in capsys.readouterr().out


def test_allowed_leaks_do_not_allow_one_file_in_two_folds(tmp_path: Path) -> None:
    cases = [good_case(tmp_path, number) for number in range(6)]
    cases[1]["label"] = cases[0]["label"]
    problems = said(check_datalist(write(tmp_path, cases, allow_leak=True)))
    assert problems == ["label: the file is also that of #0 P0 L CC"]


def test_cases_without_folds_are_an_external_test_set(tmp_path: Path) -> None:
    cases = [{key: value for key, value in good_case(tmp_path, i).items() if key != "fold"} for i in range(2)]
    assert check_datalist(write(tmp_path, cases, num_folds=...)) == []
    assert check_cases(cases, tmp_path) == []


def test_folds_of_some_cases_only_are_an_error_that_offers_both_remedies(tmp_path: Path) -> None:
    cases = [good_case(tmp_path, number) for number in range(6)]
    del cases[4]["fold"]
    problems = check_datalist(write(tmp_path, cases))
    assert said(problems) == ["key `fold` is missing"]
    assert problems[0].remedy.startswith("Add `fold`: a whole number >= 0; or leave out `num_folds` and every `fold`")
    assert said(check_datalist(write(tmp_path, cases, num_folds=...))) == [
        "key `num_folds` is missing",
        "key `fold` is missing",
    ]
    cases = [{key: value for key, value in case.items() if key != "fold"} for case in cases]
    assert said(check_datalist(write(tmp_path, cases))).count("key `fold` is missing") == 6


def test_warnings_do_not_fail_and_share_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [good_case(tmp_path, number) for number in range(6)]
    for case in cases:
        del case["label_window"]
    save(tmp_path, cases[3]["mask"], spot() * 0)
    save(tmp_path, cases[4]["mask"], spot() * 0 + 255)
    del cases[5]["mask"]
    assert check_data.main([str(write(tmp_path, cases))]) == 0
    table = capsys.readouterr().out
    assert "#0 P0 L CC and 5 more" in table
    assert "0 errors, 8 warnings" in table
    assert len(table.splitlines()) == 2 + 3 + 1
    check_data.main([str(tmp_path), "--every-warning"])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 8 + 1


def test_a_breast_at_the_wrong_edge_is_a_warning(tmp_path: Path) -> None:
    cases = [good_case(tmp_path, number) for number in range(6)]
    ramp = np.tile(np.linspace(0, 4000, 20).astype(np.uint16), (30, 1))
    save(tmp_path, cases[0]["image"], ramp)
    save(tmp_path, cases[1]["image"], ramp[:, ::-1].copy() + 5)
    warnings = said(check_datalist(write(tmp_path, cases)), "WARNING")
    assert warnings == ["the breast lies at the right edge, expected the other one for laterality L"]


def test_every_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [good_case(tmp_path, number) for number in range(6)]
    for case in cases:
        case["label_mask"] = case["mask"]
    read: list[Path] = []

    def counted(path: Path) -> Any:
        read.append(path)
        return image_facts(path)

    monkeypatch.setattr("bundle.image_facts.image_facts", counted)
    assert check_datalist(write(tmp_path, cases)) == []
    assert len(read) == len(set(read)) == 18


# ------------------------------------------------------------------------------------------------ what is kept
@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read from now on; facts are kept in the test's own folder, and at once."""
    names: list[str] = []

    def noted(path: Path) -> Any:
        names.append(path.relative_to(path.parents[1]).as_posix())
        return image_facts(path)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(facts_cache, "SETTLED", 0.0)
    monkeypatch.setattr("bundle.image_facts.image_facts", noted)
    return names


def three_cases(folder: Path) -> Path:
    return write(folder, [good_case(folder, number) for number in range(3)])


def test_files_that_have_not_changed_are_not_read_again(tmp_path: Path, read: list[str]) -> None:
    folder = three_cases(tmp_path)
    (folder / "LE" / "1.png").write_bytes(b"no image")
    first = check_datalist(folder)
    assert len(read) == 9
    read.clear()
    assert check_datalist(folder) == first
    assert read == ["LE/1.png"]  # what cannot be read is tried again


@pytest.mark.parametrize("restore", [False, True])
def test_a_changed_file_is_read_again_even_if_its_time_was_set_back(
    tmp_path: Path, read: list[str], restore: bool
) -> None:
    folder = three_cases(tmp_path)
    check_datalist(folder)
    file = folder / "mask" / "2.png"
    before, content = file.stat(), file.read_bytes()
    with file.open("r+b") as stream:  # the same file, as long as before
        stream.write(bytes(len(content)))
    if restore:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    read.clear()
    assert any("mask: cannot be decoded" in problem for problem in said(check_datalist(folder)))
    assert read == ["mask/2.png"]


def test_a_file_that_was_changed_just_now_is_not_trusted(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_cache, "SETTLED", 3600.0)
    folder = three_cases(tmp_path)
    for _ in range(2):
        assert check_datalist(folder) == []
    assert len(read) == 18


@pytest.mark.parametrize("damage", ["text", "program", "entries", "values"])
def test_a_damaged_cache_is_not_used_and_written_anew(tmp_path: Path, read: list[str], damage: str) -> None:
    folder = three_cases(tmp_path)
    check_datalist(folder)
    file = FactsCache(folder).file
    content = json.loads(file.read_text())
    if damage == "values":
        content["files"] = {key: [state, [*values[:-1], 5]] for key, (state, values) in content["files"].items()}
    changed = {"text": "", "program": content | {"program": "another"}, "entries": content | {"files": [1]}}
    file.write_text(json.dumps(changed.get(damage, content)) if damage != "text" else "{")
    read.clear()
    assert check_datalist(folder) == []
    assert len(read) == 9
    assert check_datalist(folder) == []
    assert len(read) == 9


def test_no_name_of_a_file_is_kept_and_the_data_folder_is_left_alone(tmp_path: Path, read: list[str]) -> None:
    folder = three_cases(tmp_path)
    before = sorted(folder.rglob("*"))
    check_datalist(folder)
    text = FactsCache(folder).file.read_text()
    assert not any(word in text for word in (".png", "mask", "P0", str(folder)))
    assert sorted(path for path in folder.rglob("*") if "cache" not in path.parts) == before
    assert len(read) == 9


def test_without_a_place_to_keep_facts_the_check_is_as_ever(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = three_cases(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    for _ in range(2):
        assert check_datalist(folder) == []
    assert len(read) == 18


def test_real_pairs_with_lesion_masks_pass(shared_data: Path) -> None:
    root = shared_data / "cdd-cesm-512"
    cases = []
    for number, file in enumerate(sorted((root / "LE").glob("P1*_CC.jpg"))[:12]):
        patient, side, view = file.stem.split("_")
        paths = {"image": file, "label": root / "DES" / file.name, "mask": root / "mask_LE" / f"{file.stem}.png"}
        case: Case = {key: str(path) for key, path in paths.items()} | {"patient_id": f"{patient}_{number}"}
        cases.append(case | {"laterality": side, "view": view, "fold": number % 3, "label_window": [127.5, 255]})
    assert len(cases) == 12
    problems = check_cases(cases)
    assert problems == [], format_table(problems)
