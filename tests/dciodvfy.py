"""What dciodvfy, the checker of the DICOM standard's objects, finds wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["dicom_errors"]


def dicom_errors(path: Path) -> list[str]:
    """The lines that it calls errors, of an object that it recognises as one that we write."""
    program = Path(sys.executable).with_name("dciodvfy")
    checked = subprocess.run([program, "-new", path], capture_output=True, text=True, check=False)
    lines = (checked.stdout + checked.stderr).splitlines()
    assert any("MammographyImageForPresentation" in line or "SCImage" in line for line in lines), lines
    return [line for line in lines if line.startswith("Error")]
