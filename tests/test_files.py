from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.files import atomic_path, json_text, remove_unfinished, write_text


def test_the_file_appears_complete_under_its_name_with_parents_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "table.csv"
    with atomic_path(path) as unfinished:
        unfinished.write_text("1,2")
        assert (unfinished.parent, unfinished.suffix) == (path.parent, ".csv")
        assert not path.exists()
    assert path.read_text() == "1,2"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = write_text(tmp_path / "file.txt", "old")

    def write_half() -> None:
        with atomic_path(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> Path:
        calls.append("replace")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_text(tmp_path / "file.txt", "text")
    assert calls == ["fsync", "replace"]


def test_a_body_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = write_text(tmp_path / "file.txt", "old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_nan_and_infinity_become_null() -> None:
    assert json.loads(json_text({"a": math.nan, "b": [math.inf, 1.5], 3: Path("x")})) == {
        "a": None,
        "b": [None, 1.5],
        "3": "x",
    }


def test_files_are_written_without_torch() -> None:
    code = "import sys, bundle.files; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_what_killed_processes_left_of_a_file_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a[1].123.dcm", ".a[1].77.dcm", "a[1].dcm", ".a[1].x.dcm", ".a[1].b.9.dcm", ".b.123.dcm"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "a[1].dcm")
    assert {path.name for path in tmp_path.iterdir()} == {"a[1].dcm", ".a[1].x.dcm", ".a[1].b.9.dcm", ".b.123.dcm"}
