"""The network as one TorchScript file that needs none of this bundle's Python code."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import save_net_with_metadata
from monai.networks import convert_to_torchscript
from numpy.typing import NDArray

from bundle.exports import RECORD, recorded, stale_reason
from bundle.files import atomic_path
from scripts.exporting.comparison import Run, check_agreement
from scripts.exporting.source import ROOT, Source, read_config, read_metadata

__all__ = ["outdated_reason", "write_torchscript"]

_CONSTANTS = re.compile(r"(?:^  \w+ : Final\[.*\n)+", re.MULTILINE)


def write_torchscript(source: Source, path: Path) -> list[str]:
    """Write the network with ``metadata.json`` and ``inference.json`` inside, as MONAI's ``ckpt_export`` does.

    Unlike there, the config inside holds the overrides, a record says of which weights the file is, and the same
    weights and config give the same bytes. Weights in 16 bits stay so: the file is half as large, and computes in 32.

    Returns:
        The differences from the eager network, one line a shape.

    Raises:
        DifferenceError: the TorchScript computes something else; ``path`` is left as it was.
    """
    files = {"inference.json": source.config, RECORD: _record(source)}
    # MONAI Deploy looks for the configs in a folder of the archive that is named as the file
    with atomic_path(path) as unfinished, tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        raw = Path(folder, path.name)
        save_net_with_metadata(
            convert_to_torchscript(deepcopy(source.network).to(source.precision)),
            str(raw),
            meta_values=source.metadata,
            include_config_vals=False,
            more_extra_files={name: json.dumps(content).encode() for name, content in files.items()},
        )
        _reproducible(raw, unfinished)
        return check_agreement("TorchScript", source.network, _runner(unfinished))


def outdated_reason(weights: Path, overrides: Mapping[str, Any], root: Path = ROOT) -> str | None:
    """Say why the TorchScript beside ``weights`` is not what an export would write now; None if it is.

    Without ``overrides``, those that the file was made with count.
    """
    path = weights.with_suffix(".ts")
    if not path.is_file():
        return f"there is no {path}"
    record = recorded(path)
    stale = stale_reason(weights)
    if record is None or stale:
        return stale
    config = read_config(overrides or record["overrides"], root)
    metadata = read_metadata(record["weights_sha256"], root)
    with zipfile.ZipFile(path) as archive:
        for name, content in (("inference.json", config), ("metadata.json", metadata)):
            if json.loads(archive.read(f"{path.stem}/extra/{name}")) != json.loads(json.dumps(content)):
                return f"{name} inside {path} is not that of the bundle"
    return None


def _record(source: Source) -> dict[str, object]:
    return {"weights_sha256": source.weights_sha256, "overrides": source.overrides}


def _runner(path: Path) -> Run:
    module = torch.jit.load(str(path), map_location="cpu").eval()

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output: NDArray[np.float32] = module(torch.from_numpy(image)).numpy()
        return output

    return run


def _reproducible(raw: Path, target: Path) -> None:
    """Copy an archive of ``torch.jit.save`` without what differs between machines and runs.

    Left out are the debug files, which name folders of this machine, and torch's number of this writing; constants of
    a class, which torch writes in the order of a Python set, are sorted. Nothing of it is read by the network.
    """
    with zipfile.ZipFile(raw) as archive, zipfile.ZipFile(target, "w") as copy:
        for entry in archive.infolist():
            if entry.filename.endswith((".debug_pkl", "/serialization_id")):
                continue
            content = archive.read(entry)
            if entry.filename.endswith(".py"):
                content = _CONSTANTS.sub(_sorted_lines, content.decode()).encode()
            copy.writestr(zipfile.ZipInfo(entry.filename), content, compress_type=zipfile.ZIP_STORED)


def _sorted_lines(match: re.Match[str]) -> str:
    return "".join(sorted(match[0].splitlines(keepends=True)))
