"""The same pixels under two names: a case too many, or a patient under two identifiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts.prepare.view import LeftOut

__all__ = ["leave_out_repeats"]


def leave_out_repeats(
    facts: Sequence[Mapping[str, Any]], files: Sequence[str]
) -> tuple[list[int], list[LeftOut], dict[str, str]]:
    """Find cases with an image (LE or DES) that an earlier case has too.

    Args:
        facts: ``name``, ``patient_id``, ``image_digest`` and ``label_digest`` of each case.
        files: the file of each case as reports name it.

    Returns:
        The indices of the cases that stay, why the others do not, and for every patient the group in which it must be
        split: patients who share an image are one group.
    """
    first: dict[str, int] = {}
    anyone: dict[str, str] = {}
    kept, left_out = [], []
    groups = _Groups(str(one["patient_id"]) for one in facts)
    for index, one in enumerate(facts):
        digests = (one["image_digest"], one["label_digest"])
        for digest in digests:  # also of cases that are left out: they tell who is the same patient
            groups.join(str(one["patient_id"]), anyone.setdefault(digest, str(one["patient_id"])))
        same = next((first[digest] for digest in digests if digest in first), None)
        if same is None:
            first |= dict.fromkeys(digests, index)
            kept.append(index)
        else:
            left_out.append(_repeat(one, facts[same], files[index]))
    return kept, left_out, groups.names()


def _repeat(case: Mapping[str, Any], other: Mapping[str, Any], file: str) -> LeftOut:
    patient, first = case["patient_id"], other["patient_id"]
    if patient == first:
        reason = f"holds the same pixels as {other['name']}"
        return LeftOut(str(case["name"]), file, reason, "Nothing, if the image was exported twice")
    reason = f"holds the same pixels as {other['name']}: patients {first} and {patient} share an image"
    remedy = "One of the two patient ids is wrong: correct it (until then both patients are in one fold)"
    return LeftOut(str(case["name"]), file, reason, remedy)


class _Groups:
    """Names that are joined step by step; each group is called by its first name."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def _root(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def join(self, name: str, other: str) -> None:
        self._parent[self._root(name)] = self._root(other)

    def names(self) -> dict[str, str]:
        return {name: self._root(name) for name in self._parent}
