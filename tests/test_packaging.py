"""Versions, pins, licence and commands of the project agree with each other and with what is installed."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomllib
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
METADATA: dict[str, Any] = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
MAKE = shutil.which("make")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def requirements(*extras: str) -> list[Requirement]:
    listed = [*PROJECT["dependencies"]]
    for extra in extras:
        listed += PROJECT["optional-dependencies"][extra]
    parsed = [Requirement(text) for text in listed]
    return [one for one in parsed if canonicalize_name(one.name) != PROJECT["name"]]


def needed(requirement: Requirement) -> Iterator[str]:
    """The names of a requirement and of everything it needs here, with extras."""
    done: set[tuple[str, str]] = set()
    waiting = [(requirement.name, extra) for extra in ("", *requirement.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        for text in importlib.metadata.requires(name) or []:
            child = Requirement(text)
            if child.marker is None or child.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(child.name), one) for one in ("", *child.extras)]
    return (canonicalize_name(name) for name, _ in done)


def test_every_dependency_is_pinned_to_a_version_that_its_range_allows() -> None:
    for requirement in requirements("dev", "explain", "export", "ray", "tracking"):
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_the_pins_are_what_the_project_needs_and_no_more() -> None:
    wanted = {
        name
        for requirement in requirements("dev", "explain", "export", "ray", "tracking")
        for name in needed(requirement)
    }
    # a CUDA build of torch brings NVIDIA's libraries in the versions it wants: they cannot be pinned for both builds
    from_cuda = {name for name in wanted if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
    assert wanted - from_cuda == set(pins())


def test_the_installed_versions_are_the_pinned_ones() -> None:
    installed = {name: Version(importlib.metadata.version(name)).public for name in pins()}
    assert installed == pins()


def test_torch_is_pinned_for_any_build_and_torchvision_is_not_needed() -> None:
    assert pins()["torch"] == "2.13.0"
    assert pins()["monai"] == "1.6.1"
    assert "torchvision" not in pins()
    assert not [version for version in pins().values() if not re.fullmatch(r"[0-9][0-9a-z.]*", version)]


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run", ".pre-commit-config.yaml"]
)
def test_no_index_or_host_is_named(name: str) -> None:
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", (ROOT / name).read_text("utf-8"))


#: What is run with the packages of the tests.
DEVELOPERS = ("scripts/benchmarking", "scripts/fuzzing", "scripts/soaking")
"""Commands that need what developers have, and the checkout; one of them can use atheris, where it is installed."""


def imported_packages(folder: str) -> set[str]:
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        if folder not in DEVELOPERS and path.parent in {ROOT / one for one in DEVELOPERS}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"bundle", "scripts"} - pinned_beside(folder)


def pinned_beside(folder: str) -> set[str]:
    """What code with an environment of its own, such as that of a federation's client, pins beside itself."""
    lines = [
        line for path in (ROOT / folder).rglob("requirements.txt") for line in path.read_text("utf-8").splitlines()
    ]
    return {line.split("==")[0].lower().replace("-", "_") for line in lines if "==" in line} - {
        name.lower().replace("-", "_") for name in pins()
    }


@pytest.mark.parametrize("folder", ["bundle", "scripts", *DEVELOPERS])
def test_what_the_code_imports_is_a_dependency_of_its_own(folder: str) -> None:
    extras = ("explain", "export", "ray", "radiomics", *(("dev",) if folder in DEVELOPERS else ()))
    allowed = {canonicalize_name(one.name) for one in requirements(*extras)}
    owners = importlib.metadata.packages_distributions()
    names = imported_packages(folder) - ({"tests", "atheris"} if folder in DEVELOPERS else set())
    imported = {name: {canonicalize_name(owner) for owner in owners[name]} for name in names}
    assert {name for name, owner in imported.items() if not owner & allowed and name != "itk"} == set()


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.findall(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    versions = {PROJECT["version"], METADATA["version"], str(citation["version"]), released[0]}
    assert len(versions) == 1
    assert METADATA["version"] in METADATA["changelog"]


def test_the_citation_names_the_paper_as_the_source_of_the_method() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["type"], citation["license"]) == ("software", PROJECT["license"])
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2505.03018"


