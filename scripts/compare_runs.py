"""Print the test results of several evaluated runs side by side: one column a run, over the same cases.

Evaluate each run first (docs/how-to-train.md). Exit code: 0 when printed, 2 when a run cannot be compared.
Example: python scripts/compare_runs.py runs/scratch runs/finetune
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.evaluation_summary import format_summary
from scripts.arguments import command_parser


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of an evaluated run")
    return parser


def results_of(run: Path) -> tuple[dict[str, Any], list[str]]:
    """What the ``summary.json`` of a run says of the model, and its cases in the order of ``cases.csv``.

    Raises:
        ValueError: the run has not been evaluated, or its files are damaged.
    """
    try:
        model = json.loads((run / "summary.json").read_text(encoding="utf-8"))["predictors"]["model"]
        model["metrics"].items()
        rows = pd.read_csv(run / "cases.csv", dtype={"patient_id": str}, keep_default_na=False)
        cases = rows[rows["predictor"] == "model"][["patient_id", "laterality", "view"]].agg(" ".join, axis=1)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{run}: no results of an evaluation ({error}). Run `evaluating` on it first.") from error
    return model, sorted(cases)


def compare(runs: Sequence[Path]) -> str:
    """The table of several runs.

    Raises:
        ValueError: a run without results, or runs that were evaluated on different cases.
    """
    results = {str(run): results_of(run) for run in runs}
    (first, (_, cases)), *others = results.items()
    for name, (_, other) in others:
        if other != cases:
            differing = len(set(cases) ^ set(other))
            raise ValueError(
                f"{first} and {name} were evaluated on different cases ({differing} differ): their means cannot be "
                "compared. Evaluate both on the same data set and fold."
            )
    title = f"{len(cases)} test cases each; means over cases with intervals, lesion metrics over cases with lesions"
    return f"{title}\n{format_summary({name: model for name, (model, _) in results.items()})}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    try:
        print(compare(argument_parser().parse_args(arguments).runs))
    except ValueError as error:
        print(f"compare_runs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
