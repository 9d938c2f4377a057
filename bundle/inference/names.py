"""What the names of image files and folders say about the kind of image, in the data sets there are."""

from __future__ import annotations

import re
from pathlib import PurePath

from bundle.dicom.kind import Kind

__all__ = ["named_kind"]

_MASK = "lesion mask"
#: CDD-CESM: P1_L_CM_MLO.jpg is contrast-enhanced (subtracted), P1_L_DM_MLO.jpg low-energy.
_CDD_CESM = re.compile(r"P\d+_[LR]_CM_(CC|MLO)", re.IGNORECASE)
_WORDS = (
    # "des" is a word of other languages: it counts at the end of a name
    (re.compile(r"\b(DES$|RECOMBINED\b|RECOMB\b|SUBTRACTED\b|SUBTRACTION\b)"), str(Kind.SUBTRACTED)),
    (re.compile(r"\bHIGH ?ENERGY\b"), str(Kind.HIGH_ENERGY)),
    (re.compile(r"\bMASKS?\b"), _MASK),
)


def named_kind(path: PurePath) -> tuple[str, str] | None:
    """The kind of image that a relative path names, and the name that says so; None where it names none to refuse.

    Names of the public data sets (CDD-CESM, CESM@UCBM), of the data sets this bundle prepares (``DES``, ``mask``) and
    plain words: DES, recombined, subtracted, high energy, mask.
    """
    if _CDD_CESM.match(path.stem):
        return str(Kind.SUBTRACTED), path.name
    for part in (path.stem, *reversed(path.parts[:-1])):
        words = re.sub(r"[\s_.-]+", " ", part).upper()
        for pattern, kind in _WORDS:
            if pattern.search(words):
                return kind, part
    return None
