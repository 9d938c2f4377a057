"""Which images of an archive are of one patient, by what their headers say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from scripts.prepare.dicom_instance import Instance
from scripts.prepare.pseudonyms import normalised

__all__ = ["Identity", "identities"]

_PLACEHOLDERS = frozenset(
    {"", "0", "x", "xx", "xxx", "na", "n/a", "none", "null", "unknown", "removed", "deleted", "de-identified"}
    | {"anon", "anonym", "anonymous", "anonymised", "anonymized", "deidentified", "patient", "test"}
)
"""What anonymisers write for everybody, normalised."""


@dataclass(frozen=True)
class Identity:
    """Who a patient is: a text that only the key shows; and whether no PatientID told it."""

    identifier: str
    by_study: bool = False


def identities(instances: Iterable[Instance]) -> dict[str, Identity]:
    """SOPInstanceUID -> patient; an image without PatientID and study has none.

    It is PatientID. IssuerOfPatientID tells equal ones apart, unless it is missing in some images: then one patient
    could become two, and be in training and in test. Without PatientID it is that of the study's other images, or the
    study itself.
    """
    instances = list(instances)
    issuers: dict[str, set[str]] = defaultdict(set)
    of_study: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for one in instances:
        if _stated(one):
            issuers[normalised(one.patient)].add(normalised(one.issuer))
            of_study[one.study].add((one.patient, one.issuer))
    found = {}
    for one in instances:
        patients = {(one.patient, one.issuer)} if _stated(one) else of_study[one.study] if one.study else set()
        if len({normalised(patient) for patient, _ in patients}) == 1:
            found[one.uid] = Identity(_identifier(*min(patients), issuers))
        elif not patients and one.study:
            found[one.uid] = Identity(f"study {one.study}", by_study=True)
    return found


def _stated(instance: Instance) -> bool:
    return normalised(instance.patient) not in _PLACEHOLDERS


def _identifier(patient: str, issuer: str, issuers: dict[str, set[str]]) -> str:
    known = issuers[normalised(patient)]
    named = known - {""}
    if len(named) == 1:
        return f"{patient} of {next(iter(named))}"
    return patient if "" in known else f"{patient} of {normalised(issuer)}"
