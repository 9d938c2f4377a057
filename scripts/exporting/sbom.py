"""What is inside the zip and what it needs, as a CycloneDX list (software bill of materials, SBOM)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bundle.files import json_text, sha256_of
from scripts.exporting.graphs import require
from scripts.supply.environments import ENVIRONMENTS, Environment, roots_of
from scripts.supply.inventory import Package, packages_of, read_inventory

__all__ = ["SBOM", "sbom_text"]

#: Name of the list in the zip.
SBOM = "sbom.cdx.json"
_CORE = ENVIRONMENTS[0]
_OURS = "Apache-2.0"


def sbom_text(name: str, metadata: Mapping[str, Any], weights: Mapping[str, Path]) -> str:
    """The SBOM in CycloneDX 1.6 JSON.

    It names the bundle with version and licence, every file of weights with its SHA-256, and every package that
    training and inference need, direct or not, with exact version, package URL, licence and what it needs in turn. It
    says nothing of time and machine: the same files give the same text.

    Args:
        name: of the bundle.
        metadata: content of ``configs/metadata.json``.
        weights: files of weights by their name in the bundle, whether or not they are in the zip themselves.

    Raises:
        ModuleNotFoundError: the packages of the extra ``export`` are missing.
        ValueError: a pin is not in the kept list of packages.
    """
    require("cyclonedx", "packageurl")
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    packages = packages_of(_CORE, read_inventory())
    bom = Bom()
    bom.metadata.component = bundle = _bundle(name, metadata, weights)
    components = {key: _library(package) for key, package in packages.items()}
    bom.components.update(components.values())
    bom.register_dependency(bundle, [components[key] for key in sorted(_direct(_CORE))])
    for key, package in packages.items():
        bom.register_dependency(components[key], [components[one] for one in _needs(package)])
    content = json.loads(JsonV1Dot6(bom).output_as_string())
    del content["metadata"]["timestamp"], content["serialNumber"]  # of this run; a number of the content instead:
    content["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content, sort_keys=True)).urn
    return json_text(content)


def _bundle(name: str, metadata: Mapping[str, Any], weights: Mapping[str, Path]) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    files = [
        Component(
            name=inside,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"{name}/{inside}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256_of(file))],
        )
        for inside, file in weights.items()
    ]
    return Component(
        name=name,
        version=metadata["version"],
        type=ComponentType.APPLICATION,
        bom_ref=name,
        description=metadata["task"],
        licenses=_licences(_OURS),
        components=files,
    )


def _library(package: Package) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL("pypi", name=package.name, version=package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        licenses=_licences(package.licence),
    )


def _licences(expression: str) -> list[Any]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(expression)]


def _direct(environment: Environment) -> set[str]:
    return {canonicalize_name(one.name) for one in roots_of(environment)}


def _needs(package: Package) -> list[str]:
    return sorted({canonicalize_name(Requirement(text).name) for texts in package.requires.values() for text in texts})
