"""How a DICOM image is meant to be shown: windows and lookup tables (VOI)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy.special import expit

from bundle.dicom.header import first_item, floats, is_big_endian, text, values
from bundle.dicom.tables import through_table

__all__ = ["Shown", "shown", "window_of"]

Window = tuple[float, float]
_SIGMOID_TOP = 65535.0


class Shown(NamedTuple):
    """Grey values, the window (centre, width) in their units, and what was noticed.

    ``top`` is the largest output of a table or function that was applied, whose smallest is 0; None if none was.
    """

    values: NDArray[Any]
    window: Window | None
    top: float | None
    notes: tuple[str, ...]


def window_of(header: Dataset) -> Window | None:
    """The first window as (centre, width), showing exactly [centre - width / 2, centre + width / 2]; None without one.

    A LINEAR window (c, w) of DICOM, the default, shows [c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2], so it is given
    as (c - 0.5, w - 1); a LINEAR_EXACT one as it is. The units are those after the modality transformation, before
    any inversion. None for SIGMOID, and for values that make no window.

    References:
        DICOM PS3.3 C.11.2.1.2.1 and C.11.2.1.3.2.
    """
    return _first_window(header)[0]


def _first_window(header: Dataset) -> tuple[Window | None, list[str]]:
    centres, widths = floats(header, "WindowCenter"), floats(header, "WindowWidth")
    if not values(header, "WindowCenter") and not values(header, "WindowWidth"):
        return None, []
    if not centres or not widths:
        return None, ["WindowCenter and WindowWidth are not both numbers: ignored"]
    function = text(header, "VOILUTFunction") or "LINEAR"
    notes = [f"{len(centres)} windows: the first is used"] if len(centres) > 1 else []
    if function == "SIGMOID":
        return None, notes
    if function not in ("LINEAR", "LINEAR_EXACT"):
        notes.append("VOILUTFunction is unknown: taken as LINEAR")
    exact = function == "LINEAR_EXACT"
    centre, width = (centres[0], widths[0]) if exact else (centres[0] - 0.5, widths[0] - 1)
    if width <= 0:
        return None, [*notes, f"a window of width {widths[0]:g} shows nothing: ignored"]
    return (centre, width), notes


def shown(pixels: NDArray[Any], header: Dataset) -> Shown:
    """Apply what is more than a window, and find the window.

    A VOI LUT Sequence (the first table; it goes before a window) or a SIGMOID function is applied to ``pixels``; the
    window is then the whole range of the output. A linear window leaves ``pixels`` as they are.

    Args:
        pixels: (H, W) values after the modality transformation.
        header: attributes of the image.
    """
    table = first_item(header, "VOILUTSequence")
    notes: list[str] = []
    if table is not None:
        try:
            baked, top = through_table(pixels, table, is_big_endian(header))
        except (TypeError, ValueError) as error:
            notes.append(f"the VOI LUT cannot be used ({error}): ignored")
        else:
            return Shown(baked, (top / 2, top), top, _table_notes(header))
    window, more = _first_window(header)
    notes += more
    if window is None and (parameters := _sigmoid(header)) is not None:
        return _through_sigmoid(pixels, parameters, notes)
    return Shown(pixels, window, None, tuple(notes))


def _table_notes(header: Dataset) -> tuple[str, ...]:
    notes = ["VOI LUT applied"]
    if (count := len(values(header, "VOILUTSequence"))) > 1:
        notes.append(f"{count} VOI LUTs: the first is used")
    if values(header, "WindowCenter"):
        notes.append("a window beside the VOI LUT: ignored")
    return tuple(notes)


def _sigmoid(header: Dataset) -> Window | None:
    centres, widths = floats(header, "WindowCenter"), floats(header, "WindowWidth")
    usable = bool(centres) and bool(widths) and widths[0] > 0
    return (centres[0], widths[0]) if usable and text(header, "VOILUTFunction") == "SIGMOID" else None


def _through_sigmoid(pixels: NDArray[Any], parameters: Window, notes: list[str]) -> Shown:
    """The values ``top / (1 + exp(-4 (v - c) / w))`` (PS3.3 C.11.2.1.3.1), with 16 bits at the output."""
    centre, width = parameters
    baked = _SIGMOID_TOP * expit(4 * (pixels.astype(np.float64) - centre) / width)
    window = (_SIGMOID_TOP / 2, _SIGMOID_TOP)
    return Shown(baked.astype(np.float32), window, _SIGMOID_TOP, (*notes, "SIGMOID window applied"))
