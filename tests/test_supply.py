"""Every environment is pinned to its last package; the list of licences is true to the pins and what is installed."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from scripts import licences
from scripts.supply import inventory, policy
from scripts.supply.environments import ENVIRONMENTS, Environment, applies, closure, read_pins, roots_of
from scripts.supply.inventory import Package, packages_of, read_inventory
from scripts.supply.page import page, refused
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BY_NAME = {one.name: one for one in ENVIRONMENTS}
each_environment = pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda one: one.name)
#: MONAI Label's own package and some that it needs ask for versions that do not go together: installed with --no-deps.
OUT_OF_RANGE = {("label", name) for name in ("monailabel",)}


@each_environment
def test_every_line_of_a_pin_file_is_one_exact_version(environment: Environment) -> None:
    assert len(read_pins(*environment.pins)) > 0


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.*", "numpy==2.1; sys_platform == 'linux'", "-r x.txt"])
def test_anything_but_an_exact_version_is_refused_by_name(tmp_path: Path, line: str) -> None:
    (tmp_path / "pins.txt").write_text(f"# fine\nscipy==1.0\n{line}\n")
    with pytest.raises(ValueError, match=r"pins\.txt: .* is no exact pin"):
        read_pins("pins.txt", root=tmp_path)


def test_a_package_with_two_versions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("typing_extensions==1.0\ntyping-extensions==2.0\n")
    with pytest.raises(ValueError, match="pinned twice"):
        read_pins("pins.txt", root=tmp_path)


def test_no_pin_file_and_no_extra_is_forgotten() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("the files of the repository are listed by git")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = {
        file for file in listed if re.search(r"(requirements|constraints)[\w-]*\.(txt|in)$|/monailabel\.txt$", file)
    }
    assert files == {file for one in ENVIRONMENTS for file in one.pins}
    assert {extra for one in ENVIRONMENTS for extra in one.extras or ()} == set(
        PROJECT["project"]["optional-dependencies"]
    )


@each_environment
def test_everything_that_pip_would_install_is_in_the_pin_files_of_its_environment(environment: Environment) -> None:
    packages = packages_of(environment, read_inventory())  # a package that is not pinned is a KeyError in there
    own = read_pins(*(file for file in environment.pins if file != "constraints.txt"))
    assert set(own) <= set(packages) <= set(read_pins(*environment.pins))


@each_environment
def test_pinned_versions_are_those_that_the_packages_ask_for(environment: Environment) -> None:
    packages = packages_of(environment, read_inventory())
    needs = [
        (one.name, Requirement(text)) for one in packages.values() for part in one.requires.values() for text in part
    ]
    wrong = {
        (environment.name, canonicalize_name(needer))
        for needer, need in needs
        if not _fits(packages[canonicalize_name(need.name)].version, need.specifier)
    }
    assert wrong <= OUT_OF_RANGE


def _fits(version: str, specifier: SpecifierSet) -> bool:
    return len(version) == 40 or specifier.contains(version, prereleases=True)


def test_the_kept_needs_are_those_of_the_installed_packages() -> None:
    for environment in (BY_NAME["core"], BY_NAME["dev"]):
        for name, package in packages_of(environment, read_inventory()).items():
            for extra, kept in package.requires.items():
                texts = [Requirement(text) for text in importlib.metadata.requires(name) or []]
                stated = {canonicalize_name(one.name) for one in texts if applies(one, extra)}
                expected = {name for name in stated if not name.startswith(("nvidia-", "cuda-", "triton"))}
                assert {canonicalize_name(Requirement(text).name) for text in kept} == expected, package.name


def test_markers_decide_what_is_needed() -> None:
    windows, linux, plain = (
        Requirement(text) for text in ("a; sys_platform == 'win32'", "b; python_version >= '3.11'", "c")
    )
    extra = Requirement("d; extra == 'x' and sys_platform == 'linux'")
    assert [applies(one, "") for one in (windows, linux, plain, extra)] == [False, True, True, False]
    assert [applies(one, "x") for one in (windows, linux, plain, extra)] == [False, False, False, True]


def test_extras_of_extras_are_followed_and_circles_end() -> None:
    needs = {("a", ""): ["b[x]>=1"], ("b", "x"): ["c"], ("c", ""): ["a"]}
    reached = closure([Requirement("a")], lambda name, extra: needs.get((name, extra), []))
    assert reached == {"a": {""}, "b": {"", "x"}, "c": {""}}


def test_the_tool_that_builds_the_project_is_pinned_as_everywhere() -> None:
    pins = read_pins("constraints.txt")
    assert PROJECT["build-system"]["requires"] == [f"setuptools=={pins['setuptools'].version}"]


def test_versions_of_the_audit_are_those_of_the_tests() -> None:
    ours, audit = read_pins("constraints.txt"), read_pins("scripts/supply/requirements.txt")
    assert {name: pin.version for name, pin in audit.items() if name in ours} == {
        name: ours[name].version for name in audit if name in ours
    }


def test_the_list_of_licences_has_every_pin_of_every_environment_and_nothing_else() -> None:
    listed = {(one.key, environment) for one in read_inventory() for environment in one.environments}
    expected = {
        (one.key, environment.name)
        for environment in ENVIRONMENTS
        for one in packages_of(environment, read_inventory()).values()
    }
    assert listed == expected


def test_the_page_is_what_the_list_gives() -> None:
    assert (ROOT / "docs" / "licences.md").read_text(encoding="utf-8") == page(read_inventory())


def test_licences_and_versions_are_those_that_the_installed_packages_state() -> None:
    for name, package in packages_of(BY_NAME["dev"], read_inventory()).items():
        metadata = importlib.metadata.metadata(name)
        if "License-Expression" in metadata:
            assert package.licence == policy.spdx_of(name, {"License-Expression": metadata["License-Expression"]}, [])
        assert Version(metadata["Version"]).public == package.version


def test_no_licence_is_outside_the_rules_and_every_exception_has_its_reason_on_the_page() -> None:
    packages = read_inventory()
    assert refused(packages) == []
    noted = [one for one in packages if not policy.is_allowed(one.licence)]
    assert {"tqdm", "openslide-bin"} <= {one.name for one in noted}
    assert all(policy.REASONS[canonicalize_name(one.name)] in page(packages) for one in noted)


def test_what_is_needed_to_train_and_to_apply_has_no_gpl() -> None:
    core = packages_of(BY_NAME["core"], read_inventory()).values()
    assert [one.name for one in core if "GPL" in one.licence] == []


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("(MIT OR GPL-3.0-only) AND LGPL-2.1-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("LicenseRef-Own", False),
    ],
)
def test_a_licence_is_allowed_if_it_can_be_met_without_copyleft(licence: str, allowed: bool) -> None:
    assert policy.is_allowed(licence) is allowed


@pytest.mark.parametrize(
    ("metadata", "classifiers", "expected"),
    [
        ({"License-Expression": "BSD-3-Clause"}, ["License :: OSI Approved :: MIT License"], "BSD-3-Clause"),
        ({"License": "Apache 2.0"}, [], "Apache-2.0"),
        ({"License": "Copyright (c) 2020 Somebody\nand much more"}, ["License :: X :: MIT License"], "MIT"),
    ],
)
def test_the_words_of_metadata_become_spdx(metadata: dict[str, str], classifiers: list[str], expected: str) -> None:
    assert policy.spdx_of("any", metadata, classifiers) == expected


def test_a_licence_that_nobody_named_is_asked_for() -> None:
    with pytest.raises(ValueError, match="any: its metadata say 'BSD' of its licence; read its licence file"):
        policy.spdx_of("any", {"License": "BSD"}, [])


def test_the_command_refuses_a_licence_without_a_rule_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(licences, "ROOT", tmp_path)
    monkeypatch.setattr(licences, "collect", lambda *_: [Package("bad", "1.0", "GPL-3.0-only", ("core",))])
    assert licences.main(["--environments", str(tmp_path)]) == 1
    assert "bad 1.0 has GPL-3.0-only, which no rule allows" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_again_what_is_there_and_keeps_what_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    written: list[Package] = []
    monkeypatch.setattr(licences, "ROOT", tmp_path)
    monkeypatch.setattr(licences, "write_inventory", written.extend)
    assert licences.main(["--environments", str(ROOT)]) == 0
    assert written == read_inventory()
    assert (tmp_path / "docs" / "licences.md").read_text() == (ROOT / "docs" / "licences.md").read_text()


def test_packages_of_radiomics_are_kept_where_make_radiomics_was_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(inventory._Installed):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.distributions.pop("pyradiomics", None)

    monkeypatch.setattr(inventory, "_installed_in", Without)
    assert inventory.collect({".venv": ROOT / ".venv"}, read_inventory()) == read_inventory()


def test_a_pin_that_is_not_in_the_list_is_named_with_the_remedy() -> None:
    known = [one for one in read_inventory() if one.name != "torch"]
    with pytest.raises(ValueError, match=r"not in inventory\.json: torch 2.* \(core\)\. Renew it: make licences"):
        inventory.packages_of(BY_NAME["core"], known)


def test_roots_are_the_extras_of_the_project_and_what_the_files_add() -> None:
    names = {one.name for one in roots_of(BY_NAME["radiomics"])}
    assert {"torch", "pyradiomics", "frd-score", "PyWavelets"} <= names
    assert "cesm-virtual-contrast" not in {one.name for one in roots_of(BY_NAME["dev"])}
