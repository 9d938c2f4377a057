"""Check a finished simulation of job.py: that its sites trained, that the server averaged, and that nothing else left.

What FLARE has done is computed once more from the sites' own files. Exit code: 0 when all holds, 1 when something does
not, 2 when there is no finished simulation.
Example: python scripts/federated/check.py runs/federated --data data/federated/{site}
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from bundle.weights import load_weights
from scripts.arguments import command_parser
from scripts.federated.extract import global_weights
from scripts.federated.extract import main as extract
from scripts.federated.job import NAME, config_of

LAST = Path("app_server", "FL_global_model.pt")
TOLERANCE = 1e-6
Check = tuple[str, bool]


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what job.py --simulate was given")
    parser.add_argument("--data", required=True, metavar="DIR", help="as given to job.py, with {site} for the name")
    return parser


def parser_of(settings: Mapping[str, Any], data: Path) -> ConfigParser:
    """The config of a site."""
    parser = config_of(dict(settings))
    parser["dataset_dir"] = str(data.resolve())
    return parser


def steps_of(parser: ConfigParser, local_epochs: int) -> int:
    """Optimisation steps of a round, from the site's datalist."""
    cases: Sequence[Any] = parser.get_parsed_content("train#dataset#data")
    return math.ceil(len(cases) / int(parser.get_parsed_content("batch_size"))) * local_epochs


def sent_weights(checkpoint: Mapping[str, Any], exchange: str) -> dict[str, Tensor]:
    """What a site sent last: its networks stand in its checkpoint after its last epoch."""
    networks: Mapping[str, Mapping[str, Tensor]] = checkpoint["networks"]
    if exchange == "generator":
        return dict(networks["network"])
    return {f"{name}.{key}": tensor for name, state in networks.items() for key, tensor in state.items()}


def largest_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Over all tensors; infinite when they are not the same tensors."""
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return math.inf
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def average(weights: Sequence[Mapping[str, Tensor]], shares: Sequence[int]) -> dict[str, Tensor]:
    """The average of the sites' weights, each with its share."""
    total = sum(shares)
    return {
        name: sum((w[name].double() * n for w, n in zip(weights, shares, strict=True)), torch.zeros(())) / total
        for name in weights[0]
    }


def names_in(data: Path) -> set[str]:
    """Patients and file names of a site, but for those so short that they stand in any file by chance."""
    cases = json.loads((data / "datalist.json").read_text(encoding="utf-8"))["cases"]
    names = {case["patient_id"] for case in cases} | {Path(case["image"]).stem for case in cases}
    return {name for name in names if len(name) > 4}


def files_with(names: set[str], folder: Path) -> list[Path]:
    """Files below ``folder`` that hold one of the names."""
    words = [name.encode() for name in names]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(word in path.read_bytes() for word in words)]


def checks(folder: Path, data: str) -> Iterator[Check]:
    """One line and whether it holds, for each thing to check.

    Raises:
        OSError: files of a finished simulation are missing.
        ValueError: they hold something else.
    """
    settings = json.loads((folder / "federation.json").read_text(encoding="utf-8"))
    sites, exchange = settings["sites"], settings["exchange"]
    epochs = settings["rounds"] * settings["local_epochs"]
    parsers = {site: parser_of(settings, Path(data.replace("{site}", site))) for site in sites}
    saved = {site: torch.load(folder / "sites" / site / "checkpoint.pt", weights_only=True) for site in sites}
    for site in sites:
        yield f"{site} has trained {saved[site]['epoch']} of {epochs} epochs", saved[site]["epoch"] == epochs

    server = folder / NAME / "server" / "simulate_job"
    found = global_weights(server / LAST)
    sent = [sent_weights(saved[site], exchange) for site in sites]
    apart = min(largest_difference(sent[0], other) for other in sent[1:])
    yield f"the sites' weights differ by up to {apart:.2g} before averaging", apart > TOLERANCE
    steps = [steps_of(parsers[site], settings["local_epochs"]) for site in sites]
    difference = largest_difference(found, average(sent, steps))
    weights = " : ".join(map(str, steps))
    yield f"global weights = average {weights} of {len(found)} tensors within {difference:.1g}", difference < TOLERANCE
    if exchange == "generator":
        own = largest_difference(*(saved[site]["networks"]["discriminator_b"] for site in sites[:2]))
        yield f"discriminators stay at the sites and differ by up to {own:.2g}", own > TOLERANCE

    model = folder / "model.pt"
    yield (
        f"the served generator is taken out as {model}",
        extract([str(server / LAST), "--output", str(model)]) == 0,
    )
    reported = json.loads((server / "cross_site_val" / "cross_val_results.json").read_text(encoding="utf-8"))
    for site in sites:
        evaluator = parsers[site].get_parsed_content("validate#evaluator")
        load_weights(evaluator.network, model)
        evaluator.run()
        own, told = evaluator.state.metrics["mae"], reported[site]["SRV_FL_global_model.pt"]["mae"]
        yield f"{site}: validation MAE {own:.5f} of model.pt, reported by the site {told:.5f}", abs(own - told) < 1e-5
    for site in sites:
        leaks = files_with(names_in(Path(data.replace("{site}", site))), folder / NAME)
        yield f"no patient or file of {site} is named in logs, job or server files {leaks[:3] or ''}", not leaks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    status = 0
    try:
        for line, holds in checks(options.folder, options.data):
            print(f"{'ok  ' if holds else 'FAIL'}  {line}", flush=True)
            status = status if holds else 1
    except (OSError, ValueError, KeyError) as error:
        print(f"check: {options.folder} holds no finished simulation ({error}); run job.py --simulate", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
