"""The fuzzer tells apart how readers fail, and a short run of it over all readers finds nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from scripts import fuzz
from scripts.fuzzing.supervisor import Outcome, Supervisor
from scripts.fuzzing.targets import TARGETS
from scripts.fuzzing.tried import Input, save

READER = """
    import os, signal, subprocess, sys, types
    from pathlib import Path

    def read(folder, attempt):
        def one():
            what = (folder / "a.txt").read_text()
            if what == "refuse":
                raise ValueError("a.txt is no file of ours")
            if what == "unclear":
                raise ValueError("bad")
            if what == "fail":
                raise KeyError("a.txt")
            if what == "claim":
                bytearray(2**40)
            if what == "fill":
                return len(bytearray(b"1") * (2**31 + 2**28))
            if what == "die":
                os.kill(os.getpid(), signal.SIGSEGV)
            if what == "escape":
                (folder.parents[1] / "b.txt").write_text("x")
            if what == "command":
                subprocess.run(["true"])
            if what == "hang":
                while True:
                    pass
        attempt(one)

    planted = types.ModuleType("scripts.fuzzing.read_planted")
    planted.READERS = types.SimpleNamespace(read=read, clear=(ValueError,))
    sys.modules["scripts.fuzzing.read_planted"] = planted
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """A process that reads with a reader that fails as its file says."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "sitecustomize.py").write_text(textwrap.dedent(READER))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        supervisor = Supervisor(["planted"], folder / "work")
    with supervisor:
        yield supervisor


KINDS = {
    "use": "accepted", "refuse": "refused", "unclear": "error", "fail": "error", "claim": "memory", "fill": "memory",
    "die": "crash", "escape": "escape", "command": "escape", "hang": "hang",
}  # fmt: skip


@pytest.mark.parametrize("what", KINDS)
def test_what_becomes_of_an_input_is_told(planted: Supervisor, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr("scripts.fuzzing.supervisor.CPU_SECONDS", 1.0 if what == "hang" else 20.0)
    outcome = planted.run("planted", Input({"a.txt": what.encode()}))
    assert (outcome.kind, outcome.finding) == (KINDS[what], KINDS[what] not in ("accepted", "refused"))
    assert planted.run("planted", Input({"a.txt": b"use"})).kind == "accepted"  # and the next one is read


def test_a_finding_is_kept_shown_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def run(self, _: str, tried: Input) -> Outcome:
            return Outcome("crash", "SIGSEGV", "it died") if tried.size > 3 else Outcome("refused")

    monkeypatch.setattr(fuzz, "Supervisor", Failing)
    line = ["--targets", "config_names", "--inputs", "60", "--output", str(tmp_path)]
    assert fuzz.main(line) == 1
    (kept,) = tmp_path.glob("findings/*.json")
    assert str(kept) in capsys.readouterr().out
    assert fuzz.main(["--replay", str(kept), "--output", str(tmp_path)]) == 1
    assert "config_names: crash SIGSEGV\nit died" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"target": "zip"}', '{"target": "zip", "files": {"a": "%"}}'])
def test_what_is_no_finding_is_not_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    assert fuzz.main(["--replay", str(path), "--output", str(tmp_path)]) == 2
    assert f"{path} is no finding of the fuzzer" in capsys.readouterr().err


def test_a_kept_input_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.json", "config_names", "", Input({"words.json": b'[["a"], ["--a", "1"]]'}))
    assert fuzz.main(["--replay", str(tmp_path / "a.json"), "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("config_names: accepted")


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_run_that_would_try_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        fuzz.main([f"--inputs={count}", "--output", str(tmp_path)])
    assert f"--inputs: {count!r} is not a whole number from 1" in capsys.readouterr().err


def test_a_short_run_over_all_readers_finds_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--inputs", "10", "--minutes", "60", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    counts = {words[0]: int(words[1]) for words in map(str.split, lines[1:])}
    assert counts == dict.fromkeys(TARGETS, 10)
