"""Silence libraries whose warnings quote the header of a file, which may name the patient."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet", "stay_quiet"]

_LIBRARIES = ("pydicom", "highdicom", "pylibjpeg")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and the log of the DICOM libraries in the body of the ``with``."""
    levels = {name: logging.getLogger(name).level for name in _LIBRARIES}
    with warnings.catch_warnings():
        stay_quiet()
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def stay_quiet() -> None:
    """Silence them from now on: for a process that does nothing else."""
    warnings.simplefilter("ignore")
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
