"""A command that fails ends with the reason."""

from __future__ import annotations

from pathlib import Path

from bundle.errors import root_cause
from tests.workflow import command, run, train_options


def test_the_root_cause_is_the_first_error_of_the_chain() -> None:
    first = ValueError("first")
    second, third = RuntimeError("second"), RuntimeError("third")
    second.__cause__, third.__cause__ = first, second
    assert root_cause(third) is first
    assert root_cause(first) is first


def test_a_failed_command_names_the_cause_and_the_remedy_in_its_last_line(tiny_dataset: Path, tmp_path: Path) -> None:
    options = train_options(tiny_dataset, tmp_path, model_path=tmp_path / "none.pt")
    finished = run(*command("evaluating", "train.json", "evaluate.json", **options))
    assert finished.returncode == 1
    last = finished.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: no weights at {tmp_path / 'none.pt'}; train first")
