"""The arms of a study: trainings that differ in one thing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Arm", "arm_named", "gamma_arm"]

_GAMMA = re.compile(r"seg(\d+(?:\.\d+)?)")
_NOT_ARMS = ("quickstart", "pretrain", "finetune")
"""Overlays that set up a whole training."""


@dataclass(frozen=True)
class Arm:
    """What an arm adds to the configs of a study.

    Args:
        name: also that of its folder.
        overlays: config files, after those of the study.
        overrides: values of the config.
        description: for the report.
    """

    name: str
    overlays: tuple[str, ...] = ()
    overrides: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def gamma_arm(gamma: float) -> Arm:
    """Seg-CycleGAN with this weight of the lesion terms; 0 is plain CycleGAN."""
    if gamma < 0:
        raise ValueError(f"gamma is {gamma:g}; it must not be negative")
    method = f"Seg-CycleGAN, gamma {gamma:g}" if gamma else "CycleGAN (gamma 0)"
    return Arm(f"seg{gamma:g}", overrides={"gamma": float(gamma)}, description=method)


def arm_named(name: str, config_dir: Path) -> Arm:
    """The arm of this name.

    Args:
        name: ``segN`` for gamma N, the name of an overlay in the config folder (``baseline``, ``l1``), or the path of
            one's own overlay, a .yaml or .json file; its stem is then the name. Several, joined by ``+``, are one arm
            with all of these overlays, from left to right: ``l1+contrast``.
        config_dir: the bundle's ``configs`` folder.

    Raises:
        ValueError: there is no such arm, with those there are.
    """
    if len(parts := name.split("+")) > 1:
        return _joined([arm_named(part, config_dir) for part in parts])
    gamma = _GAMMA.fullmatch(name)
    if gamma:
        return gamma_arm(float(gamma[1]))
    for path in (config_dir / f"{name}.yaml", Path(name)):
        if path.suffix in (".yaml", ".yml", ".json") and path.is_file():
            return Arm(path.stem, (str(path.resolve()),), description=_first_comment(path))
    known = [path.stem for path in sorted(config_dir.glob("*.yaml")) if path.stem not in _NOT_ARMS]
    raise ValueError(f"no arm {name!r}; use segN for gamma N, {', '.join(known)}, or the path of an overlay (.yaml)")


def _joined(arms: Sequence[Arm]) -> Arm:
    overrides: dict[str, Any] = {}
    for arm in arms:
        overrides |= arm.overrides
    overlays = tuple(path for arm in arms for path in arm.overlays)
    return Arm("+".join(arm.name for arm in arms), overlays, overrides, " ".join(arm.description for arm in arms))


def _first_comment(path: Path) -> str:
    lines: Sequence[str] = path.read_text(encoding="utf-8").splitlines()
    return lines[0].removeprefix("#").strip() if lines and lines[0].startswith("#") else path.name
