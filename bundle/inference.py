"""From a folder of low-energy mammograms to a folder of virtual DES: find the images, survive broken ones, write.

The parts meet in ``configs/inference.json``::

    "handlers": [
        {"_target_": "bundle.inference.VirtualDESWriter", "dataset_dir": "@dataset_dir", "output_dir": "@output_dir"}
    ],
    "dataset": {
        "_target_": "bundle.inference.TolerantDataset", "data": "$@handlers#0.pending", "transform": "@preprocessing"
    },
    "run": ["$@evaluator.run()", "$@handlers#0.close()"]

The writer stays the first of the evaluator's handlers, since ``@handlers#0`` names it by its place.
"""

from __future__ import annotations

import csv
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ignite.engine import Engine, Events
from monai.data import Dataset
from PIL import Image
from pydicom.misc import is_dicom

from bundle.image_writer import WRITABLE_SUFFIXES, split_name, write_like_source
from bundle.reader import SUFFIXES, file_suffix

OUTPUT_SUFFIX = "_virtual_des"
REPORT_NAME = "report.csv"
DICOM_REFUSAL = "DICOM is not converted by this release; turn the image into PNG, TIFF, NIfTI, NRRD or MHA first"
SOURCE_KEY = "source"
FAILURE_KEY = "failure"

logger = logging.getLogger("cesm")


class ReportRow(NamedTuple):
    """One line of the report; ``image`` and ``output`` are relative to the input and the output folder."""

    image: str
    status: str  # done, skipped or failed
    output: str = ""
    reason: str = ""


def find_images(dataset_dir: str | PathLike[str]) -> list[dict[str, str]]:
    """List the images of a folder, at any depth, or a single file.

    Hidden files and files that already are results (``*_virtual_des.*``) are left out.

    Args:
        dataset_dir: a folder, or one image file.

    Returns:
        ``[{"image": absolute path}]``, sorted by path.

    Raises:
        FileNotFoundError: there is no such folder or file, or no image in it.
    """
    root = Path(dataset_dir).absolute()
    if root.is_file():
        return [{"image": str(root)}]
    if not root.is_dir():
        raise FileNotFoundError(f"no such file or folder: {root}; set dataset_dir to your low-energy images")
    found = sorted(path for path in root.rglob("*") if _is_input(path, root))
    if not found:
        raise FileNotFoundError(
            f"no image in {root} or below; expected files ending in {' '.join(filter(None, SUFFIXES))}"
        )
    return [{"image": str(path)} for path in found]


def _is_input(path: Path, root: Path) -> bool:
    if any(part.startswith(".") for part in path.relative_to(root).parts) or not path.is_file():
        return False
    stem, suffix = split_name(path)
    return not stem.endswith(OUTPUT_SUFFIX) and suffix.lower() in SUFFIXES and (bool(suffix) or is_dicom(path))


def _reason(error: BaseException) -> str:
    """The innermost cause of an error in one line: MONAI wraps what a reader says in several layers."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class TolerantDataset(Dataset):
    """A MONAI dataset in which an unreadable image does not stop the run.

    Every item gets two more strings: ``source``, the path of its image, and ``failure``, empty or the reason why the
    image could not be prepared. In place of such an image a small grey ramp goes through the same transforms, so that
    batching, the network and the inverse transforms work as for any other item; the writer reports the reason.

    Args:
        data: items with the path of an image under ``image``.
        transform: the preprocessing; its first transform loads the image.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__(data=data, transform=transform)

    def _transform(self, index: int) -> dict[str, Any]:
        item = self.data[index]
        source, failure = str(item["image"]), ""
        try:
            prepared = self.transform(dict(item))
        except Exception as error:  # a reader may raise anything at all on a damaged file
            failure = _reason(error)
            with tempfile.TemporaryDirectory() as folder:
                stand_in = Path(folder, "ramp.png")
                Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stand_in)
                prepared = self.transform({**item, "image": str(stand_in)})
        return {**prepared, SOURCE_KEY: source, FAILURE_KEY: failure}


