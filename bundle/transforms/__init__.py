"""Transforms MONAI lacks: orientation and scaling of mammograms, the fit, optional masks, one shared augmentation."""

from __future__ import annotations

from bundle.transforms.augmentation import MoveOnDevice, RandSharedAffined
from bundle.transforms.fit import FitSquared, chest_wall_side
from bundle.transforms.masks import EnsureMasksd
from bundle.transforms.scaling import ScaleMammogramd
from bundle.transforms.upright import TurnUprightd

__all__ = [
    "EnsureMasksd",
    "FitSquared",
    "MoveOnDevice",
    "RandSharedAffined",
    "ScaleMammogramd",
    "TurnUprightd",
    "chest_wall_side",
]
