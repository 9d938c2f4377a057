"""Check a dataset folder before training: its datalist.json and every file named there.

Prints all problems as one table. Exit code: 0 when the data can be used, 1 when there are errors.
Example: python scripts/check_data.py data/phantom
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.preflight import check_datalist, format_table


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("dataset_dir", type=Path, metavar="DATASET_DIR", help="folder that holds datalist.json")
    parser.add_argument("--every-warning", action="store_true", help="one row a warning, also where many say the same")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    problems = check_datalist(options.dataset_dir, progress=not options.quiet)
    print(format_table(problems, group_warnings=not options.every_warning))
    return int(any(problem.level == "ERROR" for problem in problems))


if __name__ == "__main__":
    sys.exit(main())
