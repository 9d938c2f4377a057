"""The environments of the project: what is installed in each, and the files that pin it to the last package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["ENVIRONMENTS", "PLATFORM", "ROOT", "Environment", "Pin", "Requires", "closure", "read_pins", "roots_of"]

ROOT = Path(__file__).resolve().parents[2]
_MAIN = "constraints.txt"
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9A-Za-z.]*)")
_COMMIT = re.compile(r"([A-Za-z0-9._-]+) @ git\+https://\S+@([0-9a-f]{40})")

#: What the pins are for; markers such as `sys_platform == "win32"` are judged by it, wherever this runs.
PLATFORM = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.7",
    "python_version": "3.11",
    "sys_platform": "linux",
}

Requires = Callable[[str, str], Iterable[str]]
"""Gives what a package, by its canonical name, needs for one of its extras, "" for itself."""


@dataclass(frozen=True)
class Environment:
    """One set of packages that a person installs.

    Args:
        name: of the environment.
        purpose: half a sentence for documents.
        pins: files that name every package of it with its version, relative to the repository.
        folder: where the Makefile installs it.
        extras: extras of this project that it consists of; None if the project is not installed in it.
        installed: whether its packages can be installed on any machine; their metadata are read there.
    """

    name: str
    purpose: str
    pins: tuple[str, ...]
    folder: str = ".venv"
    extras: tuple[str, ...] | None = ()
    installed: bool = True


ENVIRONMENTS = (
    Environment("core", "training, evaluation, inference", (_MAIN,)),
    Environment("tracking", "the extra `tracking`", (_MAIN,), extras=("tracking",)),
    Environment("ray", "the extra `ray`", (_MAIN,), extras=("ray",)),
    Environment("explain", "the extra `explain`", (_MAIN,), extras=("explain",)),
    Environment("export", "the extra `export`", (_MAIN,), extras=("export",)),
    Environment("radiomics", "the extra `radiomics`", (_MAIN, "constraints-radiomics.txt"), extras=("radiomics",)),
    Environment("dev", "tests and checks", (_MAIN,), extras=("dev",)),
    Environment("tensorrt", "TensorRT", (_MAIN, "constraints-tensorrt.txt"), extras=("export",), installed=False),
    Environment("deploy", "MONAI Deploy", ("scripts/deploy_app/requirements.txt",), ".venv-deploy", None),
    Environment(
        "label",
        "MONAI Label",
        ("scripts/label_server/requirements.txt", "scripts/label_server/monailabel.txt"),
        ".venv-label",
        None,
    ),
    Environment("federated", "NVIDIA FLARE", (_MAIN, "scripts/federated/requirements.txt"), ".venv-fl"),
    Environment("audit", "`make audit`", ("scripts/supply/requirements.txt",), ".venv-audit", None),
)


@dataclass(frozen=True)
class Pin:
    """A package with the one version, or the commit, that may be installed."""

    name: str
    version: str

    @property
    def is_commit(self) -> bool:
        """Whether the version is a commit of git."""
        return len(self.version) == 40


def read_pins(*files: str, root: Path = ROOT) -> dict[str, Pin]:
    """The pins of these files, by canonical name.

    Raises:
        ValueError: a line is not ``name==version`` (or names a commit), or a package stands there twice.
    """
    pins: dict[str, Pin] = {}
    for file in files:
        for line in (root / file).read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            found = _PIN.fullmatch(line) or _COMMIT.fullmatch(line)
            if found is None:
                raise ValueError(
                    f"{file}: {line!r} is no exact pin; expected name==version, without anything beside it"
                )
            pin = Pin(*found.groups())
            if canonicalize_name(pin.name) in pins:
                raise ValueError(f"{file}: {pin.name} is pinned twice; keep one line")
            pins[canonicalize_name(pin.name)] = pin
    return pins


def roots_of(environment: Environment) -> list[Requirement]:
    """What is asked for by name in an environment: all else comes because these need it."""
    own = [file for file in environment.pins if file != _MAIN]
    listed = [pin.name for pin in read_pins(*own).values()]
    if environment.extras is not None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        waiting, listed = list(environment.extras), [*listed, *project["dependencies"]]
        while waiting:
            for text in project["optional-dependencies"][waiting.pop()]:
                requirement = Requirement(text)
                if requirement.name == project["name"]:
                    waiting += requirement.extras
                else:
                    listed.append(text)
    return [Requirement(text) for text in listed]


def closure(roots: Iterable[Requirement], requires: Requires) -> dict[str, set[str]]:
    """Every package that installing ``roots`` brings, by canonical name, with the extras asked of it."""
    done: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(one.name), extra) for one in roots for extra in ("", *one.extras)]
    while waiting:
        name, extra = waiting.pop()
        if extra in done.setdefault(name, set()):
            continue
        done[name].add(extra)
        for text in requires(name, extra):
            child = Requirement(text)
            waiting += [(canonicalize_name(child.name), one) for one in ("", *child.extras)]
    return done


def applies(requirement: Requirement, extra: str, platform: Mapping[str, str] = PLATFORM) -> bool:
    """Whether a requirement of a package's metadata counts on ``platform`` when ``extra`` is asked for.

    What counts without an extra is not told again for one.
    """
    if requirement.marker is None:
        return extra == ""
    plain = requirement.marker.evaluate({**platform, "extra": ""})
    return plain if extra == "" else not plain and requirement.marker.evaluate({**platform, "extra": extra})
