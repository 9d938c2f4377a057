"""Export the trained generator, and check that each exported form computes what the network computes.

Always writes TorchScript beside the weights (models/model.ts of models/model.pt), with metadata.json and inference.json
inside. --onnx and --openvino write model.onnx, and model.xml with model.bin, for any batch and size. Each is compared
with the network in float32 on several sizes, and refused above 1e-4. --zip writes the bundle as the model zoo has it,
with a list of all that it needs (SBOM), and its SHA-256 beside it.
Weights of another network need its values, spelt as for monai.bundle, such as those of the quickstart:
--network_def#width 16 --network_def#blocks 3 --image_size 64
or the overlay that chose another generator: --config configs/unet.yaml
Exit code: 0 done, 1 an exported form differs or --check found an old one, 2 something is missing or does not fit,
130 interrupted.
Example: python scripts/export.py --onnx --openvino
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monai.bundle import ConfigParser

from bundle.files import sha256_of
from scripts.arguments import command_parser
from scripts.config_values import overrides_of
from scripts.exporting.comparison import DifferenceError
from scripts.exporting.graphs import require, write_onnx, write_openvino
from scripts.exporting.source import ROOT, read_source
from scripts.exporting.torchscript import outdated_reason, write_torchscript
from scripts.exporting.zoo_zip import write_zip, zip_path


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser; overrides of the config are what it leaves over."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--model-path",
        type=Path,
        default=ROOT / "models" / "model.pt",
        metavar="FILE",
        help="weights; the exported files are written beside them (default: models/model.pt)",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="overlays of configs/inference.json, such as configs/unet.yaml",
    )
    parser.add_argument("--onnx", action="store_true", help="write ONNX as well; needs the extra export")
    parser.add_argument(
        "--openvino", action="store_true", help="write OpenVINO's format as well; needs the extra export"
    )
    parser.add_argument(
        "--zip",
        nargs="?",
        type=Path,
        const=ROOT / "build",
        metavar="DIR",
        help="write cesm_virtual_contrast_v<version>.zip into this folder (build if none is named)",
    )
    parser.add_argument(
        "--weights-url",
        metavar="URL",
        help="address of the folder from which weights too large for the zip are downloaded",
    )
    parser.add_argument(
        "--max-megabytes",
        type=float,
        default=25,
        metavar="N",
        help="largest weights that go into the zip (default: 25)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; say whether the TorchScript is of these weights and configs",
    )
    return parser


def check(weights: Path, overrides: dict[str, Any]) -> int:
    """Print whether the TorchScript beside the weights is up to date; return the exit status."""
    reason = outdated_reason(weights, overrides)
    print(f"out of date: {reason}; run scripts/export.py" if reason else f"{weights.with_suffix('.ts')} is up to date")
    return 1 if reason else 0


def export(options: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """Write what the options ask for; return the exit status."""
    if options.onnx or options.openvino:
        require("onnx", "onnxscript", *(["onnxruntime"] if options.onnx else []))
    if options.openvino:
        require("openvino")
    if options.zip:
        require("cyclonedx", "packageurl")
    source = read_source(options.model_path, overrides)
    writers = {".ts": write_torchscript}
    writers |= {".onnx": write_onnx} if options.onnx else {}
    writers |= {".xml": write_openvino} if options.openvino else {}
    for suffix, write in writers.items():
        path = options.model_path.with_suffix(suffix)
        print("\n".join(write(source, path)))
        print(f"written: {path}", flush=True)
    if options.zip:
        path = zip_path(source, options.zip)
        large = write_zip(
            source, options.model_path.with_suffix(".ts"), path, options.weights_url, options.max_megabytes
        )
        print(f"written: {path}, sha256 {sha256_of(path)}")
        for file in large:
            print(f"not inside, to be put at {options.weights_url}: {file}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options, left_over = argument_parser().parse_known_args(arguments)
    try:
        overrides: dict[str, Any] = {}
        for overlay in options.config:
            overrides |= ConfigParser.load_config_file(overlay)
        overrides |= overrides_of(left_over)
        return check(options.model_path, overrides) if options.check else export(options, overrides)
    except DifferenceError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("export: interrupted; what was being written is not kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
