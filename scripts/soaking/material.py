"""What the workflows of a soak work on: tiny data made once, and a copy of it for each fault."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bundle.checkpoint import save_atomically
from bundle.networks import ResnetGenerator
from bundle.phantom import make_phantom

__all__ = ["Place", "make_material"]

SIZE = 32
_SALT = bytes(range(32)).hex()
"""Of the pseudonyms: with the salt that the command would draw, no two runs would name patients alike."""


@dataclass(frozen=True)
class Place:
    """The folders of one run: ``input`` is a copy of its own, so that files in it can be damaged."""

    root: Path

    @property
    def input(self) -> Path:
        """What is read."""
        return self.root / "input"

    @property
    def output(self) -> Path:
        """What is written."""
        return self.root / "output"

    def fill(self, material: Path, workflow: str) -> None:
        """Copy what a workflow reads, and put a file of somebody else's into its output folder."""
        shutil.copytree(material / workflow, self.input)
        self.output.mkdir()
        (self.output / "notes.txt").write_text("not of the run", encoding="utf-8")
        if workflow == "preparation":
            (self.output.parent / "private").mkdir()
            (self.output.parent / "private" / "salt.txt").write_text(_SALT, encoding="utf-8")


def make_material(folder: Path) -> None:
    """Make what each workflow reads, in a folder of its name: phantom pairs, a DICOM archive, mammograms, weights."""
    for workflow in ("training", "cross-validation"):
        make_phantom(folder / workflow, patients=6, size=SIZE, num_folds=3, workers=1, progress=False)
    _write_archive(folder / "preparation")
    _write_mammograms(folder / "inference")


def _write_archive(folder: Path) -> None:
    """LE and DES of both views of both breasts of three patients, as DICOM, and a file that no pair needs."""
    # The archives of the tests are generated there; the soak runs in a checkout, which has them.
    from bundle.dicom import Kind
    from tests.archives.dicom_files import write_dicom
    from tests.archives.phantom import phantom_pairs

    for number, pair in enumerate(phantom_pairs(3, 64)):
        how: dict[str, Any] = {"patient_id": f"MRN-{pair.patient}", "laterality": pair.laterality, "view": pair.view}
        time = f"10{15 + 2 * (number % 4):02d}"
        low, recombined = (folder / f"study{pair.patient}" / f"{kind}{number:02d}.dcm" for kind in ("low", "rec"))
        write_dicom(low, pair.image, acquired=f"{time}00", **how)
        window = (2105.0, 380.0)
        write_dicom(recombined, pair.label, kind=Kind.SUBTRACTED, acquired=f"{time}01", window=window, **how)
    (folder / "readme.txt").write_text("an archive", encoding="utf-8")


def _write_mammograms(folder: Path) -> None:
    from PIL import Image

    from tests.archives.dicom_files import write_dicom
    from tests.archives.phantom import phantom_pairs

    for number, pair in enumerate(phantom_pairs(2, 64)):
        how: dict[str, Any] = {"patient_id": f"MRN-{pair.patient}", "laterality": pair.laterality, "view": pair.view}
        write_dicom(folder / "LE" / f"patient{pair.patient}" / f"{number:02d}.dcm", pair.image, **how)
    for number, pair in enumerate(phantom_pairs(2, 64)[:3]):
        Image.fromarray(pair.image).save(folder / "LE" / f"{number:02d}.png")
    torch.manual_seed(0)
    save_atomically(ResnetGenerator(width=4, blocks=1).state_dict(), folder / "weights.pt")
