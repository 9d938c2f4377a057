"""Ray, on this machine or on a cluster, as the commands of this project use it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["connected", "require_resources"]

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def connected(address: str | None, variables: Mapping[str, str], gpus: float) -> Iterator[Any]:
    """Give the module ``ray`` while it is connected.

    Args:
        address: of a cluster, ``auto`` for the one this node belongs to; None starts Ray on this machine alone.
        variables: of the environment of every worker.
        gpus: GPUs that each piece of work asks for; with 0 no worker sees one, else all of a machine would share its
            first.

    Raises:
        ImportError: Ray is not installed.
    """
    ray = _ray()
    environment = {**variables, "PYTHONPATH": str(ROOT)} | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})
    ray.init(
        address=address,
        runtime_env={"env_vars": environment},
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def require_resources(ray: Any, what: str, cpus: float, gpus: float) -> None:
    """Raise ValueError if Ray has not enough for ``what``, which has the options ``--cpus-per-...`` of its name."""
    resources = ray.cluster_resources()
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if resources.get(name, 0) < wanted:
            raise ValueError(
                f"a {what} asks for {wanted:g} {name}, but Ray has {resources.get(name, 0):g}; "
                f"lower --{name.lower()}s-per-{what} or give the --address of a larger cluster"
            )


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no library reports its use to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # we hide the GPUs ourselves
    try:
        import ray
    except ImportError as error:
        raise ImportError("Ray is not installed: pip install -c constraints.txt '.[ray]'") from error
    return ray
