"""The handler that writes the virtual DES images of a run and keeps its report."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from bundle.dicom.kind import INPUT_KINDS
from bundle.dicom.virtual_des import VirtualDESObjects
from bundle.files import remove_unfinished
from bundle.image_writer import write_like_source
from bundle.inference.dataset import FAILURE_KEY, SECONDS_KEY, SOURCE_KEY
from bundle.inference.report import REPORT_NAME, Report, ReportRow, reason_of
from bundle.inference.sources import Sources
from bundle.inference.speed import Speed
from bundle.inference.write_behind import WriteBehind
from bundle.reader import SUFFIXES, file_suffix

__all__ = ["VirtualDESWriter"]

logger = logging.getLogger("cesm")


class VirtualDESWriter:
    """Ignite handler that writes one virtual DES for each low-energy image and keeps a report.

    The result of ``<dataset_dir>/a/b.png`` is ``<output_dir>/a/b_virtual_des.png``: the same kind of file, sample depth
    and grid as the source; of a DICOM file it is a derived object. A result that exists is not made again; delete it to
    have it made anew. Images of a kind that is not accepted are refused, and an image that cannot be read or written
    has failed; both are reported and the run goes on. ``<output_dir>/report.csv`` (image, status, output, reason) is
    complete up to the last image at any time. A thread encodes and writes while the network is at work on the next
    images.

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
        self.speed = Speed()
        self.behind = WriteBehind()
        self._batch_came = 0.0
        self._bar: tqdm[Any] | None = None

    @property
    def pending(self) -> list[dict[str, str]]:
        """``[{"image": path}]``: what the data set holds.

        Raises:
            FileNotFoundError: there is no image in ``dataset_dir``.
        """
        return [{"image": str(path)} for path in self.sources.pending]

    def attach(self, engine: Engine) -> None:
        """Start the report with the engine and write the results after each iteration; all are there at its end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._begin_batch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.behind.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._after_error)

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
        self.speed, self._batch_came = Speed(), time.perf_counter()
        self._bar = tqdm(total=total, desc="virtual DES", unit="image", mininterval=interval, dynamic_ncols=True)

    def __call__(self, engine: Engine) -> None:
        """Have the results of one iteration written and added to the report."""
        state: Any = engine.state  # ignite types these as what they are before the first iteration
        done = [(item, _on_host(output)) for item, output in zip(state.batch, state.output, strict=True)]
        self.speed.model += time.perf_counter() - self._batch_came
        for item, output in done:
            self.speed.images += 1
            self.speed.decoding += float(item.get(SECONDS_KEY, 0.0))
            self.behind.add(partial(self._write_and_report, item, output))

    def _begin_batch(self) -> None:
        self._batch_came = time.perf_counter()

    def _after_error(self, error: BaseException) -> None:
        """What is finished is written and reported before the run stops."""
        with suppress(Exception):  # the first error is the one to be told
            self.behind.finish()
        raise error

    def _write_and_report(self, item: dict[str, Any], output: dict[str, Any]) -> None:
        begun = time.perf_counter()
        row = self.write(item, output)
        self.report.add([row])
        self.speed.encoding += time.perf_counter() - begun
        if self._bar is not None:
            self._bar.update()

    def close(self) -> Counter[str]:
        """Log what became of the images and how quickly, and return how many ended how; call it after the run.

        It also makes the report where the engine had nothing to do and so never started.

        Raises:
            SystemExit: with code 1 when an image failed or none could be used, so that a script notices. All results
                are written by then.
        """
        self.start()
        self.behind.finish()
        if self._bar is not None:
            self._bar.close()
        if speed := self.speed.summary():
            logger.info(speed)
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


def _on_host(output: dict[str, Any]) -> dict[str, Any]:
    """The prediction in the memory of the processor, so that the device is free; as it is where that fails."""
    with suppress(Exception):  # writing meets the same error, and reports it
        return {"pred": output["pred"].detach().cpu()}
    return output
