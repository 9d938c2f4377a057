"""Make the built-in, SYNTHETIC contrast-enhanced mammography dataset (no patient data).

Example: python scripts/make_phantom.py --output data/phantom --patients 100 --size 256 --site W --seed 0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.phantom import SITES, make_phantom


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for LE/, DES/, mask/, datalist.json"
    )
    parser.add_argument("--patients", type=int, default=100, help="number of patients (at least 3), 1 to 4 views each")
    parser.add_argument("--size", type=int, default=256, help="pixels per side (at least 32); a side is always 200 mm")
    parser.add_argument("--site", default="W", choices=sorted(SITES), help="X-ray unit; no two sites share a patient")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument("--folds", type=int, default=10, help="cross-validation folds, by patient")
    parser.add_argument("--no-masks", action="store_true", help="leave the lesion masks out (a pre-training set)")
    parser.add_argument("--workers", type=int, default=None, help="views made at a time; all cores if not given")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (2: the arguments or the folder cannot be used)."""
    options = argument_parser().parse_args(arguments)
    try:
        datalist = make_phantom(
            options.output,
            patients=options.patients,
            size=options.size,
            site=options.site,
            seed=options.seed,
            num_folds=options.folds,
            masks=not options.no_masks,
            workers=options.workers,
            progress=not options.quiet,
        )
    except (ValueError, OSError) as error:
        print(f"make_phantom: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_phantom: interrupted; the dataset is incomplete, the same command makes it anew", file=sys.stderr)
        return 130
    print(f"SYNTHETIC phantom dataset written: {datalist}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
