"""The commands around a federation, without NVIDIA FLARE: settings, first weights, taking out the generator, checks."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

from bundle.federated import CESMAlgo
from bundle.phantom import make_phantom
from scripts.config_values import override_of
from scripts.federated import check, extract, job
from tests.conftest import ROOT, TINY

SET = [f"{name}={value}" for name, value in TINY.items()]
COMMON = ["--sites", "A", "B", "--set", *SET]


def settings(*arguments: str) -> dict[str, Any]:
    return job.settings_of(job.argument_parser().parse_args([*COMMON, "--write", "unused", *arguments]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1e-3", 1e-3),
        ("a=True", True),
        ("a=null", None),
        ("a=minmax", "minmax"),
        ("a=[1,2]", [1, 2]),
        ("a=b=c", "b=c"),
    ],
)
def test_a_value_is_read_as_what_it_looks_like(text: str, value: Any) -> None:
    assert override_of(text) == ("a", value)


def test_the_schedules_of_all_sites_fall_over_all_rounds_and_no_site_stops_alone() -> None:
    made = settings("--rounds", "5", "--local-epochs", "3")
    assert made["overrides"] | {"max_epochs": 15, "patience": 0} == made["overrides"]
    assert made["overrides"]["network_def#width"] == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--set", "dataset_dir=x"], "--set dataset_dir: follows from the site or the rounds"),
        (["--set", "gama=3"], "--set gama: nothing in configs/train.json reads it"),
        (["--set", "gamma"], "expected NAME=VALUE"),
        (["--config", "configs/none.yaml"], "no configs/none.yaml in"),
        (["--rounds", "0"], "must be at least 1"),
    ],
)
def test_what_no_site_could_use_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    if "gama" in reason:
        with pytest.raises(ValueError, match=reason):
            job.config_of(settings(*arguments))
        return
    assert job.main([*COMMON, "--write", str(tmp_path), *arguments]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.skipif(find_spec("nvflare") is not None, reason="NVIDIA FLARE is installed here")
def test_without_flare_the_command_says_where_to_read_how_to_install_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.main([*COMMON, "--write", str(tmp_path)]) == 2
    assert "see docs/how-to-federated.md" in capsys.readouterr().err


def test_the_first_weights_follow_from_the_seed_or_from_an_earlier_training(tmp_path: Path) -> None:
    one, other = settings("--exchange", "all"), settings("--exchange", "all", "--set", "seed=1")
    first = job.initial_weights(one)
    assert all(torch.equal(first[name], tensor) for name, tensor in job.initial_weights(one).items())
    later = job.initial_weights(other)
    assert any(not torch.equal(first[name], later[name]) for name in first)
    nested: dict[str, dict[str, Tensor]] = {}
    for name, tensor in first.items():
        network, key = name.split(".", 1)
        nested.setdefault(network, {})[key] = tensor
    torch.save(nested, tmp_path / "best_networks.pt")
    torch.save(nested["network"], tmp_path / "model.pt")
    given = job.initial_weights(other, tmp_path / "best_networks.pt")
    assert all(torch.equal(first[name], given[name]) for name in first)
    served = job.initial_weights(other | {"exchange": "generator"}, tmp_path / "model.pt")
    assert all(torch.equal(nested["network"][name], served[name]) for name in nested["network"])
    rest = job.initial_weights(other, tmp_path / "model.pt")
    assert all(torch.equal((first if name.startswith("network.") else later)[name], rest[name]) for name in first)
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="does not fit"):
        job.initial_weights(one, tmp_path / "model.pt")


def test_something_else_than_the_servers_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "raw.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for name in ("raw.pt", "text.pt", "absent.pt"):
        assert extract.main([str(tmp_path / name), "--output", str(tmp_path / "model.pt")]) == 2
    assert "give the server's FL_global_model.pt" in capsys.readouterr().err
    assert not (tmp_path / "model.pt").exists()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    make_phantom(folder, patients=6, size=32, num_folds=3, workers=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def simulation(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a simulation leaves: one round of two sites, averaged by their steps, with the server's files."""
    folder = tmp_path_factory.mktemp("simulation")
    made = settings("--rounds", "1") | {"sites": ["A", "B"]}
    (folder / "federation.json").write_text(json.dumps(made))
    start = job.initial_weights(made)
    sent, results = [], {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bundle.handlers.panels.Panels._draw", lambda _: None)
        patch.setattr("bundle.handlers.curves.Curves._draw", lambda _: None)
        sites = {name: _site(made, phantom, folder / "sites" / name, seed) for seed, name in enumerate("AB")}
        for algo in sites.values():
            algo.train(ExchangeObject(weights=start))
            sent.append({name: tensor.clone() for name, tensor in (algo.get_weights().weights or {}).items()})
    mean = {name: (sent[0][name] + sent[1][name]) / 2 for name in start}
    for name, algo in sites.items():
        metrics: Any = algo.evaluate(ExchangeObject(weights=mean)).metrics
        results[name] = {"SRV_FL_global_model.pt": {"mae": metrics["mae"]}}
    server = folder / job.NAME / "server" / "simulate_job"
    (server / "app_server").mkdir(parents=True)
    (server / "cross_site_val").mkdir()
    torch.save({"model": mean}, server / check.LAST)
    (server / "cross_site_val" / "cross_val_results.json").write_text(json.dumps(results))
    return folder


def _site(made: dict[str, Any], data: Path, output: Path, seed: int) -> CESMAlgo:
    own = {"dataset_dir": str(data), "output_dir": str(output), "device": "cpu", "seed": seed}
    algo = CESMAlgo(str(ROOT), made["exchange"], send_weight_diff=False, train_kwargs=made["overrides"] | own)
    algo.initialize()
    return algo


def test_a_sound_simulation_passes_all_checks(
    simulation: Path, phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([str(simulation), "--data", str(phantom)]) == 0
    printed = capsys.readouterr().out
    assert "FAIL" not in printed
    assert (simulation / "model.pt").is_file()


def test_weights_that_are_no_average_and_names_in_logs_are_found(
    simulation: Path, phantom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = simulation / job.NAME / "server" / "simulate_job" / check.LAST
    sound = path.read_bytes()
    content = torch.load(path, weights_only=True)
    name, tensor = next(iter(content["model"].items()))
    torch.save({"model": content["model"] | {name: tensor + 1e-3}}, path)
    log = simulation / job.NAME / "log.txt"
    log.write_text("could not read the image of P0002", encoding="utf-8")
    assert check.main([str(simulation), "--data", str(phantom)]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert any("global weights" in line for line in failed)
    assert any("log.txt" in line for line in failed)
    path.write_bytes(sound)
    log.unlink()


def test_a_folder_without_a_simulation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(tmp_path), "--data", str(tmp_path)]) == 2
    assert "holds no finished simulation" in capsys.readouterr().err
