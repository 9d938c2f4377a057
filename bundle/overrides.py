"""Refuse overrides of a config that nothing reads, such as a misspelt ``--gama 35``."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

__all__ = ["refuse_unknown", "running_config", "unknown_ids"]

# Ids that MONAI itself adds: `--tracking` patches the first group, a configuration server the others.
_MONAI_IDS = {"tracking_uri", "experiment_name", "run_name", "execute_config", "save_execute_config", "is_not_rank0"}
_MONAI_IDS |= {"mlflow_dataset", "mlflow_trainer", "mlflow_validator", "mlflow_evaluator", "initialize", "finalize"}


def unknown_ids(config: dict[str, Any], known: set[str]) -> list[str]:
    """Return the top-level ids of ``config`` that are not ``known`` and to which no other entry refers.

    An id beginning with ``_`` is a comment. An id that some entry refers to as ``@id`` or ``%id`` has a reader, so an
    overlay may introduce ids of its own.
    """
    candidates = [name for name in config if name not in known and not name.startswith("_")]
    text = repr(config)
    return [name for name in candidates if not re.search(rf"[@%]{re.escape(name)}\b", text)]


def refuse_unknown(config_dir: str | Path) -> None:
    """End the program when the config that is being run has a top-level id that nothing knows.

    MONAI accepts every ``--name value`` and ignores what no entry refers to. Known are the ids of the files in
    ``config_dir``. To be called from an expression of the config, as the first step of a workflow.

    Raises:
        SystemExit: with code 1, after naming each unknown id and the known one that looks like it.
    """
    known = set(_MONAI_IDS)
    for path in sorted(Path(config_dir).glob("*")):
        if path.suffix in (".json", ".yaml") and path.name != "metadata.json":
            known |= set(ConfigParser.load_config_file(path))
    unknown = unknown_ids(running_config(), known)
    if not unknown:
        return
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean --{near[0]}?" if near else f"known ids: {', '.join(sorted(known - _MONAI_IDS))}"
        print(f"unknown override --{name}: {hint}", file=sys.stderr)
    raise SystemExit(1)


def running_config() -> dict[str, Any]:
    """Return the content, overrides included, of the config whose evaluation calls this function.

    MONAI passes no parser into expressions; the one that evaluates the call is on the stack above it.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            config = owner.get()
            return config if isinstance(config, dict) else {}
        frame = frame.f_back
    return {}
