"""Train at several sites without moving their images: make a federated job of NVIDIA FLARE, or simulate it here.

Each round every site trains from the server's weights on its own images and sends weights back, which FLARE's FedAvg
averages by optimisation steps. FLARE has an environment of its own, see docs/how-to-federated.md.
Exit code: 0 when done, 2 when it cannot be.
Example: python scripts/federated/job.py --sites W Rh --data data/federated/{site} --rounds 2 --simulate runs/federated
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from bundle.checkpoint import load_networks, save_atomically
from bundle.federated import Exchange, exchanged_networks
from bundle.files import json_text, write_text
from bundle.overrides import known_ids, unknown_ids
from bundle.resumable_trainer import ResumableTrainer
from bundle.trainer import CycleGANTrainer
from bundle.weights import load_weights
from scripts.arguments import command_parser
from scripts.config_values import override_of

ROOT = Path(__file__).resolve().parents[2]
NAME = "cesm"
_OF_THE_SITE = ("dataset_dir", "output_dir", "model_path", "resume", "max_epochs")


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--sites", nargs="+", required=True, metavar="NAME", help="names of the sites, as FLARE knows them")
    add("--rounds", type=int, default=2, metavar="N", help="rounds of training and averaging (default: 2)")
    add("--local-epochs", type=int, default=1, metavar="N", help="epochs of each site in a round (default: 1)")
    add(
        "--exchange",
        choices=get_args(Exchange),
        default="generator",
        help="the served generator alone, or all four networks (default: generator)",
    )
    add("--config", nargs="+", default=["configs/train.json"], metavar="FILE", help="configs, in the bundle's folder")
    add("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="values of the config at all sites")
    add(
        "--initial",
        type=_absolute,
        metavar="FILE",
        help="start from this model.pt (all: best_networks.pt)",
    )
    add(
        "--data",
        type=os.path.abspath,
        metavar="DIR",
        help="simulated sites' data, {site} is the name",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--simulate", type=_absolute, metavar="DIR", help="run it on this machine, in this folder")
    where.add_argument("--write", type=_absolute, metavar="DIR", help="write the job for a real federation")
    return parser


def _absolute(text: str) -> Path:
    return Path(text).resolve()


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What all sites share, for federation.json.

    Raises:
        ValueError: an option cannot be used, saying what to give.
    """
    if options.rounds < 1 or options.local_epochs < 1:
        raise ValueError("--rounds and --local-epochs must be at least 1")
    missing = [name for name in options.config if not (ROOT / name).is_file()]
    if missing:
        raise ValueError(f"no {missing[0]} in {ROOT}; give configs of the bundle, which every site has")
    overrides = dict(override_of(text) for text in options.set)
    taken = [name for name in overrides if name in _OF_THE_SITE]
    if taken:
        raise ValueError(f"--set {taken[0]}: follows from the site or the rounds")
    # The rounds end the training, for all sites at the same time; the schedules fall over all of them.
    own = {"max_epochs": options.rounds * options.local_epochs}
    return {
        "exchange": options.exchange,
        "rounds": options.rounds,
        "local_epochs": options.local_epochs,
        "configs": options.config,
        "overrides": {"patience": 0} | overrides | own,
    }


def config_of(settings: dict[str, Any]) -> ConfigParser:
    """The config as all sites see it.

    Raises:
        ValueError: a value is set that nothing reads.
    """
    parser = ConfigParser()
    parser.read_config([str(ROOT / name) for name in settings["configs"]])
    parser.update(settings["overrides"] | {"bundle_root": str(ROOT), "device": "cpu"})
    unknown = unknown_ids(parser.get(), known_ids(ROOT / "configs", parser.get()))
    if unknown:
        raise ValueError(f"--set {unknown[0]}: nothing in {', '.join(settings['configs'])} reads it")
    return parser


def initial_weights(settings: dict[str, Any], start: Path | None = None) -> dict[str, torch.Tensor]:
    """The weights of the first round: those of ``start``, or what the seed of the config gives.

    Raises:
        FileNotFoundError: there is no ``start``.
        ValueError: it does not fit.
    """
    parser = config_of(settings)
    set_determinism(seed=parser.get_parsed_content("seed"))
    networks = {name: parser.get_parsed_content(name) for name in CycleGANTrainer.network_names}
    if start is not None and settings["exchange"] == "generator":
        load_weights(networks["network"], start)
    elif start is not None:
        load_networks(cast(ResumableTrainer, SimpleNamespace(networks=networks)), start)  # it asks for nothing else
    weights = exchanged_networks(networks, settings["exchange"]).state_dict()
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def recipe_of(settings: dict[str, Any], sites: Sequence[str], start: Path | None = None) -> Any:
    """FLARE's FedAvg job, whose files are written into the current folder: FLARE takes relative paths along.

    The server gets tensors in a file and needs nothing of the bundle.
    """
    if find_spec("nvflare") is None:
        raise ValueError("NVIDIA FLARE is not installed here; see docs/how-to-federated.md for its environment")
    from nvflare.app_opt.pt.file_model_persistor import PTFileModelPersistor  # type: ignore[import-not-found]
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe  # type: ignore[import-not-found]
    from nvflare.recipe.utils import add_final_global_evaluation  # type: ignore[import-not-found]

    save_atomically(initial_weights(settings, start), "initial.pt")
    write_text("federation.json", json_text(settings))
    shutil.copy(Path(__file__).with_name("client.py"), "client.py")
    recipe = FedAvgRecipe(
        name=NAME,
        min_clients=len(sites),
        num_rounds=settings["rounds"],
        train_script="client.py",
        model_persistor=PTFileModelPersistor(source_ckpt_file_full_name="initial.pt", load_device="cpu"),
        key_metric="mae",
        key_metric_mode="min",
    )
    recipe.add_server_file("initial.pt")
    recipe.add_client_file("federation.json")
    add_final_global_evaluation(recipe)
    return recipe


def simulate(recipe: Any, sites: Sequence[str], data: str, folder: Path) -> None:
    """Run a server and the sites here, each site in a process of its own, in a new folder.

    Raises:
        RuntimeError: a site or the server failed.
        ValueError: a site has no data.
    """
    from nvflare.recipe import SimEnv  # type: ignore[import-not-found]

    for site in sites:
        datalist = Path(data.replace("{site}", site)) / "datalist.json"
        if not datalist.is_file():
            raise ValueError(f"no {datalist}; --data is the folder of a site's data set, with {{site}} for its name")
    os.environ["CESM_DATASET_DIR"] = data
    os.environ["CESM_OUTPUT_DIR"] = str(folder / "sites" / "{site}")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for old in ("sites", NAME):
        shutil.rmtree(folder / old, ignore_errors=True)
    recipe.execute(SimEnv(clients=list(sites), workspace_root=str(folder)))


def run(options: argparse.Namespace) -> None:
    """Simulate or export the job that the options describe."""
    if options.simulate is not None and not options.data:
        raise ValueError("--simulate needs --data, the folder of the sites' data sets, such as data/federated/{site}")
    settings = settings_of(options)
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        recipe = recipe_of(settings, options.sites, options.initial)
        if options.write is not None:
            recipe.export(str(options.write))
            print(f"job written: {options.write / NAME}")
            return
        simulate(recipe, options.sites, options.data, options.simulate)
    write_text(options.simulate / "federation.json", json_text(settings | {"sites": options.sites}))
    print(f"global weights: {options.simulate / NAME}/server/simulate_job/app_server/FL_global_model.pt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"job: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
