"""The targets by name: what each tries, and the readers that get it."""

from __future__ import annotations

import importlib
from types import MappingProxyType

from hypothesis.strategies import SearchStrategy

from scripts.fuzzing.attempts import Readers
from scripts.fuzzing.tried import Input

__all__ = ["TARGETS", "inputs_of", "readers_of"]

TARGETS = MappingProxyType(
    {
        "dicom": "DICOM files: reader, inference sources, archive scan and pairing, derived objects",
        "images": "PNG, JPEG, TIFF, BMP and NIfTI images and masks",
        "nrrd": "NRRD and MetaImage images and masks",
        "datalist": "datalist.json and what it names",
        "tables": "xlsx and csv of CDD-CESM, lists of CESM@UCBM, csv of image folders",
        "checkpoint": "model.pt, checkpoint.pt, best_networks.pt, a federation's global model",
        "zip": "zip archives: TorchScript exports and bundles that are downloaded",
        "report": "summaries and tables that the report reads",
        "config_names": "names and values of a config that a command line changes",
    }
)
"""Name -> what is read. Inputs are drawn in `inputs_NAME` and read in `read_NAME`, which imports the slow libraries."""


def inputs_of(name: str) -> SearchStrategy[Input]:
    """What is tried on a target."""
    strategy: SearchStrategy[Input] = importlib.import_module(f"scripts.fuzzing.inputs_{name}").inputs()
    return strategy


def readers_of(name: str) -> Readers:
    """The readers of a target."""
    readers: Readers = importlib.import_module(f"scripts.fuzzing.read_{name}").READERS
    return readers
