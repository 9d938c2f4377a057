"""Turn an archive into a dataset folder: images and masks on one grid, folds by patient, a data check, a data card.

Exit code: 0 when the dataset was written, 3 when it was written and something was left out (named on the standard
error and in excluded.csv), 1 when nothing was written, 2 when the command is wrong, 130 when it was interrupted:
the same command then goes on where it stopped.
Help on one kind of source: python scripts/prepare_data.py pairs --help
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.arguments import command_parser
from scripts.prepare import cdd_cesm, cesm_ucbm, dicom_archive, pairs

SOURCES = {"pairs": pairs, "cdd-cesm": cdd_cesm, "cesm-ucbm": cesm_ucbm, "dicom": dicom_archive}
"""Name of a subcommand -> its module, which has SUMMARY, EXAMPLE, add_arguments(parser) and run(options)."""


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
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
    except KeyboardInterrupt:
        print(f"prepare_data {options.source}: interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
