"""Files that are made from a network's weights and are wrong once the weights change.

MONAI Deploy prefers ``model.ts`` to ``model.pt`` without asking which is newer, so one of older weights must not stay.
"""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

from bundle.files import sha256_of

__all__ = ["EXPORT_SUFFIXES", "RECORD", "recorded", "remove_exports", "stale_reason"]

logger = logging.getLogger("cesm")

EXPORT_SUFFIXES = (".ts", ".onnx", ".xml", ".bin")
"""TorchScript, ONNX, and OpenVINO's pair of files, beside the weights and with their stem."""
RECORD = "export.json"
"""Name of the record inside an exported TorchScript archive: of which weights, with which overrides of the config."""


_LARGEST_RECORD = 2**20
"""Bytes; a few are packed bytes of many."""


def recorded(archive: str | Path) -> dict[str, Any] | None:
    """Return what the export wrote down in a TorchScript archive, or None if it is not one of this bundle's export."""
    try:
        with zipfile.ZipFile(archive) as content:
            entry = next(entry for entry in content.infolist() if entry.filename.endswith(f"/extra/{RECORD}"))
            record = json.loads(content.read(entry)) if entry.file_size <= _LARGEST_RECORD else None
    except (FileNotFoundError, PermissionError):
        raise
    except Exception:  # of a damaged archive; or it is encrypted, or compressed in an unusual way
        return None
    return record if isinstance(record, dict) else None


def stale_reason(weights: str | Path) -> str | None:
    """Say why the TorchScript beside ``weights`` is not of these weights; None if it is, or if there is none."""
    archive = Path(weights).with_suffix(".ts")
    if not archive.is_file():
        return None
    record = recorded(archive)
    if record is None:
        return f"{archive} does not say of which weights it was made"
    if not Path(weights).is_file():
        return f"{archive} is of weights that are not there: {weights}"
    if record.get("weights_sha256") != sha256_of(weights):
        return f"{archive} is of other weights than {weights}"
    return None


def remove_exports(weights: str | Path) -> None:
    """Remove what was exported from weights that are about to be replaced, and say so.

    To be called before the new weights get their name: then no moment and no crash leaves an export that looks valid.
    """
    for suffix in EXPORT_SUFFIXES:
        export = Path(weights).with_suffix(suffix)
        if export.is_file():
            export.unlink()
            logger.info(
                f"removed {export}: it was of the weights that are replaced now; scripts/export.py makes it anew"
            )
