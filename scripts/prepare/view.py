"""What an importer hands over: the views it found, and what it left out. Arrays here are (H, W), row 0 on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ImageSource", "LeftOut", "MaskSource", "Pixels", "View"]


@dataclass(frozen=True)
class Pixels:
    """One decoded image as it is stored, dense tissue bright.

    Attributes:
        values: (H, W) grey values, of any number type.
        window: display window (centre, width) in the units of ``values``; exactly [centre - width / 2,
            centre + width / 2]. None where the source gives none.
        pixel_mm: distance of neighbouring pixels in mm, None where unknown.
        mirrored: left and right must be exchanged to have the chest wall of a left breast at the left edge.
        upside_down: top and bottom must be exchanged.
        notes: what was repaired, ignored or guessed; they name nobody.
        direction: where columns and rows run, as ``direction_of`` gives it; None where the file does not say.
    """

    values: NDArray[Any]
    window: tuple[float, float] | None = None
    pixel_mm: float | None = None
    mirrored: bool = False
    upside_down: bool = False
    notes: tuple[str, ...] = ()
    direction: tuple[float, ...] | None = None


class ImageSource(Protocol):
    """Where an image comes from. A frozen dataclass whose ``repr`` says all that its result depends on."""

    @property
    def path(self) -> Path:
        """The file."""

    def read(self) -> Pixels:
        """Decode it; ``bundle.reader.ImageFileError`` when it cannot be used."""


class MaskSource(Protocol):
    """Where a lesion mask comes from. A frozen dataclass whose ``repr`` says all that its result depends on."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files it is read from, if any."""

    def read(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask, (H, W), on the grid of its image as stored, which has this ``shape``.

        Raises:
            ImageFileError: the mask cannot be used, for instance because it has another size.
        """


@dataclass(frozen=True)
class View:
    """One view of one breast: a pair of images, its masks and what is known about it.

    Attributes:
        name: unique in the data set and usable as a file name, such as ``P1_L_CC``; files written are called so.
        patient_id: text; all views of a patient get one fold.
        laterality: ``L`` or ``R``.
        view: ``CC``, ``MLO`` or another text.
        image: the low-energy image (LE).
        label: the subtracted image (DES).
        mask: lesions drawn on the LE image.
        label_mask: lesions drawn on the DES image.
        info: text and numbers worth keeping; the data card counts by ``label`` (normal, benign, malignant), ``density``
            (A to D) and ``vendor`` where they are there.
        fold: the source's own fold; None lets new folds be drawn.
        same_grid: True: LE and DES of equal shape lie on one grid, as a device writes them, and are never registered.
            False: they are registered, unless the breasts coincide as they are.
    """

    name: str
    patient_id: str
    laterality: Literal["L", "R"]
    view: str
    image: ImageSource
    label: ImageSource
    mask: MaskSource | None = None
    label_mask: MaskSource | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    fold: int | None = None
    same_grid: bool = False


@dataclass(frozen=True)
class LeftOut:
    """A file or a view that did not become a case.

    Attributes:
        name: the view, or what is known of it; ``-`` if nothing.
        file: the file as reports may name it (relative to the archive; a pseudonym where paths may name patients).
        reason: what was found.
        remedy: what to do about it; empty for what no pair needs.
        needed: False for files that no training pair needs (high-energy images, tomosynthesis): listed, but no reason
            for the exit code to say that something was excluded.
    """

    name: str
    file: str
    reason: str
    remedy: str = ""
    needed: bool = True
