"""DICOM mammograms: which kind of image an object is, whose breast it shows, and how its pixels are read."""

from __future__ import annotations

from bundle.dicom.identity import laterality_of, shows_both, view_modifiers, view_of
from bundle.dicom.kind import INPUT_KINDS, Kind, kind_of, refusal
from bundle.dicom.pixels import DicomImage, bright_window_of, read_dicom
from bundle.dicom.spacing import pixel_mm_of
from bundle.dicom.virtual_des import VirtualDESObjects
from bundle.dicom.voi import window_of

__all__ = [
    "INPUT_KINDS",
    "DicomImage",
    "Kind",
    "VirtualDESObjects",
    "bright_window_of",
    "kind_of",
    "laterality_of",
    "pixel_mm_of",
    "read_dicom",
    "refusal",
    "shows_both",
    "view_modifiers",
    "view_of",
    "window_of",
]
