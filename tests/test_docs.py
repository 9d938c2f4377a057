"""What the documents say exists, and the commands they show run."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from bundle.phantom import make_phantom
from scripts.prepare_data import SOURCES
from tests.forks import run_forked

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
#: What `monai.bundle run` itself understands, and torchrun.
MONAI_OPTIONS = {"config_file", "tracking"}
TORCHRUN_OPTIONS = {"nproc_per_node"}
#: Makes any documented training a matter of seconds.
TINY_NETWORK = "--image_size 32 --network_def#width 4 --network_def#blocks 1"
TINY_TRAINING = "--discriminator_a_def#width 4 --max_epochs 1 --batch_size 4"


def commands(page: str) -> list[str]:
    """The command lines of a page's bash blocks, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def words(command: str) -> list[str]:
    return [word.removeprefix(".venv/bin/") for word in shlex.split(command)]


def is_bundle_run(command: str) -> bool:
    return "monai.bundle run" in command


def config_of(command: str) -> ConfigParser:
    listed = words(command)
    files = listed[listed.index("--config_file") + 1]
    parser = ConfigParser()
    parser.read_config([ROOT / name for name in re.findall(r"configs/[\w.]+", files)])
    return parser


ALL_COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page)))
BUNDLE_RUNS = [command for command in ALL_COMMANDS if is_bundle_run(command)]
SCRIPT_RUNS = [command for command in ALL_COMMANDS if "scripts/" in command]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in targets if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_bundle_named_in_the_text_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.])((?:configs|scripts|bundle|docs|tests)/[\w/.-]+\w)", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("command", BUNDLE_RUNS)
def test_a_documented_run_names_existing_configs_workflows_and_options(command: str) -> None:
    parser = config_of(command)
    listed = words(command)
    options = [word[2:] for word in listed[listed.index("run") :] if word.startswith("--")]
    unknown = [name for name in options if name not in MONAI_OPTIONS and name.replace("#", "::") not in parser]
    assert unknown == []
    workflow = listed[listed.index("run") + 1]
    assert (workflow if not workflow.startswith("--") else "run") in parser


def options_in_the_text(page: str) -> set[str]:
    return set(re.findall(r"`--([a-z][a-z_-]*)", (ROOT / page).read_text(encoding="utf-8")))


def options_known(page: str) -> set[str]:
    """Top-level names of the config that a page is about, and the options of the scripts that it shows."""
    parser = ConfigParser()
    applied = any(name in page for name in ("archive", "export", "inference", "weights"))
    files = ["inference.json"] if applied else ["train.json", "evaluate.json"]
    parser.read_config([ROOT / "configs" / name for name in files])
    known = set(parser.get()) | MONAI_OPTIONS | TORCHRUN_OPTIONS
    shown = {words(command)[1] for command in commands(page) if "scripts/" in command}
    texts = [help_text(script) for script in sorted(shown)]
    if "prepare" in page:
        texts += [help_text("scripts/prepare_data.py", source) for source in SOURCES]
    return known | {name for text in texts for name in re.findall(r"--([a-z][a-z-]*)", text)}


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/how-to")])
def test_options_named_in_the_text_exist_where_the_page_is_about(page: str) -> None:
    assert options_in_the_text(page) - options_known(page) == set()


def test_the_options_that_the_test_above_looks_for_are_found() -> None:
    assert {"fold", "gamma", "model_path"} <= options_in_the_text("docs/how-to-train.md")
    assert {"image_window", "image_size"} <= options_in_the_text("docs/how-to-inference.md")
    assert {"private", "min-overlap"} <= options_in_the_text("docs/how-to-prepare.md")


def test_inference_after_the_quickstart_is_shown_with_the_network_of_the_quickstart() -> None:
    listed = words(the_one("docs/how-to-inference.md", "runs/quickstart"))
    quickstart = ConfigParser.load_config_file(ROOT / "configs" / "quickstart.yaml")
    for name in ("image_size", "network_def#width", "network_def#blocks"):
        assert int(listed[listed.index(f"--{name}") + 1]) == quickstart[name]


@functools.cache
def help_text(script: str, *subcommand: str) -> str:
    """What ``--help`` prints, in this process: the libraries are imported already."""
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as stop:
        module.main([*subcommand, "--help"])
    assert not stop.value.code
    return printed.getvalue()


@pytest.mark.parametrize("command", SCRIPT_RUNS)
def test_a_documented_script_knows_its_options(command: str) -> None:
    script, *arguments = words(command)[1:]
    subcommand = arguments[:1] if script.endswith("prepare_data.py") else []
    known = help_text(script, *subcommand)
    assert [word for word in arguments if word.startswith("--") and word not in known] == []


@pytest.mark.parametrize("command", [one for one in ALL_COMMANDS if one not in BUNDLE_RUNS + SCRIPT_RUNS])
def test_any_other_documented_command_is_there(command: str) -> None:
    program, *arguments = words(command)
    if program == "make":
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        names = [re.sub("=.*", " :?=", argument) if "=" in argument else f"{argument}:" for argument in arguments]
        assert all(re.search(rf"^{name}", targets, re.MULTILINE) for name in names)
    else:
        assert program in {"source", "tensorboard", "export"}


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with tiny data in the places the documents speak of; what runs there leaves this one alone."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("bundle", "configs", "scripts"):
        (root / name).symlink_to(ROOT / name)
    make_phantom(root / "my", patients=11, size=32, workers=1, progress=False)
    make_phantom(root / "data" / "phantom", patients=11, size=32, workers=1, progress=False)
    shutil.copytree(root / "data" / "phantom", root / "data" / "public")
    return root


