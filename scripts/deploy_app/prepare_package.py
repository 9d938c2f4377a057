"""Lay out what `monai-deploy package` takes: the application with the code it needs, and the model.

Example: python scripts/deploy_app/prepare_package.py --model . --output build/map

The output folder gets app/ (the application), models/ (the model) and app.yaml (the configuration of the package).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.arguments import command_parser
from scripts.deploy_app.model import Model, find_model

ROOT = Path(__file__).resolve().parents[2]
_HERE = "scripts/deploy_app"
#: Files and folders of the bundle that the application needs. The version of the bundle goes into the objects.
_CODE = ("bundle", "scripts/__init__.py", _HERE, "configs/metadata.json")
_START = """\
\"\"\"Started in the package: the application.\"\"\"

import sys

from scripts.deploy_app.app import main

sys.exit(main())
"""


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("--model", required=True, type=Path, metavar="PATH", help="bundle folder or model.ts")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make")
    return parser


def prepare_package(model: Model, output: Path) -> None:
    """Make ``output`` with ``app/``, ``models/`` and ``app.yaml``.

    Raises:
        FileExistsError: ``output`` is there already.
    """
    if output.exists():
        raise FileExistsError(f"{output} exists; remove it or give another --output")
    app = output / "app"
    for name in _CODE:
        _copy(ROOT / name, app / name)
    (app / "__main__.py").write_text(_START, encoding="utf-8")
    shutil.copy(ROOT / _HERE / "requirements.txt", app)
    shutil.copy(ROOT / _HERE / "app.yaml", output)
    _copy_model(model, output / "models")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _copy_model(model: Model, folder: Path) -> None:
    """The model in a sub-folder: of a bundle its configs and the weights that are used."""
    if model.path.is_file():
        _copy(model.path, folder / model.path.stem / model.path.name)
        return
    named = folder / "cesm_virtual_contrast"
    _copy(model.path / "configs", named / "configs")
    _copy(model.weights, named / "models" / model.weights.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (2: the model or the folder cannot be used)."""
    options = argument_parser().parse_args(arguments)
    try:
        prepare_package(find_model(options.model), options.output)
    except (OSError, ValueError) as error:
        print(f"prepare_package: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: app/, models/ and app.yaml for monai-deploy package")
    return 0


if __name__ == "__main__":
    sys.exit(main())
