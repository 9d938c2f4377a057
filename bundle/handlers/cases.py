"""The cases of one evaluation step, read from a MONAI engine, and their collection over all ranks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from ignite.engine import Engine
from torch import Tensor

from bundle import ranks
from bundle.transforms.fit import resized

__all__ = ["CASE_COLUMNS", "cases_of", "gather_cases", "reduced", "source_path"]

CASE_COLUMNS = ("patient_id", "laterality", "view", "source")
_TENSORS = ("image", "label", "mask", "label_mask", "pred")
T = TypeVar("T")


def cases_of(engine: Engine) -> list[dict[str, Any]]:
    """One dictionary per case of the step that ``engine``, a MONAI evaluator, has just completed.

    ``state.batch`` and ``state.output`` are joined (the output wins), whether they are still batched or already
    decollated. Each case has ``image``, ``label``, ``label_mask``, ``pred`` as plain float32 ``(1, 1, W, H)`` on the
    device of ``pred``, the strings ``patient_id``, ``laterality``, ``view`` ("" if unknown), ``source`` (the file's
    stem) and ``path``. Without ``label_mask`` the ``mask`` serves, without both there is no lesion (zeros).

    Raises:
        ValueError: a case has no image, label or pred.
    """
    batch, output = _items(engine.state.batch), _items(engine.state.output)
    if not batch:
        batch = [{} for _ in output]
    if len(batch) != len(output):
        raise ValueError(
            f"The step has {len(batch)} inputs but {len(output)} outputs; metrics need one output per case. "
            "Use a MONAI SupervisedEvaluator whose postprocessing keeps the number of cases."
        )
    return [_case({**b, **o}) for b, o in zip(batch, output, strict=True)]


def reduced(case: dict[str, Any], size: int | None) -> dict[str, Any]:
    """The same with every image ``(1, 1, W, H)`` at ``size`` pixels a side: averaged, masks by the nearest pixel.

    With None as the size the images stay as they are.

    Raises:
        ValueError: an image has fewer pixels than that.
    """
    if size is None:
        return case
    return {key: _reduced(key, x, size) if isinstance(x, Tensor) else x for key, x in case.items()}


def _reduced(name: str, image: Tensor, size: int) -> Tensor:
    if min(image.shape[2:]) < size:
        found = " x ".join(map(str, image.shape[2:]))
        raise ValueError(f"score_size is {size}, and the images have {found} pixels; give at most that")
    return resized(image[0], (size, size), "nearest" if "mask" in name else "bilinear")[None]


def source_path(item: Mapping[str, Any]) -> str:
    """Path of the file that ``item["image"]`` was read from, as MONAI's readers note it; "" if unknown."""
    return str(getattr(item.get("image"), "meta", {}).get("filename_or_obj", "") or "")


def gather_cases(own: Iterable[tuple[Hashable, T]]) -> list[T]:
    """Values of all ranks, in rank order; the same on every rank.

    Samplers repeat cases so that all ranks have as many. Of values with one (true) key only the first is kept then.
    """
    parts = ranks.gather(list(own))
    if len(parts) == 1:
        return [value for _, value in parts[0]]
    values: list[T] = []
    seen: set[Hashable] = set()
    for key, value in (pair for part in parts for pair in part):
        if not key or key not in seen:
            values.append(value)
        seen.add(key)
    return values


def _items(data: Any) -> list[dict[str, Any]]:
    if data is None:
        return []
    if isinstance(data, Mapping):
        size = len(next(value for value in data.values() if isinstance(value, Tensor)))
        return [{k: _element(v, i, size) for k, v in data.items()} for i in range(size)]
    return [dict(item) for item in data]


def _element(value: Any, index: int, size: int) -> Any:
    """Entry ``index`` of a collated value; what is not one entry per case belongs to all cases."""
    return value[index] if isinstance(value, (Tensor, list, tuple)) and len(value) == size else value


def _case(item: dict[str, Any]) -> dict[str, Any]:
    missing = [key for key in ("image", "label", "pred") if item.get(key) is None]
    if missing:
        raise ValueError(
            f"A case has no {', '.join(missing)}; it has {', '.join(sorted(map(str, item)))}. "
            "Metrics compare the virtual DES (pred) with the real one (label): evaluate cases that have both."
        )
    path = source_path(item)
    device = item["pred"].device
    case: dict[str, Any] = {key: str(item.get(key) or "") for key in CASE_COLUMNS}
    case |= {"path": path, "source": Path(path).name.split(".")[0]}
    case |= {key: _tensor(item[key], device) for key in _TENSORS if item.get(key) is not None}
    case.setdefault("label_mask", case.pop("mask", torch.zeros_like(case["label"])))
    return case


def _tensor(x: Any, device: torch.device) -> Tensor:
    tensor: Tensor = torch.as_tensor(x).detach().as_subclass(Tensor)
    return tensor.to(device=device, dtype=torch.float32)[None]
