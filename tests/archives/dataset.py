"""Data sets made by the importers' common part, and what lies in them."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.prepare import pipeline
from scripts.prepare.options import add_options
from scripts.prepare.view import LeftOut, View


def options(output: Path, *more: str) -> argparse.Namespace:
    """The options of an importer, as parsed."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    words = ["--output", str(output), "--size", "32", "--folds", "4", "--name", "test", "--workers", "1", "--quiet"]
    return parser.parse_args([*words, *more])


def imported(views: Sequence[View], output: Path, *more: str, left_out: Sequence[LeftOut] = (), **top: Any) -> int:
    """Make a data set of these views; return the exit code."""
    return pipeline.import_views(views, left_out, options(output, *more), **top)


def datalist(folder: Path) -> dict[str, Any]:
    """What ``datalist.json`` holds."""
    content: dict[str, Any] = json.loads((folder / "datalist.json").read_text())
    return content


def content_of(folder: Path) -> dict[str, bytes]:
    """Path -> bytes of every file."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def excluded_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of ``excluded.csv``."""
    with (folder / "excluded.csv").open(newline="") as file:
        return list(csv.DictReader(file))
