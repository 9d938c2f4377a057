"""List the licences of all packages of all environments, in docs/licences.md.

Reads what is installed: .venv, and the environments of MONAI Deploy, MONAI Label, NVIDIA FLARE and the audit where they
are; of the others it keeps what it knew. The facts are kept in scripts/supply/inventory.json.
Exit code: 0 done, 1 a licence that no rule of scripts/supply/policy.py allows, 2 something is missing.
Example: python scripts/licences.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.files import write_text
from scripts.arguments import command_parser
from scripts.supply.environments import ENVIRONMENTS, ROOT
from scripts.supply.inventory import collect, read_inventory, write_inventory
from scripts.supply.page import page, refused


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--environments",
        type=Path,
        default=ROOT,
        metavar="DIR",
        help="folder in which the environments are (default: the repository)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    names = dict.fromkeys(one.folder for one in ENVIRONMENTS)
    folders = {name: options.environments / name for name in names if (options.environments / name).is_dir()}
    try:
        packages = collect(folders, read_inventory())
    except (ValueError, OSError) as error:
        print(f"licences: {error}", file=sys.stderr)
        return 2
    bad = refused(packages)
    for package in bad:
        print(
            f"licences: {package.name} {package.version} has {package.licence}, which no rule allows", file=sys.stderr
        )
    if bad:
        return 1
    write_inventory(packages)
    path = write_text(ROOT / "docs" / "licences.md", page(packages))
    print(f"written: {path}, {len(packages)} packages; read from {', '.join(folders)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
