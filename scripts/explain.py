"""Explain the virtual DES of a trained run on the cases that it was not trained on, and say how certain it is.

For lesions spread over the range of real contrast: which pixels of the LE image drive their enhancement (integrated
gradients, occlusion), checked with random weights and by deletion. For all cases: the standard deviation of each pixel
over augmented images, and over several networks, and whether it is as large as the error and warns of lost lesions.
RUN is the output folder of a training, or an arm of a study (its folds are taken together, its seeds are the ensemble).
Writes explanations.json, lesions.csv, cases.csv, panels/, maps/ and calibration.png; scripts/report.py shows them.
Exit code: 0 done, 1 the data were refused, 2 something is missing or does not fit, 130 interrupted.
Example: python scripts/explain.py runs/study/seg35
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bundle.files import remove_unfinished_in
from bundle.metrics.intervals import Resampling
from scripts.arguments import command_parser, count
from scripts.explaining.explained import explain_lesions
from scripts.explaining.source import CONFIGS, HeldOut, Place, held_out, runs_of
from scripts.explaining.study import Options, chosen_lesions, measure
from scripts.explaining.summary import content, printed, write_results


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of a training, or of an arm of a study")
    parser.add_argument(
        "--ensemble",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="further runs, or files of weights of the same network; an arm with several seeds needs none",
    )
    parser.add_argument(
        "--config", nargs="+", type=Path, default=[CONFIGS / "train.json"], metavar="FILE",
        help="configs of the training; needed for overlays of your own alone",
    )  # fmt: skip
    parser.add_argument("--dataset_dir", type=Path, metavar="DIR", help="data of the training; default: the recorded")
    parser.add_argument("--external_dir", type=Path, metavar="DIR", help="a data set that took no part in the training")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: explanations/ in RUN")
    parser.add_argument(
        "--lesions", type=_count_or_0, default=12, metavar="N", help="most lesions explained (default: 12)"
    )
    parser.add_argument(
        "--cases", nargs="+", default=[], metavar="NAME", help="explain lesions of these cases (source in cases.csv)"
    )
    parser.add_argument(
        "--baseline", choices=["smoothed", "median"], default="smoothed", help="what the image is compared with"
    )
    parser.add_argument("--steps", type=count, default=32, metavar="N", help="of integrated gradients (default: 32)")
    parser.add_argument("--patch-mm", type=float, default=10.0, metavar="MM", help="side of the occluding patch (10)")
    parser.add_argument(
        "--tta", type=_count_or_0, default=8, metavar="N", help="augmented images of each case (8); 0: none"
    )
    parser.add_argument(
        "--sanity-lesions",
        type=_count_or_0,
        default=3,
        metavar="N",
        help="lesions explained with random weights too (3)",
    )
    parser.add_argument("--resamples", type=count, default=2000, metavar="N", help="bootstrap samples of patients")
    parser.add_argument(
        "--device", default="cuda:0" if torch.cuda.is_available() else "cpu", help="such as cpu, cuda:0"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _count_or_0(text: str) -> int:
    return 0 if text == "0" else count(text)


def runs_from(options: argparse.Namespace) -> list[HeldOut]:
    """The runs that the options name, each with its ensemble.

    Raises:
        ValueError: they cannot be used together, or one is not as it should be.
    """
    folds = runs_of(options.run)
    if options.ensemble and len(folds) > 1:
        raise ValueError(
            f"{options.run} is an arm of {len(folds)} folds, whose seeds are its ensemble; leave --ensemble"
        )
    place = Place(tuple(options.config), options.dataset_dir, options.external_dir, options.device)
    return [held_out(first, [*seeds, *options.ensemble], place) for first, *seeds in folds]


def explain(options: argparse.Namespace) -> int:
    """Explain, write and print; return the exit status."""
    if options.patch_mm <= 0:
        raise ValueError(f"--patch-mm is {options.patch_mm:g}, expected more than 0")
    if options.lesions and importlib.util.find_spec("captum") is None:
        raise ModuleNotFoundError(
            "captum is not installed: pip install -c constraints.txt '.[explain]', or --lesions 0"
        )
    asked = Options(
        lesions=options.lesions,
        names=tuple(options.cases),
        baseline=options.baseline,
        steps=options.steps,
        patch_mm=options.patch_mm,
        maps=options.tta,
        sanity_lesions=options.sanity_lesions,
        seed=options.seed,
        progress=not options.quiet,
    )
    runs = runs_from(options)
    output = options.output or options.run / "explanations"
    for folder in (output, output / "panels", output / "maps"):
        remove_unfinished_in(folder, "*.json", "*.csv", "*.png", "*.npz")
    measured = measure(runs, asked)
    explained = explain_lesions(runs, measured, chosen_lesions(measured.lesions, asked), asked, output)
    caveats = list(dict.fromkeys(caveat for run in runs for caveat in run.caveats))
    title = options.run.resolve().name
    resampling = Resampling(options.resamples)
    found = content(title, [run.name for run in runs], caveats, measured, explained, asked, resampling)
    paths = write_results(found, measured, explained, output)
    print("\n".join([printed(found), *map(str, paths)]), flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        return explain(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"explain: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("explain: interrupted; explanations.json is written at the end", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
