"""The soak finds what faults spoil, and a short one of it passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts import soak
from scripts.soaking.comparison import compare, unloadable
from scripts.soaking.faults import FAULTS, PAIRS, pair_of
from scripts.soaking.material import Place
from scripts.soaking.session import Outcome, Session, table
from scripts.soaking.workflows import WORKFLOWS


@pytest.fixture
def places(tmp_path: Path) -> tuple[Place, Place]:
    """Two equal runs, by hand."""
    for name in ("one", "other"):
        output = tmp_path / name / "output"
        (output / ".prepared").mkdir(parents=True)
        (output / "notes.txt").write_text("not of the run")
        torch.save({"a": torch.tensor([1.0, float("nan")])}, output / "model.pt")
        (output / "run.json").write_text(json.dumps({"status": "completed", "updated": name, "folder": str(output)}))
        (output / "report.csv").write_text(
            f"image,status,output,reason\na,{'done' if name == 'one' else 'skipped'},b,\n"
        )
        (output / ".prepared" / "c.json").write_text(json.dumps({"fingerprint": name, "files": {"LE/c.png": 3}}))
        (output / ".output.lock").touch()
        (output / "c.dcm").write_bytes(b"abc")
    return Place(tmp_path / "one"), Place(tmp_path / "other")


def test_times_and_places_are_no_difference(places: tuple[Place, Place]) -> None:
    found = compare(*places)
    assert (found.lost, found.differences) == ([], [])


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "half a file of weights": (lambda o: (o / "model.pt").write_bytes(b"PK"), "model.pt cannot be loaded"),
    "other weights": (lambda o: torch.save({"a": torch.tensor([1.0, 2.0])}, o / "model.pt"), "model.pt differs"),
    "a result that is gone": (lambda o: (o / "c.dcm").unlink(), "c.dcm is missing"),
    "one bit": (lambda o: (o / "c.dcm").write_bytes(b"abb"), "c.dcm differs"),
    "another status": (lambda o: (o / "run.json").write_text('{"status": "failed"}'), "run.json differs"),
    "an unfinished file": (lambda o: (o / ".c.12.dcm").touch(), ".c.12.dcm is left over"),
    "a file of others overwritten": (lambda o: (o / "notes.txt").write_text("x"), "notes.txt, which is not of the run"),
    "a failed image": (
        lambda o: (o / "report.csv").write_text("image,status,output,reason\na,failed,,x\n"), "report.csv differs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_fault_may_spoil_is_found(places: tuple[Place, Place], change: str) -> None:
    spoil, said = CHANGES[change]
    spoil(places[0].output)
    if change == "half a file of weights":
        assert said in compare(*places, finished=False).lost[0]
    else:
        found = compare(*places)
        assert any(said in problem for problem in (*found.lost, *found.differences))


def test_a_file_of_weights_that_is_gone_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    assert unloadable(tmp_path / "model.pt") == "model.pt is gone"


def test_each_round_has_each_pair_of_workflow_and_fault_once() -> None:
    drawn = [pair_of(3, index) for index in range(len(PAIRS) + 1)]
    assert sorted(drawn[:-1]) == sorted(PAIRS)
    assert drawn[-1][1] == "command killed"
    assert {workflow for workflow, _ in drawn} == set(WORKFLOWS)
    assert {fault for _, fault in drawn} == set(FAULTS)
    assert drawn == [pair_of(3, index) for index in range(len(PAIRS) + 1)] != [pair_of(4, i) for i in range(len(drawn))]


def test_the_table_counts_what_was_hit_lost_and_different() -> None:
    outcomes = [
        Outcome(0, "training", "kill -9", 2, [], []),
        Outcome(1, "training", "kill -9", 1, ["model.pt is gone"], ["history.csv differs", "run.json differs"]),
        Outcome(2, "inference", "NaN", 1, [], []),
    ]
    assert [line.split() for line in table(outcomes).splitlines()[1:]] == [
        ["kill", "-9", "training", "3", "1", "2"],
        ["NaN", "inference", "1", "0", "0"],
        ["all", "4", "1", "2"],
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc, which Linux has")
def test_a_short_soak_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Inference alone, which is quickest, under every fault that it can meet; the whole takes `make soak`."""
    faults = [name for name, (_, workflows) in FAULTS.items() if "inference" in workflows and name != "command killed"]
    line = ["--faults", "7", "--minutes", "2", "--processes", "1", "--workflow", "inference", "--fault", *faults]
    status = soak.main([*line, "--disk", "limit", "--output", str(tmp_path / "soak"), "--quiet"])
    printed = capfd.readouterr()
    assert status == 0, printed.err
    assert printed.out.splitlines()[-1].split()[-2:] == ["0", "0"]
    assert {path.name for path in (tmp_path / "soak").iterdir()} == {"faults.jsonl", "table.txt"}


def test_a_fault_that_spoils_something_ends_the_soak_with_1_and_is_told_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Session, "prepare", lambda _: None)
    spoilt = Outcome(17, "training", "NaN", 1, [], ["history.csv differs"], ["NaN in call 3"])
    monkeypatch.setattr(Session, "inject", lambda *_: spoilt)
    assert soak.main(["--replay", "0:17", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "NaN of training: NaN in call 3" in said
    assert "differences: history.csv differs" in said
    assert "--replay 0:17" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--faults", "0"], "must be above 0"),
        (["--replay", "x"], "is not SEED:INDEX"),
        ([], "holds data.txt, which is not of a soak"),
    ],
)
def test_a_wrong_command_is_refused(
    tmp_path: Path, line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not line:
        (tmp_path / "data.txt").touch()
    assert soak.main([*line, "--output", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
