"""Read what torch.save has written without running its code, believing its sizes or waiting for ever."""

from __future__ import annotations

import errno
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["load_saved"]

_MOST_PARTS = 10_000
"""Parts of one tuple, those of the tuples in it included: the state of Python's random numbers has 625."""


def load_saved(path: str | PathLike[str]) -> Any:
    """The content of a file, which may be from elsewhere: tensors, numbers and texts in dicts, lists and tuples.

    torch reads it with ``weights_only=True``, which runs no code. What it would still believe is looked at before: the
    sizes of the parts, which may not be more than the file has (nothing in it is compressed), and tuples, which may be
    few bytes that stand for as many parts as there are atoms.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it was not written by ``torch.save`` of torch 1.6 or newer, is damaged, or holds something else.
    """
    file = Path(path)
    try:
        _require_sound(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
        _require_own_values(content)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is what a place before the start of a file leads to
            raise
        raise ValueError(f"{file} cannot be read: it is damaged") from error
    except Exception as error:  # the reader of pickles raises whatever a damaged one leads to
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{file} cannot be read: {reason}") from error
    return content


def _require_sound(file: Path) -> None:
    """Refuse other formats, sizes that the file does not have, and pickles that expand."""
    if not zipfile.is_zipfile(file):
        raise ValueError("no file of torch.save (torch 1.6 or newer); if it is older, load and save it with that torch")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > file.stat().st_size:
            raise ValueError("its parts are compressed, or larger than the file: torch.save writes them as they are")
        for entry in entries:
            if entry.filename.endswith("data.pkl"):
                _require_few_parts(archive.read(entry))


def _require_few_parts(pickled: bytes) -> None:
    """Follow the stack of a pickle, without making anything, and count the parts of its tuples.

    A tuple of a tuple of a tuple, each named twice, takes its reader as long as if it were written out.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    mark = pickletools.markobject
    for code, argument, _ in pickletools.genops(pickled):
        if code.name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if code.name == "MEMOIZE" else int(argument or 0)] = stack[-1]
            continue
        if code.name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument or 0)])
            continue
        taken: list[Any] = []
        if mark in code.stack_before:
            while (top := stack.pop()) is not mark:
                taken.append(top)
            taken += [stack.pop() for _ in code.stack_before[: code.stack_before.index(mark)]]
        else:
            taken = [stack.pop() for _ in code.stack_before]
        parts = 1 + sum(taken) if code.name.startswith("TUPLE") else 0
        if parts > _MOST_PARTS:
            raise ValueError(f"a tuple of more than {_MOST_PARTS} parts")
        stack += taken * 2 if code.name == "DUP" else [one if one is mark else parts for one in code.stack_after]


def _require_own_values(content: Any) -> None:
    """Refuse tensors whose values are not all in the file: a single one can stand for any number of them."""
    for tensor in _tensors(content):
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            kind = f"{str(tensor.layout).removeprefix('torch.')} tensor of shape {tuple(tensor.shape)}"
            raise ValueError(f"a {kind} whose values are not all there")


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors, at any depth, each container once."""
    seen: set[int] = set()
    left = [content]
    while left:
        one = left.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (Mapping, list, tuple, set)) and id(one) not in seen:
            seen.add(id(one))
            left.extend(one.values() if isinstance(one, Mapping) else one)