def test_the_licence_is_the_whole_apache_licence() -> None:
    text = " ".join((ROOT / "LICENSE").read_text(encoding="utf-8").split())
    assert text.startswith("Apache License Version 2.0, January 2004")
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "0ffddef9e48f8a09aed5caf2d44f7ba1c1be2d9b8e0a6f693b1635b2d5566645"
    )


def test_metadata_names_the_pinned_versions_of_every_runtime_package() -> None:
    base = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    for name, key in base.items():
        assert METADATA[key] == pins()[name]
    listed = {canonicalize_name(name): version for name, version in METADATA["required_packages_version"].items()}
    runtime = {canonicalize_name(one.name) for one in requirements()} - set(base)
    assert listed == {name: pins()[name] for name in runtime}


def test_metadata_follows_the_schema_of_monai(shared_data: Path) -> None:
    schema = json.loads((shared_data / "monai" / "meta_schema_20240725.json").read_text(encoding="utf-8"))
    jsonschema.validate(METADATA, schema)
    assert METADATA["schema"].endswith("/meta_schema_20240725.json")


def test_metadata_describes_one_image_in_and_one_image_out() -> None:
    formats = METADATA["network_data_format"]
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        assert list(formats[side]) == [name]
        entry = formats[side][name]
        assert (entry["type"], entry["num_channels"], entry["spatial_shape"]) == ("image", 1, ["256*n", "256*n"])
        assert {int(channel) for channel in entry["channel_def"]} == {0}


def test_the_metadata_claim_no_diagnostic_use() -> None:
    assert "not for diagnosis" in METADATA["intended_use"]


def test_the_logging_configuration_prints_our_lines_and_not_the_engine_chatter() -> None:
    code = (
        "import logging, logging.config as c; c.fileConfig('configs/logging.conf', disable_existing_loggers=False);"
        "logging.getLogger('cesm').info('ours'); logging.getLogger('ignite.engine.engine.X').info('chatter')"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO cesm: ours\n", printed.stdout)
    assert printed.stderr == ""


@functools.cache
def dry_run(target: str) -> str:
    """What `make TARGET` would do, one command a line."""
    if MAKE is None:
        pytest.skip("GNU make is not installed")
    return subprocess.run([MAKE, "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_test_runs_lint_format_types_and_tests_with_one_thread() -> None:
    steps = ["ruff check .", "ruff format --check .", ".venv/bin/mypy", "-m pytest "]
    places = [dry_run("test").index(step) for step in steps]
    assert places == sorted(places)
    assert "tests: export OMP_NUM_THREADS := 1" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_make_train_trains_and_then_evaluates_with_the_documented_commands() -> None:
    documented = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    commands = [line.removeprefix(".venv/bin/") for line in dry_run("train").splitlines() if "monai.bundle" in line]
    assert len(commands) == 2
    for command, workflow in zip(commands, ("training", "evaluating"), strict=True):
        assert f"monai.bundle run {workflow} " in command
        assert f"```bash\n{command}\n```" in documented


def test_an_installation_is_repeated_only_when_what_it_depends_on_changed(tmp_path: Path) -> None:
    if MAKE is None:
        pytest.skip("GNU make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    question = [MAKE, "--question", "setup"]
    assert subprocess.run(question, cwd=tmp_path, check=False).returncode == 1
    (tmp_path / ".venv" / ".installed").touch()
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(tmp_path / name, (1, 1))
    assert subprocess.run(question, cwd=tmp_path, check=False).returncode == 0
    os.utime(tmp_path / "constraints.txt")
    (tmp_path / ".venv" / ".installed").touch()
    os.utime(tmp_path / ".venv" / ".installed", (2, 2))
    assert subprocess.run(question, cwd=tmp_path, check=False).returncode == 1


def test_an_old_python_is_named_before_anything_is_installed(tmp_path: Path) -> None:
    if MAKE is None:
        pytest.skip("GNU make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "old-python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9); $2"\n')
    old.chmod(0o755)
    result = subprocess.run([MAKE, "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_continuous_integration_runs_the_documented_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")
    assert "```bash\nmake test\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
