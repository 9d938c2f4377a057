"""Say which way the terms of Seg-CycleGAN's objective pull the generator, and whether that is towards the real DES.

The terms of a CycleGAN never set the virtual beside the real DES. On held-out cases with lesions this takes the
gradient of each group of terms (adversarial, cycle, identity, and the lesion terms, which repeat the latter two inside
the masks) with respect to the weights of the generator LE -> DES, and its cosine with the gradients of the errors in
the breast, in the lesions and of the lesions' contrast: 1 a small step lowers the error as fast as can be, 0 not at
all, below 0 it raises it. "paired" is the L1 between virtual and real DES, for comparison.
RUN is the output folder of a CycleGAN training, or such an arm of a study. Prints a table in Markdown.
Exit code: 0 done, 1 the data were refused, 2 something is missing or does not fit.
Example: python scripts/term_gradients.py runs/study/seg35
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
import torch
from tqdm import tqdm

from bundle.losses import GeneratorObjective
from bundle.metrics.intervals import Resampling
from scripts.arguments import command_parser, count
from scripts.evidence.markdown import markdown
from scripts.evidence.report_cases import chosen_places
from scripts.explaining.figures import bootstrapped, figure_cell
from scripts.explaining.source import Case, HeldOut, Place, held_out, runs_of, training_networks
from scripts.explaining.term_gradients import GOALS, case_pulls

_HEADS = ("terms", "share of the gradient", "error in the breast", "error in lesions", "error of lesion contrast")


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of a training, or of an arm of a study")
    parser.add_argument("--dataset_dir", type=Path, metavar="DIR", help="data of the training; default: the recorded")
    parser.add_argument("--gamma", type=float, default=35.0, help="weight of the lesion terms (35)")
    parser.add_argument("--cases", type=count, default=20, metavar="N", help="most cases of a run (20)")
    parser.add_argument(
        "--device", default="cuda:0" if torch.cuda.is_available() else "cpu", help="such as cpu, cuda:0"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def measure(options: argparse.Namespace) -> pd.DataFrame:
    """The pulls at the cases of all folds: columns as `case_pulls` names them, and ``patient_id``.

    Raises:
        ValueError: a run is not one of a CycleGAN, or there is no lesion.
    """
    place = Place(dataset_dir=options.dataset_dir, device=options.device)
    objective = GeneratorObjective(gamma=options.gamma)
    rows: list[dict[str, object]] = []
    for first, *_ in runs_of(options.run):
        run, networks = held_out(first, [], place), training_networks(first, place)
        for patient, case in tqdm(with_lesions(run, options.cases), desc=run.name, disable=options.quiet):
            rows += [{"patient_id": patient} | row for row in case_pulls(networks, objective, case)]
    if not rows:
        raise ValueError(f"{options.run}: no held-out case has a lesion mask, so there is nothing to look at")
    return pd.DataFrame(rows)


def with_lesions(run: HeldOut, most: int) -> Iterator[tuple[str, Case]]:
    """Held-out cases that show a lesion, evenly over those with a mask, with their patients."""
    masked = [entry for entry in run.entries if {"mask", "label_mask"} & entry.keys()]
    for place in chosen_places(len(masked), most):
        if (case := run.load(masked[place])).mask.any():
            yield str(masked[place]["patient_id"]), case


def table(rows: pd.DataFrame) -> str:
    """Means over cases with the 95 % interval over patients, a row for each group of terms."""
    resampling, cells = Resampling(), [list(_HEADS)]
    for name, own in rows.groupby("terms", sort=False):
        line = [str(name)]
        for column in ("length", *GOALS):
            found = bootstrapped(own, lambda some, column=column: float(some[column].mean()), resampling)  # type: ignore[misc]
            line.append(figure_cell(found, 2))
        cells.append(line)
    return markdown(cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        rows = measure(options)
    except (ValueError, OSError) as error:
        print(f"term_gradients: {error}", file=sys.stderr)
        return 2
    print(f"{len(rows) // rows['terms'].nunique()} cases of {rows['patient_id'].nunique()} patients\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
