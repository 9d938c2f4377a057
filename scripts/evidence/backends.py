"""Where the jobs of a study run: one after the other here, or in parallel on Ray, here or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from scripts.evidence.jobs import Job, run_job
from scripts.processes import end_with_parent
from scripts.ray_cluster import connected, require_resources

__all__ = ["Outcome", "run_on_ray", "run_one_by_one"]

Outcome = tuple[Job, str | None]
"""A job, and None or what went wrong."""
ATTEMPTS = 3
"""A job whose process dies is started again, and goes on from its checkpoint."""


def run_one_by_one(jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Run the jobs in order, each in a process of its own."""
    for job in jobs:
        yield job, _in_own_process(job)


def _in_own_process(job: Job) -> str | None:
    context = multiprocessing.get_context("spawn")
    for _ in range(ATTEMPTS):
        with ProcessPoolExecutor(1, context, _start, (_variables(job),)) as pool:
            try:
                return pool.submit(run_job, job).result()
            except BrokenProcessPool:
                continue
    return f"its process died {ATTEMPTS} times (was it killed, or did the memory not suffice?)"


def _start(variables: dict[str, str]) -> None:
    """What a process needs before it imports torch."""
    os.environ.update(variables)
    end_with_parent()


def run_on_ray(jobs: Sequence[Job], address: str | None, cpus: float, gpus: float) -> Iterator[Outcome]:
    """Run the jobs on Ray, as many at a time as it has processors for; outcomes come as jobs end.

    Ray starts a job whose worker dies again, on another node if need be. Each job has a worker process of its own.

    Args:
        jobs: their folders, the data and this checkout must lie on a file system that all nodes share.
        address: of a cluster, ``auto`` for the one this node belongs to; None starts Ray on this machine alone.
        cpus: processors of a job.
        gpus: GPUs of a job, 0 for none; may be a fraction.

    Raises:
        ImportError: Ray is not installed.
        ValueError: Ray has not enough for a single job.
    """
    with connected(address, _variables(jobs[0]), gpus) as ray:
        require_resources(ray, "job", cpus, gpus)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=ATTEMPTS - 1, max_calls=1)(run_job)
        running = {task.remote(job): job for job in jobs}
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done[0])
            yield job, _result(ray, done[0])


def _result(ray: Any, reference: Any) -> str | None:
    try:
        result: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return result


def _variables(job: Job) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(job.threads), "MPLBACKEND": "Agg", "MLFLOW_DISABLE_TELEMETRY": "true"}
