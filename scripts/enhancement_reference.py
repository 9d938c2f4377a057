"""Say how well the LE image tells lesions that enhance from those that do not, to one who knows where they are.

The enhancement AUC of a virtual DES cannot be better than what the LE image shows. Here a small classifier is given
each lesion of a data set with its outline, trained on the other folds, and scored on the lesions of the fold; a lesion
enhances if its contrast in the real DES exceeds the standard deviation in the ring around it. With few lesions the
classifier, too, learns less than there is to see. The outline may itself tell the kinds of lesions apart: a virtual
DES, which is made without it, is better compared with ``--no-outline``, where the classifier is told the place only.
DATA is a data set with folds, lesion masks, and lesions of both kinds, such as the phantom. Prints a table in Markdown.
Exit code: 0 done, 1 the data were refused, 2 something is missing or does not fit.
Example: python scripts/enhancement_reference.py data/phantom --image-size 128
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from bundle.errors import root_cause
from bundle.metrics.intervals import Resampling
from scripts.arguments import command_parser, count
from scripts.evidence.markdown import markdown
from scripts.explaining.figures import bootstrapped, figure_cell
from scripts.explaining.source import CONFIGS, ROOT, case_of
from scripts.explaining.told import Classifier, enhances, held_out_scores, patch


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("data", type=Path, metavar="DATA", help="data set, with datalist.json")
    parser.add_argument("--image-size", type=count, default=128, metavar="N", help="pixels a side (128)")
    parser.add_argument("--no-outline", action="store_true", help="tell the classifier the place of the lesion only")
    parser.add_argument("--epochs", type=count, default=40, metavar="N", help="of each fold's classifier (40)")
    parser.add_argument("--seed", type=int, default=0, help="of the classifiers (0)")
    parser.add_argument(
        "--device", default="cuda:0" if torch.cuda.is_available() else "cpu", help="such as cpu, cuda:0"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def lesions_of(options: argparse.Namespace) -> tuple[pd.DataFrame, torch.Tensor]:
    """The lesions of all folds: ``patient_id``, ``fold``, ``kind`` (empty where unknown) and ``enhances``; patches.

    Raises:
        ValueError: the data set cannot be read, or has too few lesions of either kind.
        SystemExit: with code 1, after a table of what is wrong with the data.
    """
    parser = ConfigParser(ConfigParser.load_config_file(str(CONFIGS / "train.json")))
    values = {"dataset_dir": str(options.data), "image_size": options.image_size, "bundle_root": str(ROOT)}
    for name, value in (values | {"phantom": None}).items():
        parser[name] = value
    parser.parse(True)
    try:
        entries = parser.get_parsed_content("cases")
        load = Compose(parser.get_parsed_content("train#deterministic_transforms"))
    except RuntimeError as error:  # MONAI's, with the reason as its cause
        raise ValueError(str(root_cause(error))) from error
    rows, patches = [], []
    masked = [entry for entry in entries if {"mask", "label_mask"} & entry.keys()]
    for entry in tqdm(masked, desc="lesions", disable=options.quiet):
        case = case_of(load(dict(entry)), "cpu")
        enhancing = enhances(case) if bool((case.mask > 0.5).any()) else None
        if enhancing is not None:
            kind = str(entry.get("info", {}).get("lesion", ""))
            rows.append([str(entry["patient_id"]), entry.get("fold"), kind, enhancing])
            patches.append(patch(case))
    table = pd.DataFrame(rows, columns=["patient_id", "fold", "kind", "enhances"])
    folds = table.groupby("enhances")["fold"].nunique()
    if any(folds.get(kind, 0) < 2 for kind in (True, False)):
        bright = int(table["enhances"].sum())
        raise ValueError(
            f"{options.data}: lesions that enhance and lesions that do not are needed in two folds at least; here are "
            f"{bright} and {len(table) - bright}"
        )
    return table, torch.stack(patches)


def table_of(lesions: pd.DataFrame) -> str:
    """The AUC over all lesions that enhance and over each kind of them, against all that do not, with intervals."""
    cells = [["lesions that enhance", "number", "that do not", "AUC"]]
    still = lesions[~lesions["enhances"]]
    bright = lesions[lesions["enhances"]]
    kinds = [(kind, part) for kind, part in bright.groupby("kind") if kind]
    for name, part in [("all", bright), *(kinds if len(kinds) > 1 else [])]:
        auc = figure_cell(bootstrapped(pd.concat([part, still]), _auc, Resampling()), 2)
        cells.append([str(name), str(len(part)), str(len(still)), auc])
    return markdown(cells)


def _auc(rows: pd.DataFrame) -> float:
    return float(roc_auc_score(rows["enhances"], rows["score"])) if rows["enhances"].nunique() > 1 else math.nan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        lesions, patches = lesions_of(options)
    except (ValueError, OSError) as error:
        print(f"enhancement_reference: {error}", file=sys.stderr)
        return 2
    if options.no_outline:
        patches[:, 1] = 0
    classifier = Classifier(options.epochs, seed=options.seed, device=options.device, progress=not options.quiet)
    enhancing, folds = (torch.tensor(lesions[name].to_numpy().astype(int)) for name in ("enhances", "fold"))
    lesions["score"] = held_out_scores(patches, enhancing.bool(), folds, classifier).numpy()
    print(table_of(lesions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
