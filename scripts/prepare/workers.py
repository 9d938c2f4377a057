"""Cases are prepared in several processes; one that kills its process costs that case only."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from scripts.prepare import records
from scripts.prepare.conversion import RefusedError, Settings, converted
from scripts.prepare.safeguards import writing
from scripts.prepare.sources import report_name
from scripts.prepare.stored import write_image, write_mask
from scripts.prepare.view import LeftOut, View
from scripts.processes import close_pool, end_with_parent

__all__ = ["Outcome", "default_workers", "prepare", "prepare_all"]

MOST_WORKERS = 16
CASES_A_WORKER = 8
"""A process takes seconds to start: fewer cases are not worth one."""
_PRELOADED = ["monai.data.image_reader", "PIL.Image", "pydicom", "scipy.fft", "scipy.ndimage", "scipy.optimize"]
_PASSING = re.compile(r"MemoryError|allocat|Errno|Input/output|Too many open files", re.IGNORECASE)
"""Refusals that may not come again although nothing has changed: they are tried again in every run."""


@dataclass(frozen=True)
class Outcome:
    """What became of one view: its record or why it was left out, and the seconds it took, also for decoding alone."""

    name: str
    record: dict[str, Any] | None
    left_out: LeftOut | None = None
    seconds: float = 0.0
    decoding: float = 0.0


def default_workers(cases: int) -> int:
    """How many processes that many cases are worth here."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, MOST_WORKERS, cases // CASES_A_WORKER))


def prepare(view: View, settings: Settings) -> Outcome:
    """Convert a view, write its files and record it; a view that cannot be used gives the reason."""
    start = time.perf_counter()
    mark = records.fingerprint(view, settings)  # of the files as they are before they are read
    try:
        case, decoding = converted(view, settings)
    except RefusedError as error:
        _record_refusal(view, settings, mark, error.left_out)
        return Outcome(view.name, None, error.left_out, time.perf_counter() - start)
    files = {key: case.entry[key] for key in case.pixels}
    with writing(settings.folder / records.RECORDS / f"{view.name}.json"):
        records.claim(view, settings, files.values())
    for key, pixels in case.pixels.items():
        write = write_mask if key in ("mask", "label_mask") else write_image
        with writing(settings.folder / files[key]):
            write(settings.folder / files[key], pixels)
    with writing(settings.folder / records.RECORDS / f"{view.name}.json"):
        record = records.save(view, settings, mark, files.values(), {"entry": case.entry, "facts": case.facts})
    return Outcome(view.name, record, None, time.perf_counter() - start, decoding)


def _record_refusal(view: View, settings: Settings, mark: str, left_out: LeftOut) -> None:
    with writing(settings.folder / records.RECORDS / f"{view.name}.json"):
        if _PASSING.search(left_out.reason):
            records.discard(settings.folder, view.name)
        else:
            records.refuse(view, settings, mark, left_out)


def prepare_all(views: Sequence[View], settings: Settings, workers: int) -> Iterator[Outcome]:
    """Prepare views in as many processes (1: in this one); outcomes come in the order in which they are finished."""
    if workers == 1:
        for view in views:
            yield prepare(view, settings)
        return
    waiting = deque(views)
    while waiting:
        suspects = yield from _until_broken(waiting, settings, min(workers, len(waiting)))
        for view in suspects:
            yield _alone(view, settings)


def _until_broken(waiting: deque[View], settings: Settings, workers: int) -> Generator[Outcome, None, list[View]]:
    """Prepare until all is done or a process dies; return the views that were under way then."""
    running: dict[Future[Outcome], View] = {}
    pool = _pool(workers)
    try:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                running[pool.submit(prepare, waiting[0], settings)] = waiting[0]
                waiting.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield future.result()
                del running[future]
    except BrokenProcessPool:
        return list(running.values())
    finally:
        close_pool(pool)
    return []


def _alone(view: View, settings: Settings) -> Outcome:
    with _pool(1) as pool:
        try:
            return pool.submit(prepare, view, settings).result()
        except BrokenProcessPool:
            records.discard(settings.folder, view.name)
            reason = "the process that prepared it died (a decoder crashed, or the memory did not suffice)"
            remedy = "Try the files in another program; export them again, or leave the case out"
            return Outcome(view.name, None, LeftOut(view.name, report_name(view.image), reason, remedy))


def _pool(workers: int) -> ProcessPoolExecutor:
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(_PRELOADED)  # imported once, not in every process
    return ProcessPoolExecutor(workers, context, _start_worker)


def _start_worker() -> None:
    """One thread a process, and an interrupt is the business of the process that started it."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    end_with_parent()
