from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts import prepare_data
from scripts.prepare import pipeline, workers
from scripts.prepare.conversion import Case, Settings, converted
from scripts.prepare.sources import FileImage
from scripts.prepare.view import View
from tests.archives.dataset import content_of, imported, options
from tests.archives.pairs import breast, write, write_views


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    return write_views(tmp_path / "archive")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "data"


def names_of_prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list to which every view is added when it is prepared."""
    names: list[str] = []

    def noted(view: View, settings: Settings) -> tuple[Case, float]:
        names.append(view.name)
        return converted(view, settings)

    monkeypatch.setattr(workers, "converted", noted)
    return names


def test_a_second_run_prepares_nothing_and_changes_no_byte(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(views, output) == 0
    before = content_of(output)
    monkeypatch.setattr(workers, "converted", None)
    assert imported(views, output) == 0
    assert content_of(output) == before
    assert "16 pairs were prepared before" in capsys.readouterr().out


def test_only_what_has_changed_is_prepared_again(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert imported(views, output) == 0
    before = content_of(output)
    prepared = names_of_prepared(monkeypatch)
    write(views[3].image.path, breast(99, views[3].laterality)[0])
    (output / "DES" / f"{views[5].name}.png").unlink()
    (output / "LE" / f"{views[7].name}.png").write_bytes(b"cut off")
    (output / ".prepared" / f"{views[9].name}.json").write_text("{")
    changed = [*views[:-1], replace(views[-1], info={"density": "D"})]
    assert imported(changed, output) == 0
    assert prepared == [views[index].name for index in (3, 5, 7, 9, 15)]
    after = content_of(output)
    assert before.keys() == after.keys()
    differing = {name for name in before if before[name] != after[name] and name.endswith("png")}
    assert differing == {f"LE/{views[3].name}.png"}
    assert imported(changed, output, "--size", "40") == 0
    assert len(prepared) == 5 + 16


def test_an_interrupted_run_goes_on(
    views: list[View], output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(view: View, settings: Settings) -> tuple[Case, float]:
        if view.name == views[6].name:
            raise KeyboardInterrupt
        return converted(view, settings)

    with monkeypatch.context() as patch:
        patch.setattr(workers, "converted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            imported(views, output)
    assert not (output / "datalist.json").exists()
    (output / "LE" / f".{views[0].name}.4711.png").write_bytes(b"cut off while it was written")
    prepared = names_of_prepared(monkeypatch)
    assert imported(views, output) == 0
    assert prepared == [view.name for view in views[6:]]
    assert imported(views, tmp_path / "at once") == 0
    assert content_of(output) == content_of(tmp_path / "at once")


def test_a_run_that_was_killed_while_writing_goes_on(
    views: list[View], output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _mask: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(workers, "write_mask", full)
        with pytest.raises(OSError, match="No space left"):  # not the fault of a case: nothing is left out for it
            imported(views, output)
    assert (output / "LE" / f"{views[0].name}.png").exists()
    assert imported(views, output) == 0
    assert imported(views, tmp_path / "at once") == 0
    assert content_of(output) == content_of(tmp_path / "at once")


def test_an_interrupt_ends_the_command_without_a_traceback(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "converted", interrupt)
    folder = views[0].image.path.parents[1]
    words = ["pairs", "--image-dir", f"{folder}/low", "--label-dir", f"{folder}/subtracted", "--output", str(output)]
    words += ["--pattern", r"(?P<patient>P\d)_(?P<laterality>.)_(?P<view>.+)", "--quiet", "--folds", "3"]
    assert prepare_data.main([*words, "--workers", "1"]) == 130
    assert "goes on from here" in capsys.readouterr().err


def test_files_of_cases_that_are_gone_are_removed_and_those_of_others_are_not(
    views: list[View], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(views, output) == 0
    (output / "LE" / "mine.png").write_text("mine")
    (output / "notes.txt").write_text("mine")
    fewer = [replace(views[3], mask=None), *views[4:]]
    assert imported(fewer, output, "--folds", "3") == 0
    left = content_of(output)
    assert not any("P0_L" in name or "P0_R_CC" in name for name in left)
    assert f"mask/{views[3].name}.png" not in left
    assert f"LE/{views[3].name}.png" in left
    assert left["LE/mine.png"] == left["notes.txt"] == b"mine"
    assert "3 cases of an earlier run were removed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["LE/P0_L_CC.png", "label_mask/P1_L_CC.png", "datalist.json", "cases.csv"])
def test_files_of_others_are_never_overwritten(name: str, views: list[View], output: Path) -> None:
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("mine")
    with pytest.raises(ValueError, match="did not write") as caught:
        imported(views, output)
    assert name in str(caught.value)
    assert content_of(output) == {name: b"mine"}


def test_sources_in_the_output_folder_are_never_overwritten(views: list[View], output: Path) -> None:
    moved = []
    for view in views:
        for part, source in (("LE", view.image), ("DES", view.label)):
            (output / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(source.path, output / part)
        image, label = (FileImage(output / part / f"{view.name}.png") for part in ("LE", "DES"))
        moved.append(replace(view, image=image, label=label, mask=None))
    in_place = options(output)
    in_place.size = None
    assert pipeline.import_views(moved, [], in_place) == 0
    before = content_of(output)
    with pytest.raises(ValueError, match=r"LE/P0_L_CC\.png"):
        imported(moved, output)
    assert content_of(output) == before
