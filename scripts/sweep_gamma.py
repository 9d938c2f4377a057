"""Gamma sweep: train Seg-CycleGAN with several weights of the lesion terms, choose one, and draw the curve.

The choice is made on the validation sections by a rule that is printed; the curve is of the test sections. Runs like
scripts/cross_validate.py, whose trainings it shares where --output and settings are equal, and goes on like it.
Writes what that writes, and gamma.json and gamma.png.
Exit code: 0 done, 1 a job failed (the others are kept), 2 a wrong command, 130 interrupted.
Example: python scripts/sweep_gamma.py --dataset_dir data/my --values 0 10 35 100 200 --folds 3 --output runs/gamma
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.files import json_text, write_text
from bundle.handlers.pictures import save
from bundle.metrics.intervals import Resampling
from scripts.arguments import command_parser
from scripts.evidence.arms import gamma_arm
from scripts.evidence.command import add_options, exit_status, run_study, study_of
from scripts.evidence.gamma import RULE, choose_gamma, draw_gamma, gamma_figures
from scripts.evidence.results import read_cases
from scripts.evidence.study import Study


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("--values", type=float, nargs="+", default=[0, 10, 35, 100, 200], metavar="GAMMA")
    add_options(parser)
    return parser


def report_gamma(study: Study, gammas: Sequence[float], resampling: Resampling) -> float:
    """Write ``gamma.json`` and ``gamma.png``; return the chosen gamma."""
    sections = {section: read_cases(study.jobs(), section) for section in ("validation", "test")}
    curves = {section: gamma_figures(cases, gammas, resampling) for section, cases in sections.items()}
    chosen = choose_gamma(sections["validation"], gammas, resampling)
    content = {"rule": RULE, "chosen": chosen, "metrics": curves["test"], "validation": curves["validation"]}
    write_text(study.folder / "gamma.json", json_text(content))
    save(draw_gamma(curves["test"], curves["validation"], chosen), study.folder / "gamma.png")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)

    def sweep() -> int:
        gammas = sorted(set(options.values))
        study = study_of(options, [gamma_arm(gamma) for gamma in gammas], "Gamma sweep", ["test", "validation"])
        status = run_study(study, options)
        if status == 0:
            chosen = report_gamma(study, gammas, Resampling(options.resamples))
            print(f"\n{RULE}\nchosen gamma  {chosen:g}\ncurve         {study.folder / 'gamma.png'}", flush=True)
        return status

    return exit_status("sweep_gamma", sweep)


if __name__ == "__main__":
    sys.exit(main())
