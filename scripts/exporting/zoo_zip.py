"""The bundle as one zip, as the model zoo and ``monai.bundle download`` have it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from bundle.files import atomic_path, json_text, sha256_of, write_text
from scripts.config_values import with_overrides
from scripts.exporting.sbom import SBOM, sbom_text
from scripts.exporting.source import CARD, Source, has_card

__all__ = ["NAME", "write_zip", "zip_path"]

NAME = "cesm_virtual_contrast"
_FOLDERS = ("bundle", "configs", "docs")
_FILES = ("LICENSE", "models/README.md")
_KINDS = {".py", ".json", ".yaml", ".conf", ".md", ".txt", ".csv", ".png", ".svg", ".jpg"}
_BASE_PACKAGES = {"torch": "pytorch_version", "monai": "monai_version", "numpy": "numpy_version"}
_MEGABYTE = 1_000_000


def zip_path(source: Source, folder: Path) -> Path:
    """Where the zip of this version goes."""
    return folder / f"{NAME}_v{source.metadata['version']}.zip"


def write_zip(
    source: Source, torchscript: Path, path: Path, weights_url: str | None, max_megabytes: float
) -> list[str]:
    """Write what a user of the trained network needs, below one folder, and nothing else.

    That is the code that configs name, the configs with the overrides of ``source`` written into them, the documents,
    the licence, ``requirements.txt`` from the versions in ``metadata.json``, a list of all that is inside and needed
    (``sbom.cdx.json``), both forms of the weights, and the model card with its figures if it is about these weights.
    Weights of more than ``max_megabytes`` are left out and named in ``large_files.yml``. The same files give the same
    bytes: names are sorted, times and permissions fixed, nothing is compressed. Beside the zip stands its SHA-256, as
    ``sha256sum --check`` reads it.

    Returns:
        Paths of the weights that have to be put at ``weights_url``.

    Raises:
        ModuleNotFoundError: packages of the extra ``export`` are missing.
        ValueError: weights are too large and no ``weights_url`` is given.
    """
    weights = {"models/model.pt": source.weights, "models/model.ts": torchscript}
    large = {name: file for name, file in weights.items() if file.stat().st_size > max_megabytes * _MEGABYTE}
    if large and not weights_url:
        sizes = ", ".join(f"{file} ({file.stat().st_size / _MEGABYTE:.0f} MB)" for file in large.values())
        raise ValueError(
            f"{sizes}: larger than the {max_megabytes:g} MB that a file in the zoo may have; say with --weights-url "
            "where these files can be downloaded, or put them into the zip with a larger --max-megabytes"
        )
    content = _texts(source) | {SBOM: sbom_text(NAME, source.metadata, weights).encode()}
    content |= {name: file.read_bytes() for name, file in weights.items() if name not in large}
    if large:
        content["large_files.yml"] = _large_files(large, str(weights_url)).encode()
    with atomic_path(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(content):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, so that the permissions count
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content[name])
    write_text(path.with_name(f"{path.name}.sha256"), f"{sha256_of(path)}  {path.name}\n")
    return [str(file) for file in large.values()]


def _texts(source: Source) -> dict[str, bytes]:
    folders = (*_FOLDERS, CARD) if has_card(source.weights_sha256, source.root) else _FOLDERS
    found = [file for folder in folders for file in (source.root / folder).rglob("*") if _is_wanted(file, source.root)]
    files = {file.relative_to(source.root).as_posix(): file for file in [*found, *map(source.root.joinpath, _FILES)]}
    content = {name: file.read_bytes() for name, file in files.items()}
    content["configs/metadata.json"] = json_text(source.metadata).encode()
    content["requirements.txt"] = _requirements(source.metadata).encode()
    return content | _changed_configs(source)


def _is_wanted(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).parts
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return file.is_file() and file.suffix in _KINDS and not hidden


def _changed_configs(source: Source) -> dict[str, bytes]:
    """Return the complete configs with the overrides; ``monai.bundle.load`` reads the network from train.json."""
    if not source.overrides:
        return {}
    changed = {}
    for name in ("inference.json", "train.json"):
        config = ConfigParser.load_config_file(source.root / "configs" / name)
        ids = ConfigParser(config=config)
        own = {key: value for key, value in source.overrides.items() if key in ids}
        changed[f"configs/{name}"] = json_text(with_overrides(config, own)).encode()
    return changed


def _requirements(metadata: Mapping[str, Any]) -> str:
    base = {name: metadata[key] for name, key in _BASE_PACKAGES.items()}
    packages = {**base, **metadata["required_packages_version"]}
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages.items(), key=lambda one: one[0].lower()))


def _large_files(large: Mapping[str, Path], url: str) -> str:
    entries = [
        {
            "path": name,
            "url": f"{url.rstrip('/')}/{Path(name).name}",
            "hash_val": sha256_of(file),
            "hash_type": "sha256",
        }
        for name, file in large.items()
    ]
    return str(yaml.safe_dump({"large_files": entries}, sort_keys=False))
