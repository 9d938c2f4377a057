"""The options that all sources share."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.arguments import count
from scripts.prepare.datalist import DEFAULT_FOLDS

__all__ = ["add_options"]

NATIVE = "native"
SMALLEST_SIZE = 32


def add_options(parser: argparse.ArgumentParser, in_place: bool = False) -> None:
    """Add the options that all sources share.

    Args:
        parser: the parser of the source's subcommand.
        in_place: without ``--size`` the images stay where they are; else 512 is the default.
    """
    output = parser.add_argument_group("the dataset")
    output.add_argument("--output", required=True, type=Path, metavar="DATASET_DIR", help="folder to be filled")
    stay = "default: the images stay where they are" if in_place else "default: 512"
    output.add_argument(
        "--size",
        type=_size,
        default=None if in_place else 512,
        metavar="PIXELS",
        help=f"longer side of the images to be written, or {NATIVE}; the aspect stays; {stay}",
    )
    text = f"0: none, an external test set; default: {DEFAULT_FOLDS}, or as many as there are patients if fewer"
    output.add_argument("--folds", type=int, help=text)
    output.add_argument("--seed", type=int, default=0, help="seed of the folds; default: 0")
    output.add_argument(
        "--min-overlap",
        type=_share,
        default=None,
        metavar="IOU",
        help="leave out pairs whose breasts overlap less, 0 to 1; default: 0.9, and 0 for images that stay",
    )
    output.add_argument("--name", help="name of the dataset; default: that of the output folder")
    output.add_argument("--workers", type=count, metavar="N", help="processes; default: as many as there are use for")
    output.add_argument("--quiet", action="store_true", help="no progress bar")


def _size(text: str) -> int | str:
    if text == NATIVE:
        return text
    if not text.isdecimal() or int(text) < SMALLEST_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither {NATIVE} nor a whole number from {SMALLEST_SIZE}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value
