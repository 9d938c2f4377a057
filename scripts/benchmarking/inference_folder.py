"""A folder of DICOM mammograms through configs/inference.json: overlapped, and one part after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from monai.bundle import ConfigParser

from bundle.inference import VirtualDESWriter
from bundle.inference.write_behind import WriteBehind
from bundle.networks import ResnetGenerator
from scripts.benchmarking.measure import Row, compare, ratio
from scripts.benchmarking.samples import SYNTAXES, mammogram, write_dicom

__all__ = ["rows"]

PART = "infer"
ROOT = Path(__file__).resolve().parents[2]


def rows(
    images: int = 6,
    size: int = 256,
    width: int = 64,
    blocks: int = 9,
    full_size: tuple[int, int] | None = None,
    budget_s: float = 40.0,
) -> list[Row]:
    """Images a second, the share of each part of the work, and what overlapping them gains.

    Args:
        images: files in the folder, in each of the four transfer syntaxes in turn.
        size: side of what the network sees.
        width: of the network.
        blocks: of the network.
        full_size: (rows, columns) of the mammograms; default 3328 x 2560.
        budget_s: longest time for the comparison.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(images):
            syntax = list(SYNTAXES.values())[number % len(SYNTAXES)]
            write_dicom(folder / "LE" / f"{number}.dcm", mammogram(number, *(full_size or ())), syntax, 200 + number)
        torch.manual_seed(0)
        torch.save(ResnetGenerator(width=width, blocks=blocks).state_dict(), folder / "model.pt")
        options = {"image_size": size, "network_def#width": width, "network_def#blocks": blocks}
        return _compared(_Runs(folder, options), images, budget_s)


def _compared(runs: _Runs, images: int, budget_s: float) -> list[Row]:
    writers: dict[str, VirtualDESWriter] = {}
    contestants: dict[str, Callable[[], Any]] = {
        "one after the other": lambda: writers.__setitem__("one", runs.run(overlapped=False)),
        "overlapped": lambda: writers.__setitem__("overlapped", runs.run(overlapped=True)),
    }
    timings = compare(contestants, 3, budget_s)
    _require_equal(*(writer.sources.output_dir for writer in writers.values()))
    speed = writers["one"].speed  # without overlap no part waits for another's processor
    work = speed.decoding + speed.model + speed.encoding
    gain = ratio(timings, "one after the other", "overlapped")
    quickest = work / max(speed.decoding, speed.model, speed.encoding)
    found = [
        Row(PART, "DICOM folder", images / timings["overlapped"].median, "images/s", "", str(timings["overlapped"])),
        Row(
            PART,
            "overlapped against one after the other",
            gain,
            "x",
            "",
            f"at most {quickest:.2f} with free processors",
        ),
    ]
    for part in ("decoding", "model", "encoding"):
        seconds = getattr(speed, part)
        note = f"{seconds / images:.3f} s an image, one after the other"
        found.append(Row(PART, f"share of {part} in the work", 100 * seconds / work, "%", "", note))
    return found


class _Runs:
    """Runs of the config on one folder, each into a folder of its own."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder, self.options, self._number = folder, options, count()

    def run(self, overlapped: bool) -> VirtualDESWriter:
        """Make all virtual DES; without overlap the images are read, translated and written in one thread."""
        parser = ConfigParser()
        parser.read_config(ROOT / "configs" / "inference.json")
        paths = {"bundle_root": ROOT, "dataset_dir": self.folder / "LE", "model_path": self.folder / "model.pt"}
        paths["output_dir"] = self.folder / f"out{next(self._number)}"
        parser.update({name: str(path) for name, path in paths.items()})
        parser.update({**self.options, "deterministic_uids": True})
        if not overlapped:
            parser["dataloader#_target_"] = "DataLoader"
            parser["dataloader#num_workers"] = 0
        writer: VirtualDESWriter = parser.get_parsed_content("handlers#0")
        if not overlapped:
            writer.behind = _AtOnce()
        weights = torch.load(self.folder / "model.pt", weights_only=True)
        parser.get_parsed_content("network").load_state_dict(weights)
        parser.get_parsed_content("evaluator").run()
        try:
            writer.close()
        except SystemExit as error:
            raise RuntimeError(f"images of the benchmark failed: {writer.report.path.read_text()}") from error
        return writer


class _AtOnce(WriteBehind):
    """Does a task while the caller waits."""

    def add(self, task: Callable[[], None]) -> None:
        """Do it."""
        task()


def _require_equal(*folders: Path) -> None:
    first, second = (sorted(folder.glob("*.dcm")) for folder in folders)
    if [path.name for path in first] != [path.name for path in second] or not first:
        raise RuntimeError("the two ways wrote different files")
    for one, other in zip(first, second, strict=True):
        if not np.array_equal(pydicom.dcmread(one).pixel_array, pydicom.dcmread(other).pixel_array):
            raise RuntimeError(f"{one.name}: the two ways gave different pixels")
