"""Give files to workers on Ray, again where a worker is lost, and collect what became of each."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.inference import ReportRow, Sources
from scripts.archive.worker import ArchiveWorker, Task
from scripts.ray_cluster import require_resources

__all__ = ["Chunk", "Crew"]

logger = logging.getLogger("cesm")
ATTEMPTS = 3
"""A file whose worker is lost so often is held to be the reason."""


@dataclass(frozen=True)
class Chunk:
    """Files that are given to a worker together, and how many workers were lost with them."""

    files: tuple[Path, ...]
    lost: int = 0

    def again(self) -> list[Chunk]:
        """The same work after another loss: whole once, then file by file."""
        if self.lost == 0:
            return [Chunk(self.files, 1)]
        return [Chunk((file,), self.lost + 1) for file in self.files]


@dataclass
class Crew:
    """Workers of one run.

    Args:
        ray: the connected module.
        task: what the workers do.
        sources: the images; those pending are given out.
        size: how many workers.
        cpus: processors of a worker.
        gpus: GPUs of a worker, 0 for none; may be a fraction.
        lost: how many workers were lost so far.
    """

    ray: Any
    task: Task
    sources: Sources
    size: int
    cpus: float = 1
    gpus: float = 0
    lost: int = 0
    _idle: list[Any] = field(default_factory=list)

    def start(self) -> None:
        """Start the workers and wait until each holds the network.

        Raises:
            ValueError: Ray has not enough for one worker, or the config or the weights cannot be used.
        """
        require_resources(self.ray, "worker", self.cpus, self.gpus)
        self._idle = [self._new_worker() for _ in range(self.size)]
        for problem in self.ray.get([worker.problem.remote() for worker in self._idle]):
            if problem is not None:
                raise ValueError(problem)

    def work(self, files: Sequence[Path], chunk: int) -> Iterator[list[ReportRow]]:
        """Have all files done, ``chunk`` at a time; lines of the report come as they are known."""
        waiting = deque(Chunk(tuple(files[start : start + chunk])) for start in range(0, len(files), chunk))
        running: dict[Any, tuple[Any, Chunk]] = {}
        while waiting or running:
            while waiting and self._idle:
                worker, todo = self._idle.pop(), waiting.popleft()
                running[worker.infer.remote([str(file) for file in todo.files])] = worker, todo
            (done, *_), _ = self.ray.wait(list(running), num_returns=1)
            worker, todo = running.pop(done)
            try:
                rows = self.ray.get(done)
            except self.ray.exceptions.RayTaskError as error:
                self._idle.append(worker)
                yield [self._failed(file, str(error.cause or error).splitlines()[0]) for file in todo.files]
            except self.ray.exceptions.RayError:
                yield self._after_loss(todo, waiting)
            else:
                self._idle.append(worker)
                yield [self._as_done(row) for row in rows]

    def _new_worker(self) -> Any:
        actor = self.ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(ArchiveWorker)
        return actor.remote(self.task)

    def _after_loss(self, todo: Chunk, waiting: deque[Chunk]) -> list[ReportRow]:
        """Take a new worker; give the work to it, or name the file that costs one worker after the other."""
        self.lost += 1
        worker = self._new_worker()
        worker.problem.remote()  # it loads the network before its first files
        self._idle.append(worker)
        logger.warning("a worker was lost with %d images in hand; another one takes them", len(todo.files))
        if len(todo.files) == 1 and todo.lost + 1 >= ATTEMPTS:
            reason = f"{todo.lost + 1} workers died with it in hand (was there too little memory for it?)"
            return [self._failed(todo.files[0], reason)]
        waiting.extendleft(reversed(todo.again()))
        return []

    def _failed(self, file: Path, reason: str) -> ReportRow:
        return ReportRow(self.sources.name(file), "failed", reason=reason)

    @staticmethod
    def _as_done(row: ReportRow) -> ReportRow:
        """A result that exists although its image was pending was written by a worker that was lost afterwards."""
        return row._replace(status="done", reason="") if row.status == "skipped" else row
