"""A synthetic archive in the layout of CESM@UCBM: 16-bit NRRD images, and tab-separated lists with backslash paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import itk
import numpy as np
from numpy.typing import NDArray

from tests.archives.phantom import PhantomPair, phantom_pairs

HEADER = ("id", "img_x", "img_y", "r_l", "wc_x", "ww_x", "wc_y", "ww_y")
Cells = dict[str, str]


@dataclass
class Archive:
    """What was written, by id, and the rows with which lists can be written.

    Attributes:
        folder: holds ``Dataset``, ``masks`` and ``lists``.
        pairs: the truth.
        rows: a correct row of each pair.
    """

    folder: Path
    pairs: dict[str, PhantomPair] = field(default_factory=dict)
    rows: dict[str, Cells] = field(default_factory=dict)

    @property
    def lists(self) -> Path:
        return self.folder / "lists"

    def of(self, *patients: int) -> list[Cells]:
        """The rows of some patients, as the first, second ... of the phantom."""
        return [row for name, row in self.rows.items() if self.pairs[name].patient in patients]

    def write_list(self, name: str, rows: Iterable[Mapping[str, str]]) -> Path:
        file = self.lists / name
        file.parent.mkdir(exist_ok=True)
        lines = [HEADER, *([row.get(column, "") for column in HEADER] for row in rows)]
        file.write_bytes("".join("\t".join(cells) + "\r\n" for cells in lines).encode())
        return file

    def image(self, name: str) -> Path:
        return self.folder / "Dataset" / "Low Energy" / f"{name}_LOW_ENERGY.nrrd"

    def label(self, name: str) -> Path:
        return self.folder / "Dataset" / "Recombined" / f"{name}_RECOMBINED.nrrd"


def write_archive(folder: Path, patients: int = 3, size: int = 64) -> Archive:
    """Write images and masks of phantom patients P1, P2 ..., four views each; the lists are left to the test.

    The LE images are as the detector gives them: the skin is far above the air.
    """
    archive = Archive(folder)
    for number, shown in enumerate(phantom_pairs(patients, size)):
        stored = np.where(shown.image > 0, 1000 + shown.image // 2, 0).astype(np.uint16)
        pair = replace(shown, image=stored)
        name = f"P{pair.patient + 1}_{2 * number + 20}_{pair.laterality}{pair.view}"
        archive.pairs[name] = pair
        archive.rows[name] = {
            "id": name,
            "img_x": f"Dataset\\Low Energy\\{name}_LOW_ENERGY.nrrd",
            "img_y": f"Dataset\\Recombined\\{name}_RECOMBINED.nrrd",
            "r_l": pair.laterality,
            "wc_x": str(2000 + number),
            "ww_x": "1500",
            "wc_y": "2085",
            "ww_y": str(265 + number),
        }
        write_nrrd(archive.image(name), pair.image)
        write_nrrd(archive.label(name), pair.label)
        if pair.mask.any():
            write_nrrd(folder / "masks" / f"{name}.nrrd", pair.mask.astype(np.uint8))
    return archive


def write_nrrd(file: Path, values: NDArray[Any]) -> None:
    """Write (H, W) values with the number type they have."""
    file.parent.mkdir(parents=True, exist_ok=True)
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(values)), str(file), compression=True)
