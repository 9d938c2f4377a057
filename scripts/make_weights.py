"""Make weights to ship with the bundle: data set, trainings, evaluation, TorchScript and model card.

The recipe, two trainings, is run without some patients, on whom it is then measured, and again with all of them: the
weights. The source is the folder of the 512-px CDD-CESM derivative, or one like it, with LE, DES, mask_LE, mask_DES and
index.csv. The same command goes on after an interruption. Hours on a CPU; every command that it runs is shown.
Exit code: 0 done, 1 a command failed, 2 a wrong option, 130 interrupted.
Example: python scripts/make_weights.py --source data/cdd-cesm-512 --output runs/weights
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.arguments import command_parser
from scripts.config_values import override_of
from scripts.releasing.card import write_card
from scripts.releasing.recipe import ROOT, Recipe, keep_in_16_bits, run


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="images, masks and index.csv")
    text = "data set and trainings (default: runs/weights)"
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "weights", metavar="DIR", help=text)
    text = "where the weights go (default: models)"
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="DIR", help=text)
    text = "values of the config for all trainings, to make a shorter one: --set max_epochs=1"
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help=text)
    return parser


def recipe_of(options: argparse.Namespace) -> Recipe:
    """What the options ask for.

    Raises:
        ValueError: the source is none, or a value is not spelt as NAME=VALUE.
    """
    if not (options.source / "index.csv").is_file():
        raise ValueError(f"no index.csv in {options.source}; give the folder of the images")
    overrides = {name: str(value) for name, value in map(override_of, options.set)}
    return Recipe(options.source.resolve(), options.output.resolve(), options.models.resolve(), overrides)


def make(recipe: Recipe) -> None:
    """Run the whole recipe."""
    if not (recipe.data / "datalist.json").is_file():
        run(recipe.prepare(), accepted=(0, 3))  # 3: pairs were left out, as asked
    for stage in (0, 1):
        run(recipe.train(stage, everybody=False))
    for section in ("validation", "test"):
        run(recipe.evaluate(section))
    for stage in (0, 1):
        run(recipe.train(stage, everybody=True))
    keep_in_16_bits(recipe.final_stages[1] / "model.pt", recipe.weights)
    run(recipe.export())
    for path in write_card(recipe):
        print(f"written: {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        make(recipe_of(options))
    except ValueError as error:
        print(f"make_weights: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"make_weights: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_weights: interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
