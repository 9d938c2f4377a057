"""Check dataset folders before training: each datalist.json and every file named there, and what several folders share.

Prints all problems as tables. Exit code: 0 when the data can be used, 1 when there are errors. With several folders, as
a training set and an external test set, the same image or pseudonym in two of them, or the same patient in two of one
name, are errors too. A folder given twice is checked once.
Examples: python scripts/check_data.py data/phantom
          python scripts/check_data.py data/my data/external
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.data import DATALIST
from bundle.overlap import overlap_problems
from bundle.preflight import FileFacts, Problem, check_datalist, format_table
from scripts.arguments import command_parser


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "dataset_dirs", nargs="+", type=Path, metavar="DATASET_DIR", help="folder that holds datalist.json"
    )
    parser.add_argument("--every-warning", action="store_true", help="one row a warning, also where many say the same")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _different(folders: Sequence[Path]) -> list[Path]:
    """Each data set once, as it was written first: a path may be spelt in several ways, or name the datalist."""
    known: dict[Path, Path] = {}
    for folder in folders:
        known.setdefault((folder / DATALIST if folder.is_dir() else folder).resolve(), folder)
    return list(known.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    progress, folders = not options.quiet, _different(options.dataset_dirs)
    known: FileFacts = {}
    tables: dict[str, list[Problem]] = {}
    for folder in folders:
        tables[str(folder)] = check_datalist(folder, progress, known)
    if len(folders) > 1:
        tables["shared by several of them"] = overlap_problems(folders, progress, known)
    for title, problems in tables.items():
        heading = f"{title}: " if len(folders) > 1 else ""
        print(heading + ("\n" if heading and problems else "") + format_table(problems, not options.every_warning))
    return int(any(problem.level == "ERROR" for problems in tables.values() for problem in problems))


if __name__ == "__main__":
    sys.exit(main())
