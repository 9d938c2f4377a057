"""Values of a config that a command line changes, spelt as for ``python -m monai.bundle run``."""

from __future__ import annotations

import ast
import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from bundle.overrides import unknown_ids

__all__ = ["override_of", "overrides_of", "refuse_unknown", "with_overrides"]


def override_of(text: str) -> tuple[str, Any]:
    """Name and value of NAME=VALUE; a value that is no number, list, bool or null is text.

    Raises:
        ValueError: it is not of that form.
    """
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError(f"--set {text}: expected NAME=VALUE, such as --set max_epochs=50 image_size=128")
    words = {"true": True, "false": False, "null": None, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def overrides_of(left_over: Sequence[str]) -> dict[str, Any]:
    """Read ``--id value`` and ``--id=value`` as monai.bundle does.

    Raises:
        ValueError: a word is neither.
    """
    words = [part for word in left_over for part in (word.split("=", 1) if word.startswith("--") else [word])]
    names, values = words[::2], words[1::2]
    if len(names) != len(values) or not all(name.startswith("--") for name in names):
        raise ValueError(f"{' '.join(left_over)}: expected values of the config as --name value")
    return {name.removeprefix("--"): DefaultParseValue(value) for name, value in zip(names, values, strict=True)}


def with_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``config`` with values replaced by id, ``a#b`` for one inside another.

    Raises:
        ValueError: there is no ``a`` that ``b`` could be in.
    """
    parser = ConfigParser(config=copy.deepcopy(dict(config)))
    try:
        for name, value in overrides.items():
            parser[name] = value
    except KeyError as error:
        raise ValueError(f"{name} is no value of the config: nothing is called {name.rpartition('#')[0]}") from error
    changed: dict[str, Any] = parser.get()
    changed.pop("_meta_", None)
    return changed


def refuse_unknown(config: Mapping[str, Any], known: set[str], overrides: Mapping[str, Any]) -> None:
    """Raise ValueError if ``config`` has an id that is not ``known``, or an override is a text that means a bool."""
    for name in unknown_ids(config, known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean --{near[0]}?" if near else "see configs/inference.json for what can be set"
        raise ValueError(f"--{name} is no option of this command and no value of configs/inference.json: {hint}")
    for name, value in overrides.items():
        if isinstance(value, str) and value.lower() in ("true", "false"):  # a text counts as true whatever it says
            raise ValueError(f"--{name} is the text {value!r}: write {value.capitalize()}")
