"""Print the figures of a study as tables in Markdown: every arm, and its difference from the first one.

With ``--by`` the figures of groups of cases instead, such as those with one kind of lesion. With ``--enhancement`` the
enhancement AUC of each kind of lesion: those that enhance against the lesions of all kinds that do not.

Exit code: 0 done, 2 there is no finished study, no such group, or nothing to tell apart.
Example: python scripts/study_table.py runs/cv
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bundle.metrics.intervals import Resampling
from scripts.arguments import command_parser
from scripts.evidence.enhancement import enhancement_table
from scripts.evidence.markdown import differences_table, figures_table, strata_table
from scripts.evidence.report_load import read_evidence
from scripts.evidence.report_metrics import METRICS

SHOWN = (
    *("psnr", "ssim", "breast_psnr", "lesion_psnr", "lesion_mae", "lesion_contrast_r", "contrast_recovery"),
    *("enhancement_auc", "false_enhancement"),
)


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("study", type=Path, metavar="STUDY", help="output folder of scripts/cross_validate.py")
    figures = "figures of docs/metrics.md"
    parser.add_argument("--metrics", nargs="+", choices=list(METRICS), metavar="NAME", help=figures)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--reference", metavar="ARM", help="what the others are compared with (default: the first arm)")
    either.add_argument("--by", metavar="STRATUM", help="groups of cases: view, density, lesion_kind, lesion_size ...")
    either.add_argument("--enhancement", action="store_true", help="enhancement AUC of each kind of lesion")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argument_parser()
    options = parser.parse_args(arguments)
    if options.enhancement and options.metrics:
        parser.error("--enhancement prints one figure: leave --metrics out")
    metrics = options.metrics or SHOWN
    path = options.study / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if options.enhancement:
            evidence = read_evidence(options.study)
            tables = [enhancement_table(evidence.cases, evidence.names, _resampling(evidence.intervals))]
        elif options.by is not None:
            tables = [strata_table(summary["predictors"], options.by, metrics)]
        else:
            tables = [figures_table(summary["predictors"], metrics)]
            tables.append(differences_table(summary, metrics, options.reference))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"study_table: {path}: {type(error).__name__}: {error}. Run the study to its end.", file=sys.stderr)
        return 2
    except LookupError as error:
        print(f"study_table: {path}: {error}", file=sys.stderr)
        return 2
    print("\n\n".join(tables))
    return 0


def _resampling(intervals: Mapping[str, Any]) -> Resampling:
    return Resampling(resamples=intervals["resamples"], confidence=intervals["confidence"])


if __name__ == "__main__":
    sys.exit(main())
