"""The version of the bundle, as ``configs/metadata.json`` states it."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["METADATA", "bundle_version"]

METADATA = Path(__file__).resolve().parents[1] / "configs" / "metadata.json"


def bundle_version() -> str | None:
    """The version, or None where the code lies without its configs."""
    version = json.loads(METADATA.read_text(encoding="utf-8")).get("version") if METADATA.is_file() else None
    return str(version) if version is not None else None
