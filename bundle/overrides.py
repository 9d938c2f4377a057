"""Refuse overrides of a config that nothing reads, such as a misspelt ``--gama 35``, or that would be misread."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

__all__ = ["known_ids", "refuse_unknown", "running_config", "unknown_ids"]

_WORKFLOWS = {"train.json": "train", "inference.json": "evaluator"}
"""Each complete config and an id by which a running config is recognised as one made from it."""


_LONGEST = 500
"""Letters of an id; none of the bundle has more than 60."""


def known_ids(config_dir: str | Path, running: Mapping[str, Any]) -> set[str]:
    """Return the ids, nested ones as ``a#b``, that the workflow of ``running`` can read.

    These are the ids of the complete config it is made from (``train.json`` with every overlay of the folder, or
    ``inference.json``) and of MONAI's experiment tracking.

    Raises:
        FileNotFoundError: if ``config_dir`` does not hold that config.
        ValueError: ``running`` is made from neither.
    """
    base = next((name for name, mark in _WORKFLOWS.items() if mark in running), None)
    if base is None:
        marks = " and no ".join(_WORKFLOWS.values())
        raise ValueError(f"neither a training nor an inference: no {marks} in the config")
    folder = Path(config_dir)
    if not (folder / base).is_file():
        where = folder.absolute()
        raise FileNotFoundError(f"no {base} in {where}; start from the bundle's folder or set --bundle_root")
    known = {"initialize", "finalize"}
    tracking: Mapping[str, Any] = DEFAULT_EXP_MGMT_SETTINGS
    for settings in tracking.values():
        known |= set(settings["configs"])
    for overlay in [None, *(_overlays(folder) if base == "train.json" else [])]:
        parser = ConfigParser()
        parser.read_config([str(folder / name) for name in (base, overlay) if name])
        known |= set(_ids(parser.get()))
    return known


def _overlays(folder: Path) -> list[str]:
    complete = {*_WORKFLOWS, "metadata.json"}
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".json", ".yaml") and p.name not in complete)


def unknown_ids(config: Mapping[str, Any], known: set[str]) -> list[str]:
    """Return the ids of ``config`` that are not ``known`` and to which no other entry refers.

    An id beginning with ``_`` is a comment. An id that some entry refers to as ``@id`` or ``%id`` has a reader, so an
    overlay may introduce ids of its own; so has all that is inside a mapping which is referred to as a whole. Arguments
    of a ``_target_`` are left to the component, which knows its own.
    """
    text = repr(config)

    def has_reader(name: str) -> bool:
        if len(name) > _LONGEST:
            return False
        parents = [name[: place.start()] for place in re.finditer("#", name)]
        whole = any(re.search(rf"[@%]{re.escape(parent)}(?![\w#:])", text) for parent in parents)
        return whole or re.search(rf"[@%]{re.escape(name)}\b", text) is not None

    return [name for name in _ids(config) if name not in known and not has_reader(name)]


def _ids(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        if not name.startswith("_"):
            yield prefix + name
            if isinstance(value, Mapping) and "_target_" not in value:
                yield from _ids(value, f"{prefix}{name}#")


def refuse_unknown(config_dir: str | Path) -> None:
    """End the program when the running config has an id that its workflow does not know, or a text for a bool.

    MONAI accepts every ``--name value`` and ignores what no entry refers to; of ``--resume false`` it makes the text
    "false". To be called from an expression of the
    config, as the first step of a workflow.

    Raises:
        FileNotFoundError: if ``config_dir`` does not hold the bundle's configs.
        SystemExit: with code 1, after naming each unknown id and the known one that looks like it.
    """
    running = running_config()
    known = known_ids(config_dir, running)
    unknown = unknown_ids(running, known)
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean --{near[0]}?" if near else "see the file in configs/ for what can be set"
        print(f"unknown override --{name}: {hint}", file=sys.stderr)
    texts = [name for name, value in running.items() if isinstance(value, str) and value.lower() in ("true", "false")]
    for name in texts:  # a text counts as true whatever it says
        print(f"--{name} is the text {running[name]!r}: write {running[name].capitalize()}", file=sys.stderr)
    if unknown or texts:
        raise SystemExit(1)


def running_config() -> dict[str, Any]:
    """Return the content, overrides included, of the config whose evaluation calls this function.

    MONAI passes no parser into expressions; the one that evaluates the call is on the stack above it.

    Raises:
        RuntimeError: if it is called from elsewhere.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            config: dict[str, Any] = owner.get()
            return config
        frame = frame.f_back
    raise RuntimeError("running_config() works only inside the evaluation of a MONAI config")
