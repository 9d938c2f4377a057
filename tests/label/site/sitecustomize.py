"""Let MONAI Label's server import torchvision here: Python runs this file at its start when its folder is on the path.

The published torchvision does not import beside a CPU build of torch, because its compiled operators need CUDA. Neither
the server nor the bundle calls one of them, so it is enough to declare the two which torchvision looks for by name.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_KEPT: list[object] = []


class _Declare(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Declare the operators before torchvision is imported; the import itself is left to the others."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "FRAGMENT")
                for name in ("nms", "qnms"):
                    library.define(name + _SCHEMA)
                _KEPT.append(library)  # declared as long as it lives
        return None


sys.meta_path.insert(0, _Declare())
