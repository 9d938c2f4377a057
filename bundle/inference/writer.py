"""The handler that writes the virtual DES images of a run and keeps its report."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Collection, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from bundle.dicom.kind import INPUT_KINDS
from bundle.dicom.virtual_des import VirtualDESObjects
from bundle.files import remove_unfinished
from bundle.image_writer import write_like_source
from bundle.inference.dataset import FAILURE_KEY, SOURCE_KEY
from bundle.inference.report import REPORT_NAME, Report, ReportRow, reason_of
from bundle.inference.sources import Sources
from bundle.reader import SUFFIXES, file_suffix

__all__ = ["VirtualDESWriter"]

logger = logging.getLogger("cesm")


class VirtualDESWriter:
    """Ignite handler that writes one virtual DES for each low-energy image and keeps a report.

    The result of ``<dataset_dir>/a/b.png`` is ``<output_dir>/a/b_virtual_des.png``: the same kind of file, sample depth
    and grid as the source; of a DICOM file it is a derived object. A result that exists is not made again; delete it to
    have it made anew. Images of a kind that is not accepted are refused, and an image that cannot be read or written
    has failed; both are reported and the run goes on. ``<output_dir>/report.csv`` (image, status, output, reason) is
    complete up to the last image at any time.

    Every item of the engine's output needs ``pred``, ``(1, W, H)`` in 0..255 on the grid of the source, and every item
    of its batch the path of the source under ``source``, as ``TolerantDataset`` provides.

    Args:
        dataset_dir: folder of low-energy images, or one image file.
        output_dir: folder for the results; made when the run starts.
        dicom_objects: makes the objects of DICOM sources; without it these fail.
        accepted_kinds: kinds of image that may be given to the network (values of ``bundle.dicom.Kind``); what DICOM
            headers, or the names of image files and folders, say is another kind is refused.
        files: the images to take, in place of all that lie in ``dataset_dir``.
    """

    def __init__(
        self,
        dataset_dir: str | PathLike[str],
        output_dir: str | PathLike[str],
        dicom_objects: VirtualDESObjects | None = None,
        accepted_kinds: Collection[str] = INPUT_KINDS,
        files: Iterable[str | PathLike[str]] | None = None,
    ) -> None:
        self.sources = Sources(dataset_dir, output_dir, accepted_kinds, files)
        self.dicom_objects = dicom_objects
        self.report = Report(self.sources.output_dir / REPORT_NAME)
        self._bar: tqdm[Any] | None = None

    @property
    def pending(self) -> list[dict[str, str]]:
        """``[{"image": path}]``: what the data set holds.

        Raises:
            FileNotFoundError: there is no image in ``dataset_dir``.
        """
        return [{"image": str(path)} for path in self.sources.pending]

    def attach(self, engine: Engine) -> None:
        """Start the report with the engine and write the results after each iteration."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self) -> None:
        """Begin the report with the images whose outcome is known without inference; only the first call counts."""
        if self._bar is not None:
            return
        self.report.start()
        self.report.add(self.sources.known)
        for row in self.sources.known:
            if row.status in ("refused", "failed"):
                logger.warning("%s %s: %s", row.image, row.status, row.reason)
        interval = 0.5 if sys.stderr.isatty() else 30.0
        total = len(self.sources.pending)
        self._bar = tqdm(total=total, desc="virtual DES", unit="image", mininterval=interval, dynamic_ncols=True)

    def __call__(self, engine: Engine) -> None:
        """Write the results of one iteration and add them to the report."""
        state: Any = engine.state  # ignite types these as what they are before the first iteration
        rows = [self.write(item, output) for item, output in zip(state.batch, state.output, strict=True)]
        self.report.add(rows)
        if self._bar is not None:
            self._bar.update(len(rows))

    def close(self) -> Counter[str]:
        """Log how many images were done, skipped, refused and failed, and return these counts; call it after the run.

        It also makes the report where the engine had nothing to do and so never started.

        Raises:
            SystemExit: with code 1 when an image failed or none could be used, so that a script notices. All results
                are written by then.
        """
        self.start()
        if self._bar is not None:
            self._bar.close()
        log = logger.warning if self.report.failed() else logger.info
        log("virtual DES: %s; see %s", self.report.summary(), self.report.path)
        if self.report.failed():
            raise SystemExit(1)
        return self.report.counts

    def write(self, item: dict[str, Any], output: dict[str, Any]) -> ReportRow:
        """Write the result of one image; whatever goes wrong becomes its line of the report."""
        source, failure = Path(item[SOURCE_KEY]), item[FAILURE_KEY]
        name = self.sources.name(source)
        if not failure:
            try:
                notes = self._write(output["pred"][0].detach().cpu().numpy(), source)
                return ReportRow(name, "done", self.sources.output_name(source), "; ".join(notes))
            except Exception as error:  # a library may raise anything while it reads a header or encodes
                failure = reason_of(error)
        logger.warning("%s failed: %s", name, failure)
        return ReportRow(name, "failed", reason=failure)

    def _write(self, pred: Any, source: Path) -> tuple[str, ...]:
        target = self.sources.output_path(source)
        if SUFFIXES[file_suffix(source)] != "pydicom":
            write_like_source(pred, source, target)
            return ()
        if self.dicom_objects is None:
            raise ValueError("no dicom_objects are configured, which make the results of DICOM files")
        remove_unfinished(target)
        return self.dicom_objects.write(pred, source, target)