class VirtualDESWriter:
    """Ignite handler that writes one virtual DES for each low-energy image and keeps a report.

    The result of ``<dataset_dir>/a/b.png`` is ``<output_dir>/a/b_virtual_des.png``: the same kind of file, sample depth
    and grid as the source. A result that exists is not made again; delete it to have it made anew. An image that cannot
    be read or written is reported and the run goes on. ``<output_dir>/report.csv`` (image, status, output, reason) is
    complete up to the last image at any time.

    Every item of the engine's output needs ``pred``, ``(1, W, H)`` in 0..255 on the grid of the source, and every item
    of its batch the path of the source under ``source``, as ``TolerantDataset`` provides.

    Args:
        dataset_dir: folder of low-energy images, or one image file.
        output_dir: folder for the results; made when the run starts.

    Raises:
        FileNotFoundError: there is no image in ``dataset_dir``.
    """

    def __init__(self, dataset_dir: str | PathLike[str], output_dir: str | PathLike[str]) -> None:
        root = Path(dataset_dir).absolute()
        self.dataset_dir = root.parent if root.is_file() else root
        self.output_dir = Path(output_dir).absolute()
        self.counts = Counter(done=0, skipped=0, failed=0)
        self.pending: list[dict[str, str]] = []
        self._known: list[ReportRow] = []
        for item in find_images(root):
            row = self._known_outcome(Path(item["image"]))
            if row is None:
                self.pending.append(item)
            else:
                self._known.append(row)
        self._started = False

    def output_path(self, source: Path) -> Path:
        """Where the virtual DES of ``source`` is written."""
        stem, suffix = split_name(source)
        inside = source.is_relative_to(self.dataset_dir)
        folder = source.parent.relative_to(self.dataset_dir) if inside else Path()
        return self.output_dir / folder / f"{stem}{OUTPUT_SUFFIX}{suffix}"

    def attach(self, engine: Engine) -> None:
        """Start the report with the engine and write the results after each iteration."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self) -> None:
        """Begin the report with the images whose outcome is known without inference; only the first call counts."""
        if self._started:
            return
        self._started = True
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with self._report.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(ReportRow._fields)
        self._record(self._known)

    def __call__(self, engine: Engine) -> None:
        """Write the results of one iteration and add them to the report."""
        state: Any = engine.state  # ignite types these as what they are before the first iteration
        self._record(self._write(item, output) for item, output in zip(state.batch, state.output, strict=True))

    def close(self) -> Counter[str]:
        """Log how many images were done, skipped and failed, and return these counts; call it after the run.

        It also makes the report where the engine had nothing to do and so never started.

        Raises:
            SystemExit: with code 1 when an image failed, so that a script notices. All results are written by then.
        """
        self.start()
        summary = ", ".join(f"{number} {status}" for status, number in self.counts.items())
        log = logger.warning if self.counts["failed"] else logger.info
        log("virtual DES: %s; see %s", summary, self._report)
        if self.counts["failed"]:
            raise SystemExit(1)
        return self.counts

    @property
    def _report(self) -> Path:
        return self.output_dir / REPORT_NAME

    def _name(self, path: Path) -> str:
        return path.relative_to(self.dataset_dir).as_posix() if path.is_relative_to(self.dataset_dir) else str(path)

    def _known_outcome(self, source: Path) -> ReportRow | None:
        suffix = file_suffix(source)
        if suffix not in WRITABLE_SUFFIXES:
            known = f"unknown suffix {suffix!r}; expected {' '.join(WRITABLE_SUFFIXES)}"
            reason = DICOM_REFUSAL if suffix in SUFFIXES else known
            return ReportRow(self._name(source), "failed", reason=reason)
        target = self.output_path(source)
        if target.exists():
            output = target.relative_to(self.output_dir).as_posix()
            return ReportRow(self._name(source), "skipped", output, "the result exists already")
        return None

    def _write(self, item: dict[str, Any], output: dict[str, Any]) -> ReportRow:
        source, failure = Path(item[SOURCE_KEY]), item[FAILURE_KEY]
        target = self.output_path(source)
        if not failure:
            try:
                write_like_source(output["pred"][0].detach().cpu().numpy(), source, target)
                return ReportRow(self._name(source), "done", target.relative_to(self.output_dir).as_posix())
            except Exception as error:  # a library may raise anything while it reads a header or encodes
                failure = _reason(error)
        logger.warning("%s: %s", source, failure)
        return ReportRow(self._name(source), "failed", reason=failure)

    def _record(self, rows: Iterable[ReportRow]) -> None:
        with self._report.open("a", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            for row in rows:
                lines.writerow(row)
                self.counts[row.status] += 1
