"""The benchmark compares fairly, counts what is clean, and its plain reference is the same computation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import benchmark
from scripts.benchmarking import measure, metrics, network, step
from scripts.benchmarking.measure import Row, compare, exponent, peak_memory, ratio


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [(1.3, ">= 1.25", True), (1.2, ">= 1.25", False), (0.3, "<= 0.40", True), (None, ">= 1", None), (2.0, "", None)],
)
def test_a_figure_is_held_against_its_target(value: float | None, target: str, met: bool | None) -> None:
    assert Row("step", "fp32", value, "x", target).met is met


def test_growth_is_the_slope_in_logarithms() -> None:
    assert exponent([1.0, 10.0, 100.0], [3.0, 300.0, 30000.0]) == pytest.approx(2.0)


def test_disturbed_samples_are_dropped_and_the_others_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: Iterator[tuple[float, float]] = iter([(1.0, 0.0), (9.0, 0.8), (1.2, 0.05), (1.1, 0.0)])
    monkeypatch.setattr(measure, "sample", lambda _: next(taken))
    timing = compare({"one": lambda: None}, rounds=3)["one"]
    assert timing.seconds == (1.0, 1.2, 1.1)
    assert (timing.median, timing.dropped, timing.disturbed) == (1.1, 1, False)


def test_a_contestant_without_a_clean_sample_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "sample", lambda _: (2.0, 0.9))
    timing = compare({"one": lambda: None}, rounds=3, budget_s=0.0)["one"]
    assert timing.disturbed
    assert "DISTURBED" in str(timing)


def test_contestants_take_turns() -> None:
    order: list[str] = []
    timings = compare({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3, budget_s=0.0)  # type: ignore[misc]
    assert order[:2] == ["a", "b"]  # the warm-up
    assert order[2:8] == ["a", "b", "b", "a", "a", "b"]
    assert ratio(timings, "a", "a") == 1.0


def test_the_plain_step_is_the_same_computation() -> None:
    rows = {row.what: row for row in step._equality(step.Setting(32, 4, 1))}
    same = [row for what, row in rows.items() if what.startswith("64-bit")]
    assert len(same) == 2
    assert all(row.met for row in same)


def test_the_plain_network_gives_the_same_image_and_the_libraries_the_same_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "WIDTH", 4)
    monkeypatch.setattr(network, "BLOCKS", 1)
    monkeypatch.setattr(network, "_exported", lambda *_: {})
    rows = network.rows(32, None, 0.1) + metrics.rows(64, 2, 0.1)
    differences = [row for row in rows if "difference" in row.what]
    assert len(differences) == 5
    assert all(row.met for row in differences)


def test_memory_of_a_process_is_what_it_takes_beyond_its_start() -> None:
    assert 200e6 < peak_memory(bytearray, 250_000_000) < 300e6


def test_the_command_prints_a_table_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(benchmark.PARTS, "step", lambda: [Row("step", "fp32", 1.5, "x", ">= 1.25", "n")])
    assert benchmark.main(["step", "--json", str(tmp_path / "figures.json")]) == 0
    assert "| step | fp32 | 1.5 x | >= 1.25 | met | n |" in capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text())["rows"][0]["met"] is True