def execute(command: str, checkout: Path, extra: str = "") -> str:
    """Run a documented command as it stands, with ``extra`` arguments, in the checkout."""
    program, *arguments = words(command)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(checkout),
    }
    line = [*arguments, *shlex.split(extra)]
    if program == "python":
        result = run_forked(line, checkout, environment)
    else:
        assert program == "torchrun"
        start = [sys.executable, "-m", "torch.distributed.run", *line]
        result = subprocess.run(
            start, cwd=checkout, capture_output=True, text=True, env=environment, check=False, timeout=300
        )
    assert result.returncode == 0, f"{shlex.join(line)}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout + result.stderr


def the_one(page: str, *parts: str) -> str:
    """The only command of a page that holds all of these parts."""
    found = [command for command in commands(page) if all(part in command for part in parts)]
    assert len(found) == 1, found
    return found[0]


PAIRS = the_one("docs/how-to-prepare.md", "prepare_data.py pairs", "my/LE")


@pytest.mark.slow
def test_the_commands_for_own_data_run_from_pairing_to_virtual_images(checkout: Path) -> None:
    train, tiny = "docs/how-to-train.md", f"{TINY_NETWORK} {TINY_TRAINING}"
    execute(PAIRS, checkout)
    assert "0 errors" in execute(the_one(train, "check_data.py"), checkout)
    execute(the_one(train, "configs/train.json --dataset_dir"), checkout, tiny)
    assert (checkout / "models" / "model.pt").is_file()
    resume = execute(the_one("docs/how-to-resume.md", "--resume True"), checkout, f"{tiny} --max_epochs 2")
    assert "after epoch 1" in resume
    table = execute(the_one(train, "run evaluating"), checkout, TINY_NETWORK)
    assert all(name in table for name in ("model", "le_copy", "breast_constant", "mean_des"))
    page = "docs/how-to-inference.md"
    done = execute(the_one(page, "my/virtual"), checkout, TINY_NETWORK)
    assert len(list((checkout / "my" / "virtual").glob("*_virtual_des.png"))) == len(
        list((checkout / "my/LE").iterdir())
    )
    assert ", 0 failed" in done


@pytest.mark.slow
def test_tracking_with_mlflow_records_losses_and_metrics_without_a_server(checkout: Path) -> None:
    page = "docs/how-to-train.md"
    execute(PAIRS, checkout)
    extra = (
        f"{TINY_NETWORK} {TINY_TRAINING} --tracking mlflow --output_dir runs/tracked --model_path runs/tracked/model.pt"
    )
    execute(the_one(page, "configs/train.json --dataset_dir"), checkout, extra)
    with contextlib.closing(sqlite3.connect(checkout / "runs" / "tracked" / "mlruns.db")) as database:
        recorded = {name for (name,) in database.execute("select distinct key from metrics")}
    assert {"train_loss", "psnr", "lesion_mae"} <= recorded


@pytest.mark.slow
def test_the_commands_of_both_stages_run_one_after_the_other(checkout: Path) -> None:
    page = "docs/how-to-two-stages.md"
    listed = commands(page)
    for command in listed[next(i for i, one in enumerate(listed) if "make_phantom" in one) :]:
        if "make_phantom" in command:
            execute(command, checkout, "--patients 6 --size 32 --folds 3 --quiet")
        elif is_bundle_run(command):
            training = (
                "--max_epochs 1 --batch_size 4 --discriminator_a_def#width 4" if "run training" in command else ""
            )
            execute(command, checkout, f"{TINY_NETWORK} {training}")
        else:
            table = execute(command, checkout)
    assert (checkout / "runs" / "finetune" / "checkpoint.pt").is_file()
    assert ["metric", "runs/scratch", "runs/finetune"] in [line.split() for line in table.splitlines()]


@pytest.mark.slow
def test_the_commands_for_evidence_lead_from_cross_validation_to_the_report(checkout: Path) -> None:
    page = "docs/how-to-evidence.md"
    execute(PAIRS, checkout)
    values = "--set image_size=32 network_def#width=4 network_def#blocks=1 discriminator_a_def#width=4 max_epochs=1"
    tiny = f"{values} --folds 1 --resamples 100 --quiet"
    table = execute(the_one(page, "cross_validate.py", "l1"), checkout, f"--arms seg0 {tiny}")
    assert ["metric", "seg0", "le_copy", "breast_constant", "mean_des"] in [line.split() for line in table.splitlines()]
    assert "chosen gamma  0" in execute(
        the_one(page, "sweep_gamma.py"), checkout, f"--values 0 {tiny} --output runs/cv"
    )
    execute(the_one(page, "report.py"), checkout)
    assert "lesion" in (checkout / "runs" / "cv" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_command_for_several_processes_runs(checkout: Path) -> None:
    execute(PAIRS, checkout)
    execute(the_one("docs/how-to-multi-gpu.md", "torchrun"), checkout, f"{TINY_NETWORK} {TINY_TRAINING}")


@pytest.mark.slow
def test_the_quickstart_trains_evaluates_and_is_applied(checkout: Path) -> None:
    card = "docs/README.md"
    execute(the_one(card, "run training"), checkout, "--max_epochs 1")
    execute(the_one(card, "run evaluating"), checkout)
    assert (checkout / "runs" / "quickstart" / "summary.json").is_file()
    assert ", 0 failed" in execute(the_one("docs/how-to-inference.md", "quickstart"), checkout)
