"""Load the weights of one network from a file, or say exactly why that is not possible."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from bundle.resumable_trainer import unwrap
from bundle.saved_state import load_saved

Network = TypeVar("Network", bound=nn.Module)
_SHOWN = 3


def load_weights(network: Network, path: str | PathLike[str]) -> Network:
    """Load a raw state dict into a network, every tensor of it and nothing else.

    Args:
        network: the network to fill, or its ``DistributedDataParallel`` wrapper; its own device is kept.
        path: file written by ``torch.save(network.state_dict(), path)``. It runs no code, also if it is
            from elsewhere, see ``load_saved``.

    Returns:
        The same network, in its wrapper if it has one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a raw state dict, or does not fit the network.
    """
    file = Path(path).absolute()
    if not file.is_file():
        raise FileNotFoundError(
            f"no weights at {file}; train first (training writes models/model.pt) or set the path of your weights"
        )
    try:
        content = load_saved(file)
    except ValueError as error:
        raise ValueError(
            f"{file} cannot be read as weights; expected a state dict saved with torch.save, "
            "not TorchScript, a pickled network or a damaged file"
        ) from error
    state = _raw_state(content, file)
    bare = unwrap(network)
    problems = _mismatches(bare.state_dict(), state)
    if problems:
        raise ValueError(
            f"{file} does not fit the network: {'; '.join(problems)}. "
            "Use the network_def these weights were trained with, or other weights"
        )
    try:
        bare.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError) as error:  # values of a kind that cannot become the network's
        raise ValueError(f"{file} does not fit the network: {error}") from error
    return network


def _raw_state(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content)
    found = f"a dict with the keys {_first(content)}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise ValueError(
        f"{file} holds {found}, expected the raw state dict of one generator; a checkpoint of a whole training is for "
        "--resume, the weights beside it are in model.pt"
    )


def _mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    missing = [key for key in wanted if key not in found]
    unknown = [key for key in found if key not in wanted]
    shapes = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in found and found[key].shape != tensor.shape
    ]
    problems = [f"{len(missing)} tensors missing ({_first(missing)})"] if missing else []
    problems += [f"{len(unknown)} tensors unknown ({_first(unknown)})"] if unknown else []
    return problems + ([f"{len(shapes)} of another shape ({_first(shapes)})"] if shapes else [])


def _first(names: Any) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")
