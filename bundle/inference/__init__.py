"""From a folder of low-energy mammograms to a folder of virtual DES: find the images, survive broken ones, write.

The parts meet in ``configs/inference.json``: the handler ``VirtualDESWriter`` says which images are pending,
``TolerantDataset`` reads them, the evaluator predicts, and the handler writes. It stays the first of the handlers,
since ``@handlers#0`` names it by its place.
"""

from __future__ import annotations

from bundle.inference.dataset import TolerantDataset
from bundle.inference.reading import ReadAheadLoader
from bundle.inference.report import ReportRow
from bundle.inference.sources import OUTPUT_SUFFIX, Sources, find_images
from bundle.inference.writer import VirtualDESWriter

__all__ = [
    "OUTPUT_SUFFIX",
    "ReadAheadLoader",
    "ReportRow",
    "Sources",
    "TolerantDataset",
    "VirtualDESWriter",
    "find_images",
]
