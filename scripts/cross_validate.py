"""Cross-validation: train and evaluate every arm on every fold, and compare the arms on the same cases.

An arm is segN (Seg-CycleGAN with gamma N), baseline (plain CycleGAN), l1 (the generator trained on the pairs alone), or
the path of an overlay of your own. The same command goes on after an interruption and repeats nothing that is finished.
Writes folds.csv, cases.csv and summary.json, and one folder of results for each arm, fold and seed.
Exit code: 0 done, 1 a job failed (the others are kept), 2 a wrong command, 130 interrupted.
Example: python scripts/cross_validate.py --dataset_dir data/my --arms baseline seg35 seg100 l1 --output runs/cv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.arguments import command_parser
from scripts.evidence.arms import arm_named
from scripts.evidence.command import CONFIGS, add_options, exit_status, run_study, study_of


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--arms",
        required=True,
        nargs="+",
        metavar="ARM",
        help="separated by blanks or commas, the reference first",
    )
    add_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)

    def validate() -> int:
        names = [name for text in options.arms for name in text.split(",") if name]
        arms = [arm_named(name, CONFIGS) for name in names]
        return run_study(study_of(options, arms, "Cross-validation", ["test"]), options)

    return exit_status("cross_validate", validate)


if __name__ == "__main__":
    sys.exit(main())
