"""Which images of an archive are of one patient, by what their headers say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scripts.prepare.dicom_instance import Instance
from scripts.prepare.pseudonyms import normalised

__all__ = ["Identity", "identities"]

_PLACEHOLDERS = frozenset(
    {"", "na", "none", "null", "unknown", "removed", "deleted", "deidentified", "patient", "test"}
    | {"anon", "anonym", "anonymous", "anonymised", "anonymized", "noname", "noid"}
)
"""What anonymisers write for everybody, without blanks and signs; and any text of noughts or of the letter x."""
_NOBODYS_NAME = re.compile(r"anon|deident|unknown|removed|patient|test")
"""How names begin that are no names."""
_SHORTEST_NAME = 3


@dataclass(frozen=True)
class Identity:
    """Who a patient is: a text that only the key shows; and where no PatientID told it, what did."""

    identifier: str
    by_study: bool = False
    by_name: bool = False


def identities(instances: Iterable[Instance]) -> dict[str, Identity]:
    """SOPInstanceUID -> patient; an image without PatientID and study has none.

    It is PatientID. IssuerOfPatientID tells equal ones apart where there are two issuers and no image lacks it: else
    one patient could become two, and be in training and in test. Without PatientID it is that of the study's other
    images, that of images with the same name and date of birth, these two themselves, or at last the study.
    """
    instances = list(instances)
    issuers: dict[str, set[str]] = defaultdict(set)
    of_study: dict[str, set[tuple[str, str]]] = defaultdict(set)
    of_person: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for one in instances:
        if _stated(one.patient):
            issuers[normalised(one.patient)].add(normalised(one.issuer))
            of_study[one.study].add((one.patient, one.issuer))
            of_person[_person(one)].add((one.patient, one.issuer))
    found = {}
    for one in instances:
        patients = {(one.patient, one.issuer)} if _stated(one.patient) else of_study[one.study] if one.study else set()
        person = "" if patients else _person(one)
        if person and len({normalised(patient) for patient, _ in of_person[person]}) == 1:
            patients = of_person[person]
        if len({normalised(patient) for patient, _ in patients}) == 1:
            found[one.uid] = Identity(_identifier(*min(patients), issuers), by_name=bool(person))
        elif not patients and (person or one.study):
            found[one.uid] = Identity(person or f"study {one.study}", by_study=not person, by_name=bool(person))
    return found


def _stated(text: str) -> bool:
    """Whether a PatientID or a name is one, and not what anonymisers write for everybody."""
    plain = re.sub(r"[\W_]+", "", normalised(text))
    return plain not in _PLACEHOLDERS and re.fullmatch(r"0+|x+", plain) is None


def _person(one: Instance) -> str:
    """Name and date of birth; empty unless both are there and tell something."""
    name, birth = re.sub(r"[\W_]+", "", normalised(one.name)), re.sub(r"\D", "", one.birth)
    anybody = _NOBODYS_NAME.match(name) or len(name) < _SHORTEST_NAME or not _stated(name)
    unborn = len(birth) != 8 or birth.endswith("0000") or birth.startswith(("0", "1900"))
    return "" if anybody or unborn else f"name {name} born {birth}"


def _identifier(patient: str, issuer: str, issuers: Mapping[str, set[str]]) -> str:
    known = issuers[normalised(patient)]
    return patient if "" in known or len(known) == 1 else f"{patient} of {normalised(issuer)}"
