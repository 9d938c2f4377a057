"""Take the served generator out of what a federation's server has saved, for inference, evaluation and export.

Exit code: 0 when written, 2 when the file is something else.
Example: python scripts/federated/extract.py FL_global_model.pt --output models/model.pt
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch import Tensor

from bundle.checkpoint import save_atomically
from bundle.federated import served_weights
from bundle.saved_state import load_saved
from scripts.arguments import command_parser


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("weights", type=Path, metavar="FILE", help="FL_global_model.pt, or best_FL_global_model.pt")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the generator's model.pt")
    return parser


def global_weights(path: Path) -> dict[str, Tensor]:
    """What was exchanged, from the file of the server's persistor.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else.
    """
    try:
        content = load_saved(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); give the server's FL_global_model.pt") from error
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(_is_weight(*item) for item in weights.items()):
        raise ValueError(f"{path} holds no weights under 'model'; give the server's FL_global_model.pt")
    return dict(weights)


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        save_atomically(served_weights(global_weights(options.weights)), options.output)
    except (ValueError, OSError) as error:
        print(f"extract: {error}", file=sys.stderr)
        return 2
    print(f"served generator written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
