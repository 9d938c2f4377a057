"""Measure the bundle's speed beside plain implementations, on this machine, and print every figure beside its target.

Contestants take turns in one process and what other processes disturbed is not counted, so leave the machine alone
meanwhile: the whole takes about a quarter of an hour on two cores. Parts: the training step, inference (network and
folder), the data path, the metrics, and how cost grows. A figure that cannot be measured here says why.
Exit code: 0 when measured, whether targets are met or not; 2 when the results cannot be written.
Example: python scripts/benchmark.py step infer --json benchmark.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from bundle.files import json_text, write_text
from scripts.arguments import command_parser
from scripts.benchmarking import data, growth, inference_folder, metrics, network, step
from scripts.benchmarking.measure import Row, machine

PARTS: dict[str, Callable[[], list[Row]]] = {
    "step": step.rows,
    "infer": lambda: network.rows() + inference_folder.rows(),
    "data": data.rows,
    "metrics": metrics.rows,
    "growth": growth.rows,
}


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, []],
        metavar="PART",
        help=f"what to measure: {', '.join(PARTS)} (default: everything)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    print(machine(), flush=True)
    rows: list[Row] = []
    start = time.monotonic()
    for part in tqdm(options.parts or list(PARTS), desc="benchmark", unit="part", disable=None):
        found = PARTS[part]()
        print(table(found), flush=True)
        rows += found
    print(f"\n{time.monotonic() - start:.0f} s in all")
    if options.json:
        figures = [asdict(row) | {"met": row.met} for row in rows]
        try:
            write_text(options.json, json_text({"machine": machine(), "rows": figures}))
        except OSError as error:
            print(f"benchmark: {error}", file=sys.stderr)
            return 2
    return 0


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["", "| part | what | figure | target | | note |", "|---|---|---|---|---|---|"]
    for row in rows:
        figure = "-" if row.value is None else f"{row.value:.3g} {row.unit}".strip()
        met = {True: "met", False: "NOT MET", None: ""}[row.met]
        lines.append(f"| {row.part} | {row.what} | {figure} | {row.target} | {met} | {row.note} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
