from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from scripts import prepare_data
from scripts.prepare import pipeline, records, workers
from scripts.prepare.conversion import Case, RefusedError, Settings, converted
from scripts.prepare.sources import FileImage
from scripts.prepare.view import LeftOut, View
from tests.archives.dataset import content_of, imported, options
from tests.archives.pairs import breast, write


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
    (output / ".data_card.4711.html").write_bytes(b"cut off while it was written")
    (output / "..datalist.json.4711.4711.draft").write_bytes(b"cut off while it was written")
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
        # not the fault of a case: nothing is left out for it
        with pytest.raises(OSError, match=r"mask/P0_L_CC\.png.*No space left.*the same command goes on from here"):
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
    (output / "DES" / f".{views[0].name}.4711.png").write_bytes(b"cut off while it was written")
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


def moved_into(output: Path, views: list[View], suffix: str = ".png") -> list[View]:
    """The views without masks, their images copied into the folders that a dataset would have."""
    moved = []
    for view in views:
        parts = {"LE": view.image, "DES": view.label}
        for part, source in parts.items():
            (output / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(source.path, output / part / f"{view.name}{suffix}")
        image, label = (FileImage(output / part / f"{view.name}{suffix}") for part in parts)
        moved.append(replace(view, image=image, label=label, mask=None))
    return moved


def in_place(views: list[View], output: Path) -> int:
    given = options(output)
    given.size = None
    return pipeline.import_views(views, [], given)


def test_sources_in_the_output_folder_are_never_overwritten(views: list[View], output: Path) -> None:
    moved = moved_into(output, views)
    assert in_place(moved, output) == 0
    before = content_of(output)
    with pytest.raises(ValueError, match=r"LE/P0_L_CC\.png"):
        imported(moved, output)
    assert content_of(output) == before


def test_images_of_other_formats_in_the_folders_that_would_be_filled_are_refused(
    views: list[View], output: Path
) -> None:
    moved = moved_into(output, views, ".bmp.tif")
    before = content_of(output)
    with pytest.raises(ValueError, match=r"lie where it would write.*LE/P0_L_CC\.bmp\.tif"):
        imported(moved, output)
    assert content_of(output) == before
    assert in_place(moved, output) == 0


@pytest.mark.parametrize("linked", [False, True])
def test_images_that_the_command_wrote_are_not_taken_as_sources_that_stay_in_their_own_folder(
    linked: bool, views: list[View], output: Path, tmp_path: Path
) -> None:
    assert imported(views, output) == 0
    before = content_of(output)
    folder = tmp_path / "links" if linked else output
    if linked:
        folder.symlink_to(output)
    own = [
        replace(view, image=FileImage(folder / f"LE/{view.name}.png"), label=FileImage(folder / f"DES/{view.name}.png"))
        for view in views
    ]
    with pytest.raises(ValueError, match="that this command itself wrote"):
        in_place(own, output)
    with pytest.raises(ValueError, match="that this command itself wrote"):  # also where other cases would be removed
        in_place([replace(view, name=f"other {view.name}") for view in own], output)
    assert content_of(output) == before


def test_a_damaged_record_never_lets_a_file_be_removed(views: list[View], output: Path) -> None:
    moved = moved_into(output, views)
    assert in_place(moved, output) == 0
    before = content_of(output)
    for number, text in enumerate(("{", "[]", "{}", '{"files": 3}')):
        (output / ".prepared" / f"{views[number].name}.json").write_text(text)
    assert in_place(moved, output) == 0
    assert content_of(output) == before
    (output / ".prepared" / f"{views[0].name}.json").write_text("{")
    assert in_place(moved[1:], output) == 0
    after = content_of(output)
    assert {name for name in before if name.endswith("png")} == {name for name in after if name.endswith("png")}


def test_two_commands_never_fill_one_folder(views: list[View], output: Path) -> None:
    (output / ".prepared").mkdir(parents=True)
    with FileLock(output / ".prepared" / ".lock"), pytest.raises(ValueError, match="another prepare_data is filling"):
        imported(views, output)
    assert not (output / "datalist.json").exists()
    assert imported(views, output) == 0


def test_a_refused_command_does_not_make_the_files_of_others_its_own(views: list[View], output: Path) -> None:
    output.mkdir()
    (output / "datalist.json").write_text("mine")
    for _ in range(2):
        with pytest.raises(ValueError, match="did not write"):
            imported(views, output)
    assert content_of(output) == {"datalist.json": b"mine"}


@pytest.mark.parametrize("named", [True, False])
def test_a_changed_data_file_of_a_header_counts_as_changed(named: bool, views: list[View], tmp_path: Path) -> None:
    header, data = tmp_path / "P0.mhd", tmp_path / ("values.bin" if named else "P0.raw")
    data.write_bytes(b"1")
    header.write_text(f"NDims = 2\nElementDataFile = {data.name if named else 'LOCAL'}\n")
    view, settings = replace(views[0], image=FileImage(header)), Settings(tmp_path / "data")
    before = records.fingerprint(view, settings)
    assert records.fingerprint(view, settings) == before
    data.write_bytes(b"22")
    assert records.fingerprint(view, settings) != before


def test_a_file_that_changes_while_it_is_read_is_prepared_again(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def still_copied(view: View, settings: Settings) -> tuple[Case, float]:
        result = converted(view, settings)
        if view.name == views[2].name:
            write(view.image.path, breast(99, view.laterality)[0])
        return result

    with monkeypatch.context() as patch:
        patch.setattr(workers, "converted", still_copied)
        assert imported(views, output) == 0
    prepared = names_of_prepared(monkeypatch)
    assert imported(views, output) == 0
    assert prepared == [views[2].name]


def test_what_was_refused_is_not_tried_again_before_it_changes(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(views, output) == 0
    views[2].label.path.write_bytes(b"broken")
    beside = replace(views[5], image=replace(views[5].image, window=(60000.0, 10.0)))  # type: ignore[type-var]
    changed = [*views[:5], beside, *views[6:]]
    assert imported(changed, output) == 3
    before = content_of(output)
    assert not any(f"/{view.name}.png" in name for name in before for view in (views[2], views[5]))
    prepared = names_of_prepared(monkeypatch)
    assert imported(changed, output) == 3
    assert content_of(output) == before
    assert prepared == []
    assert "were removed" not in capsys.readouterr().out
    write(views[2].label.path, breast(2, views[2].laterality)[1])
    assert imported(changed, output) == 3
    assert prepared == [views[2].name]
    assert imported(views, output) == 0
    assert prepared == [views[2].name, views[5].name]


def test_a_refusal_for_want_of_permission_or_memory_is_tried_again(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(view: View, settings: Settings) -> tuple[Case, float]:
        if view.name == views[3].name:
            raise RefusedError(LeftOut(view.name, "a", "LE: MemoryError: ", "Export it again"))
        return converted(view, settings)

    views[2].label.path.write_bytes(b"broken")
    with monkeypatch.context() as patch:
        patch.setattr(workers, "converted", no_memory)
        assert imported(views, output) == 3
    prepared = names_of_prepared(monkeypatch)
    views[2].label.path.chmod(0o600)
    assert imported(views, output) == 3
    assert prepared == [views[2].name, views[3].name]


def test_a_newer_program_tries_again_what_an_older_one_refused(
    views: list[View], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views[2].label.path.write_bytes(b"broken")
    assert imported(views, output) == 3
    prepared = names_of_prepared(monkeypatch)
    monkeypatch.setattr(records, "_program", lambda: "newer")
    assert imported(views, output) == 3
    assert prepared == [views[2].name]
