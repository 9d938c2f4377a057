"""All packages of all environments with version, licence and needs, read from installed metadata and kept in a file.

The file, ``inventory.json`` beside this module, serves who has not all environments: the tests, and the list of
contents (SBOM) of a zip, which is the same on every machine.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from bundle.files import write_text
from scripts.supply.environments import ENVIRONMENTS, ROOT, Environment, Pin, applies, closure, read_pins, roots_of
from scripts.supply.policy import DECLARED, spdx_of

__all__ = ["FILE", "Package", "collect", "packages_of", "read_inventory", "write_inventory"]

FILE = ROOT / "scripts" / "supply" / "inventory.json"
#: A CUDA build of torch brings these, in the versions that it names itself; its CPU build does not.
_OF_CUDA = ("cuda-", "nvidia-", "triton")


@dataclass(frozen=True)
class Package:
    """One package in one version.

    Args:
        name: as the pins spell it.
        version: exact.
        licence: SPDX expression.
        environments: that install it.
        requires: what it needs on the platform of the pins, by the extra for which it does, "" for none.
    """

    name: str
    version: str
    licence: str
    environments: tuple[str, ...] = ()
    requires: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Canonical name and version."""
        return canonicalize_name(self.name), self.version


def read_inventory(file: Path = FILE) -> list[Package]:
    """The packages that the file lists."""
    return [
        Package(
            one["name"],
            one["version"],
            one["licence"],
            tuple(one["environments"]),
            {extra: tuple(needs) for extra, needs in one["requires"].items()},
        )
        for one in json.loads(file.read_text(encoding="utf-8"))
    ]


def write_inventory(packages: Iterable[Package], file: Path = FILE) -> None:
    """Write one line a package, so that a change of one is one line in a diff."""
    lines = ",\n".join(json.dumps(asdict(one)) for one in packages)
    write_text(file, f"[\n{lines}\n]\n")


def packages_of(environment: Environment, packages: Iterable[Package]) -> dict[str, Package]:
    """The packages of an environment by canonical name, each with the needs of those extras alone that are asked of it.

    Raises:
        ValueError: one of its pins is not among ``packages``.
    """
    known = {one.key: one for one in packages}
    pins = read_pins(*environment.pins)
    missing = [f"{pin.name} {pin.version}" for name, pin in pins.items() if (name, pin.version) not in known]
    if missing:
        raise ValueError(f"not in {FILE.name}: {', '.join(missing)} ({environment.name}). Renew it: make licences")
    all_of_it = {name: known[name, pin.version] for name, pin in pins.items()}
    needs = {name: one.requires for name, one in all_of_it.items()}
    reached = closure(roots_of(environment), lambda name, extra: needs[name].get(extra, ()))
    return {
        name: replace(all_of_it[name], requires={extra: needs[name].get(extra, ()) for extra in sorted(extras)})
        for name, extras in reached.items()
    }


def collect(folders: Mapping[str, Path], kept: Iterable[Package]) -> list[Package]:
    """Every package of every environment.

    Args:
        folders: where environments are installed, by their ``folder``.
        kept: what is known of the packages of environments that are not in ``folders``.

    Raises:
        ValueError: a package is installed in another version than pinned, or its licence is unknown, or a pin of an
            environment that is not installed here is not in ``kept`` either.
    """
    found: dict[tuple[str, str], Package] = {}
    members: dict[tuple[str, str], list[str]] = {}
    kept = list(kept)
    for environment in ENVIRONMENTS:
        for package in _of(environment, folders, kept):
            earlier = found.get(package.key)
            needs = {**earlier.requires, **package.requires} if earlier else package.requires
            found[package.key] = replace(earlier or package, requires=dict(sorted(needs.items())))
            members.setdefault(package.key, []).append(environment.name)
    return [replace(found[key], environments=tuple(members[key])) for key in sorted(found)]


def _of(environment: Environment, folders: Mapping[str, Path], kept: list[Package]) -> Iterator[Package]:
    installed = _installed_in(folders[environment.folder]) if environment.folder in folders else None
    if installed is None or not _added(environment) <= installed.distributions.keys():
        yield from packages_of(environment, kept).values()
        return
    pins = read_pins(*environment.pins)
    for name, extras in closure(roots_of(environment), installed.needs).items():
        if name not in pins:
            raise ValueError(f"{name} is needed for {environment.name} but pinned in none of {environment.pins}")
        requires = {extra: installed.needs(name, extra) for extra in sorted(extras)}
        yield Package(pins[name].name, pins[name].version, installed.licence(pins[name]), requires=requires)


def _added(environment: Environment) -> set[str]:
    """What a command of its own, such as ``make radiomics``, adds to the folder of other environments."""
    shared = [one for one in ENVIRONMENTS if one.folder == environment.folder and one != environment]
    own = set(environment.pins).difference(*(one.pins for one in shared))
    return {*read_pins(*sorted(own))} if shared else set()


class _Installed:
    """The packages of one folder; what was asked once is remembered, since reading metadata takes a while."""

    def __init__(self, folder: Path) -> None:
        places = [str(place) for place in folder.glob("lib/python*/site-packages")]
        found = importlib.metadata.distributions(path=places)
        self.distributions = {str(canonicalize_name(one.name)): one for one in found}
        self.needs = functools.cache(self._needs)
        self.licence = functools.cache(self._licence)

    def _needs(self, name: str, extra: str) -> tuple[str, ...]:
        if name in DECLARED:
            return DECLARED[name][1] if extra == "" else ()
        if name not in self.distributions:
            raise ValueError(f"{name} is not installed where it should be; run make for that environment")
        chosen = [one for one in map(Requirement, self.distributions[name].requires or []) if applies(one, extra)]
        if name == "torch":
            chosen = [one for one in chosen if not canonicalize_name(one.name).startswith(_OF_CUDA)]
        return tuple(sorted({_without_marker(one) for one in chosen}))

    def _licence(self, pin: Pin) -> str:
        name = canonicalize_name(pin.name)
        if name in DECLARED:
            return DECLARED[name][0]
        there = self.distributions[name]
        if not pin.is_commit and Version(there.version).public != pin.version:
            raise ValueError(f"{pin.name} is installed in version {there.version}, pinned to {pin.version}; run make")
        metadata = there.metadata
        stated = {key: metadata[key] for key in ("License-Expression", "License") if key in metadata}
        return spdx_of(name, stated, metadata.get_all("Classifier") or [])


_installed_in = functools.cache(_Installed)


def _without_marker(requirement: Requirement) -> str:
    requirement.marker = None
    return str(requirement)
