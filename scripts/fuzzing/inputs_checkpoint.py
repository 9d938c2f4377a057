"""Inputs for the readers of weights and checkpoints: code, false sizes, tuples that expand, other formats, damage."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st

from scripts.fuzzing.mutations import NUMBERS, TEXTS, damaged
from scripts.fuzzing.tried import Input

__all__ = ["inputs"]

_NAMES = ("model.pt", "best_networks.pt", "checkpoint.pt", "FL_global_model.pt")
_SHAPES = ((3,), (0,), (2, 3), (1,) * 9, (10**6, 10**6), (2**62,), (4, 1, 7, 7))
_CALLS = (
    ("posix", "system", ("touch ../escaped",)), ("os", "system", ("touch ../escaped",)),
    ("builtins", "eval", ("open('../escaped', 'w')",)), ("builtins", "exec", ("open('../escaped', 'w')",)),
    ("subprocess", "Popen", (["touch", "../escaped"],)), ("builtins", "open", ("../escaped", "w")),
    ("torch", "load", ("../canary.txt",)), ("torch.serialization", "load", ("../canary.txt",)),
    ("numpy", "load", ("../canary.txt", None, True)), ("shutil", "rmtree", ("..",)), ("pathlib", "PosixPath", ("..",)),
)  # fmt: skip


class _Call:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...]) -> None:
        self.of = module, name, arguments

    def pickled(self, protocol: int) -> bytes:
        """The pickle, written by hand: the function need not exist here."""
        module, name, arguments = self.of
        found = pickle.dumps(arguments, protocol=2)[2:-1]
        return b"\x80" + bytes([protocol]) + f"c{module}\n{name}\n".encode() + found + b"R."


def _saved(content: Any, legacy: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def _with_pickle(pickled: bytes, compressed: bool = False) -> bytes:
    """A file of torch.save with another pickle in it."""
    return _repacked(_saved({"a": torch.zeros(3)}), {"data.pkl": pickled}, compressed)


def _repacked(content: bytes, changed: dict[str, bytes], compressed: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            data = changed.get(entry.filename.rpartition("/")[2], old.read(entry))
            new.writestr(entry.filename, data, zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    return out.getvalue()


@cache
def _networks() -> dict[str, dict[str, torch.Tensor]]:
    from scripts.fuzzing.small_trainer import NAMES, network_of

    return {name: network_of(name).state_dict() for name in NAMES}


@cache
def _whole(name: str) -> bytes:
    """What a training of `scripts.fuzzing.small_trainer` would have written."""
    networks = _networks()
    if name == "model.pt":
        return _saved(networks["network"])
    if name == "best_networks.pt":
        return _saved(networks)
    if name == "FL_global_model.pt":
        return _saved({"model": networks["network"]})
    from scripts.fuzzing.small_trainer import checkpoint

    return checkpoint()


def _expanding(levels: int) -> bytes:
    """A tuple of tuples, each twice, as a key: its hash takes two to the power of the levels."""
    return b"\x80\x02}q\x00(" + b")" + b"".join(b"q\x01h\x01\x86" for _ in range(levels)) + b"K\x01u."


def _tensor_pickle(shape: tuple[int, ...], stride: tuple[int, ...], count: int, kind: str = "FloatStorage") -> bytes:
    """A pickle of one tensor by its parts, which need not fit each other."""

    def number(value: int) -> bytes:
        return pickle.dumps(value, protocol=2)[2:-1]

    storage = (
        b"(X\x07\x00\x00\x00storagectorch\n"
        + kind.encode()
        + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + number(count)
        + b"tQ"
    )
    sides, steps = (b"(" + b"".join(map(number, one)) + b"t" for one in (shape, stride))
    made = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\x00"
        + sides
        + steps
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02}X\x01\x00\x00\x00a" + made + b"s."


def _hostile(name: str) -> st.SearchStrategy[bytes]:
    """Files of all kinds that a file of this name must not be."""
    called = st.builds(
        lambda call, protocol: _Call(*call).pickled(protocol), st.sampled_from(_CALLS), st.integers(2, 5)
    )
    storages = ("FloatStorage", "DoubleStorage", "ByteStorage", "QInt8Storage", "ComplexDoubleStorage", "X")
    strides = st.sampled_from([(1,), (0,), (0, 0), (2**62, 1), (-1,)])
    counts = st.sampled_from([0, 1, 3, 10**6, 10**12, 2**62, -1])
    tensors = st.builds(_tensor_pickle, st.sampled_from(_SHAPES), strides, counts, st.sampled_from(storages))
    plain = (b"", b"PK", b"PK\x05\x06" + bytes(18), b"\x80\x02.", pickle.dumps({"a": 1}), bytes(100))
    return st.one_of(
        called.map(_with_pickle),
        called,
        called.map(lambda pickled: _saved({}, legacy=True)[:-10] + pickled),
        tensors.map(_with_pickle),
        _content(name),
        st.sampled_from([3, 40, 200]).map(_expanding).map(_with_pickle),
        st.sampled_from([2**20, 2**31, 2**32 - 2]).map(lambda size: _false_sizes(_whole(name), size)),
        st.builds(lambda: _repacked(_whole(name), {}, compressed=True)),
        st.builds(_tar),
        st.builds(_bomb),
        st.builds(lambda: _saved(_networks()["network"], legacy=True)),
        st.sampled_from(plain),
    )


@cache
def _bomb() -> bytes:
    """Compressed values: 256 MiB in few bytes."""
    return _repacked(_saved({"a": torch.zeros(3)}), {"0": bytes(2**28)}, compressed=True)


@st.composite
def _content(draw: st.DrawFn, name: str) -> bytes:
    """The right structure with something else in one place."""
    content: Any = torch.load(io.BytesIO(_whole(name)), weights_only=True)
    wrong: list[Any] = [
        None,
        3,
        -1,
        2.5,
        float("nan"),
        True,
        [],
        {},
        [1],
        {"a": [2]},
        torch.zeros(0),
        torch.zeros(2, 3),
    ]
    wrong += [
        torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(3, dtype=torch.complex64),
        torch.eye(3).to_sparse(),
        *TEXTS[:20],
        *NUMBERS[:20],
    ]
    place = content
    for _ in range(draw(st.integers(0, 5))):
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        inner = [key for key in keys if isinstance(place[key], (dict, list)) and place[key]]
        if not inner:
            break
        place = place[draw(st.sampled_from(inner))]
    if isinstance(place, dict) and place:
        key = draw(st.sampled_from(list(place)))
        change = draw(st.sampled_from(["value", "value", "gone", "key"]))
        old = place.pop(key)
        if change == "value":
            place[key] = draw(st.sampled_from(wrong))
        elif change == "key":
            place[draw(st.sampled_from(["x", 3, -1, (1, 2)]))] = old
    elif isinstance(place, list) and place:
        place[draw(st.integers(0, len(place) - 1))] = draw(st.sampled_from(wrong))
    return _saved(content)


@cache
def _tar() -> bytes:
    """The format of torch before 0.1.2, with names that lead elsewhere."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "../../escaped", "/tmp/escaped"):  # noqa: S108 (never written)
            entry = tarfile.TarInfo(name)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"\x80\x02N."))
    return out.getvalue()


def _false_sizes(content: bytes, size: int) -> bytes:
    """A zip whose directory gives each part another size."""
    changed = bytearray(content)
    at = changed.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<II", changed, at + 20, size, size)
        at = changed.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    """One file, under one of the names that the readers know."""
    name = draw(st.sampled_from(_NAMES))
    content = draw(st.one_of(_hostile(name), st.just(_whole(name))))
    if len(content) < 2**20 and draw(st.integers(0, 2)) == 0:
        content = draw(damaged(content))
    return Input({name: content})
