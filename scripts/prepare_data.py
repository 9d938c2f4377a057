"""Turn images into a dataset folder: a datalist.json with folds by patient, checked before it is written.

Exit code: 0 when the datalist was written, 1 when the data have problems, 2 when the command is wrong.
Help on one kind of source: python scripts/prepare_data.py pairs --help
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.prepare import pairs

SOURCES = {"pairs": pairs}
"""Name of a subcommand -> its module, which has SUMMARY, EXAMPLE, add_arguments(parser) and run(options)."""


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    subcommands = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, module in SOURCES.items():
        subcommand = subcommands.add_parser(
            name,
            help=module.SUMMARY,
            description=f"{module.SUMMARY}\n\nExample:\n{module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(subcommand)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        status: int = SOURCES[options.source].run(options)
    except (ValueError, OSError) as error:
        print(f"prepare_data {options.source}: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
