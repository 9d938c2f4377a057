"""Write one self-contained HTML page with the evidence of studies and evaluated runs: tables, plots, cases.

A study is a folder with study.json, an evaluated run one with summary.json and cases.csv. The page loads nothing from a
network. It holds pictures of the data: handle it like the images themselves.
Exit code: 0 when written, 2 when a result cannot be read or the page cannot be written.
Example: python scripts/report.py runs/study -o report.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.files import write_text
from scripts.arguments import command_parser, count
from scripts.evidence.report_load import read_evidence
from scripts.evidence.report_page import page


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a study or of an evaluated run")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="the page (default: report.html)"
    )
    parser.add_argument(
        "--cases", type=count, default=120, metavar="N", help="cases shown as pictures, of each RUN (default: 120)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        written = write_text(options.output, page([read_evidence(run) for run in options.runs], options.cases))
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    print(f"{written}, {written.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
