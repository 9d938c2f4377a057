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
"""A file whose worker is lost so often is held to be the reason; so is what workers lack that die while they start."""
PATIENCE = 60.0
"""Seconds without any worker after which the command says what it waits for."""
UNTOLD = "its worker was lost before it could tell what had to be filled in"


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
    """Workers of one run. They join when Ray has room for them and they hold the network.

    Args:
        ray: the connected module.
        task: what the workers do.
        sources: the images; those pending are given out.
        size: how many workers, at most.
        cpus: processors of a worker.
        gpus: GPUs of a worker, 0 for none; may be a fraction.

    Attributes:
        lost: how many workers were lost so far, with files in hand.
        most: how many were there at a time, at most.
    """

    ray: Any
    task: Task
    sources: Sources
    size: int
    cpus: float = 1
    gpus: float = 0
    lost: int = field(default=0, init=False)
    most: int = field(default=0, init=False)
    _idle: list[Any] = field(default_factory=list, init=False)
    _starting: dict[Any, Any] = field(default_factory=dict, init=False)
    _running: dict[Any, tuple[Any, Chunk]] = field(default_factory=dict, init=False)
    _stillborn: int = field(default=0, init=False)

    def start(self) -> None:
        """Start the workers and wait until the first one holds the network.

        Raises:
            ValueError: Ray has not enough for one worker, the config or the weights cannot be used, or workers die
                while they start.
        """
        require_resources(self.ray, "worker", self.cpus, self.gpus)
        for _ in range(self.size):
            self._hire()
        while not self._idle:
            self._join(self._next())

    def work(self, files: Sequence[Path], chunk: int) -> Iterator[list[ReportRow]]:
        """Have all files done, ``chunk`` at a time; lines of the report come as they are known.

        Raises:
            ValueError: all workers were lost and none can be started.
        """
        waiting = deque(Chunk(tuple(files[start : start + chunk])) for start in range(0, len(files), chunk))
        while waiting or self._running:
            while waiting and self._idle:
                worker, todo = self._idle.pop(), waiting.popleft()
                self._running[worker.infer.remote([str(file) for file in todo.files])] = worker, todo
            done = self._next()
            if done in self._starting:
                self._join(done)
            else:
                yield self._outcome(done, waiting)

    def _hire(self) -> None:
        actor = self.ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(ArchiveWorker)
        worker = actor.remote(self.task)
        self._starting[worker.problem.remote()] = worker

    def _next(self) -> Any:
        """Wait for the next worker that has started or ended its work."""
        while True:
            done, _ = self.ray.wait([*self._starting, *self._running], num_returns=1, timeout=PATIENCE)
            if done:
                return done[0]
            if not self._running:
                logger.warning("waiting until Ray has room for a worker and it has started")

    def _join(self, started: Any) -> None:
        """Take on a worker that has started, or another one in its place if it has died at that."""
        worker = self._starting.pop(started)
        died = False
        try:
            problem = self.ray.get(started)
        except self.ray.exceptions.RayError as error:
            died = True
            self._stillborn += 1
            problem = f"{self._stillborn} workers died while they started (is there memory for them?): {_line(error)}"
        if problem is None:
            self._stillborn = 0
            self._idle.append(worker)
            self.most = max(self.most, len(self._idle) + len(self._running))
            return
        self.ray.kill(worker)
        if died and self._stillborn < ATTEMPTS:
            self._hire()
        nobody = not (self._idle or self._running or self._starting)
        if nobody or (not died and not self.most):  # what the first one says of the config, all would say
            raise ValueError(problem)
        logger.warning("a worker could not be started: %s", problem)

    def _outcome(self, done: Any, waiting: deque[Chunk]) -> list[ReportRow]:
        """What is known of a worker's files after it has ended its work; the rest goes back to those waiting."""
        worker, todo = self._running.pop(done)
        try:
            rows, problem = self.ray.get(done)
        except self.ray.exceptions.RayError as error:
            logger.debug("lost worker: %s", error)
            return self._after_loss(todo, waiting)
        if problem is None:
            self._idle.append(worker)
        else:
            rows = rows + self._after_error(worker, todo, {row.image for row in rows}, problem, waiting)
        return [self._as_done(row) for row in rows]

    def _after_loss(self, todo: Chunk, waiting: deque[Chunk]) -> list[ReportRow]:
        """Take a new worker; give the work out again, or name the file that costs one worker after the other."""
        self.lost += 1
        self._hire()
        logger.warning("a worker was lost with %d images in hand; another one takes them", len(todo.files))
        if len(todo.files) == 1 and todo.lost + 1 >= ATTEMPTS:
            reason = f"{todo.lost + 1} workers were lost with it in hand (was there too little memory for it?)"
            return [self._failed(todo.files[0], reason)]
        waiting.extendleft(reversed(todo.again()))
        return []

    def _after_error(
        self, worker: Any, todo: Chunk, told: set[str], problem: str, waiting: deque[Chunk]
    ) -> list[ReportRow]:
        """Replace a worker that met an error, after which a GPU may be of no use to it, and find the file that did it.

        An error of reading or writing is the file's own and never comes here.
        """
        self.ray.kill(worker)
        self._hire()
        rest = [file for file in todo.files if self.sources.name(file) not in told]
        if len(todo.files) == 1:
            return [self._failed(file, problem) for file in rest]
        logger.warning("%s: %d images are tried again one by one", problem, len(rest))
        waiting.extendleft(Chunk((file,), max(todo.lost, 1)) for file in reversed(rest))
        return []

    def _failed(self, file: Path, reason: str) -> ReportRow:
        return ReportRow(self.sources.name(file), "failed", reason=reason)

    @staticmethod
    def _as_done(row: ReportRow) -> ReportRow:
        """A result that exists although its image was pending was written by a worker that was lost afterwards."""
        return row._replace(status="done", reason=UNTOLD) if row.status == "skipped" else row


def _line(error: Exception) -> str:
    """The first line of what Ray says, which may be long or empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)
