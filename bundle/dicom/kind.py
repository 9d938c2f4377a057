"""What a DICOM object is: a low-energy image, a subtracted one, an ordinary mammogram, or none of them."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from types import MappingProxyType

from pydicom import Dataset

from bundle.dicom.header import number, text, values

__all__ = ["INPUT_KINDS", "Kind", "kind_of", "refusal"]


class Kind(StrEnum):
    """What an object is to this software."""

    LOW_ENERGY = "low-energy image"
    SUBTRACTED = "subtracted image"
    HIGH_ENERGY = "high-energy image"
    MAMMOGRAM = "mammogram"
    FOR_PROCESSING = "image for processing"
    TOMOSYNTHESIS = "tomosynthesis"
    STEREO = "stereotactic image"
    SEGMENTATION = "segmentation"
    OTHER = "other object"


#: What the network may be given: the low-energy image of a contrast examination, or an ordinary mammogram.
INPUT_KINDS = (Kind.LOW_ENERGY, Kind.MAMMOGRAM)

_MG_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
_MG_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
_MAMMOGRAPHY_CLASSES = frozenset({_MG_FOR_PRESENTATION, _MG_FOR_PROCESSING})
#: SOP classes that settle the kind by themselves.
_CLASSES = MappingProxyType(
    {
        "1.2.840.10008.5.1.4.1.1.66.4": (Kind.SEGMENTATION, "Segmentation Storage"),
        "1.2.840.10008.5.1.4.1.1.66.7": (Kind.SEGMENTATION, "Label Map Segmentation Storage"),
        "1.2.840.10008.5.1.4.1.1.13.1.3": (Kind.TOMOSYNTHESIS, "Breast Tomosynthesis Image Storage"),
        "1.2.840.10008.5.1.4.1.1.13.1.4": (Kind.TOMOSYNTHESIS, "Breast Projection X-Ray Image Storage"),
        "1.2.840.10008.5.1.4.1.1.13.1.5": (Kind.TOMOSYNTHESIS, "Breast Projection X-Ray Image Storage"),
        "1.2.840.10008.1.3.10": (Kind.OTHER, "a DICOMDIR, which lists images and is none"),
    }
)
#: ImageType, value 3 and later. VIRTUAL_DES is what this software writes.
_VIRTUAL = "VIRTUAL_DES"
_TOMOSYNTHESIS = frozenset(
    {"TOMO", "TOMO_PROJ", "TOMO_2D", "TOMO_SCOUT", "TOMOSYNTHESIS", "GENERATED_2D", "SYNTHESIZED_2D", "SYNTHETIC_2D"}
)
_STEREO = re.compile(r"STEREO(_.*)?|(PRE|POST)FIRE(_.*)?|POST(BIOPSY|MARKER)(_.*)?")
_ENERGY_TERMS = MappingProxyType(
    dict.fromkeys(("LOW_ENERGY", "LOWENERGY", "LE"), Kind.LOW_ENERGY)
    | dict.fromkeys(("HIGH_ENERGY", "HIGHENERGY", "HE"), Kind.HIGH_ENERGY)
    | dict.fromkeys(("RECOMBINED", "RECOMBINATION", "RECOMB", "SUBTRACTION", "SUBTRACTED"), Kind.SUBTRACTED)
)
#: The same in free text, where blanks, hyphens and underscores have become one blank.
_ENERGY_WORDS = (
    (re.compile(r"\bLOW(?: ?(?:ENERGY|KV)\b|\W+(?:\w+ )?HIGH ?(?:ENERGY|KV)\b)"), Kind.LOW_ENERGY),
    (re.compile(r"\bHIGH(?: ?(?:ENERGY|KV)\b|\W+(?:\w+ )?LOW ?(?:ENERGY|KV)\b)"), Kind.HIGH_ENERGY),
    (re.compile(r"(?<!NOT )(?<!NON )(?<!NO )\b(?:RECOMB|SUBTRACT)"), Kind.SUBTRACTED),
)
_SYNTHETIC_WORDS = re.compile(
    r"\b[CS] VIEW\b|\bV PREVIEW\b|\bINTELLIGENT 2D\b|\bINSIGHT 2D\b|\bGENERATED 2D\b|\bSYNTHE\w*"
)
_CONTRAST_WORDS = re.compile(r"\bC(E|ES|ED)M\b|\bCE ?2D\b|\bSENOBRIGHT\b|\bI VIEW\b|\bTICEM\b|\bCONTRAST ENH\w*")
#: Abbreviations are words of other languages ("CC des seins", "sub areolar"): they count where a contrast examination
#: is named, at the end of a text, or before a view or a contrast word.
_NO_WORD_OF_A_TEXT = rf"(?= *$| (?:[LR] )?[LR]?(?:CC|MLO|ML|LM|LMO)\b| (?:{_CONTRAST_WORDS.pattern}))"
_ENERGY_ABBREVIATIONS = (
    (re.compile(rf"\bLE\b{_NO_WORD_OF_A_TEXT}"), Kind.LOW_ENERGY),
    (re.compile(rf"\bHE\b{_NO_WORD_OF_A_TEXT}"), Kind.HIGH_ENERGY),
    (re.compile(rf"\b(?:DES|SUB|REC)\b{_NO_WORD_OF_A_TEXT}"), Kind.SUBTRACTED),
)
#: Processing of GE's recombined images; their low-energy images have that of ordinary mammograms, GEMS_FFDM_PV.
_RECOMBINING_CODE = re.compile(r"GEMS CESM(?: (\w{1,4}))?")
_DESCRIPTIONS = (
    "AcquisitionDeviceProcessingDescription",
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionProtocolName",
    "DerivationDescription",
)
#: Free text: what it says about the energy counts less than the tube voltage.
_COMMENTS = "ImageComments"
#: Tube voltages in kV: ordinary and low-energy exposures, and exposures above the K-edge of iodine (33 keV).
_LOW_KVP, _HIGH_KVP = (20.0, 40.0), (44.0, 60.0)


def kind_of(header: Dataset) -> tuple[Kind, str]:
    """The kind of object and the reason in words, for instance ``ImageType value 4 is RECOMBINED``.

    The SOP class and modality come first, then ImageType (its terms in value 3 or any later one), For Processing, the
    processing code, and descriptions; KVP decides where the contrast examination is named but not the energy, or where
    mere words contradict it. Another contradiction is part of the reason, after "although"; where nothing can be
    trusted the answer is ``Kind.OTHER``.

    References:
        DICOM PS3.3 C.8.11.7.1.4 (ImageType of mammography), CP-1342 (contrast-enhanced mammography).
    """
    return _not_a_mammogram(header) or _special(header) or _by_energy(header)


def refusal(header: Dataset, accepted: Collection[str] = INPUT_KINDS) -> str | None:
    """Why an object must not be given to the network; None if its kind is one of ``accepted`` (values of ``Kind``)."""
    kind, reason = kind_of(header)
    return None if kind in accepted else f"{kind}: {reason}"


def _not_a_mammogram(header: Dataset) -> tuple[Kind, str] | None:
    sop_class, modality = text(header, "SOPClassUID"), text(header, "Modality")
    if not sop_class:
        meta = getattr(header, "file_meta", None)
        sop_class = "" if meta is None else text(meta, "MediaStorageSOPClassUID")
    if sop_class in _CLASSES:
        kind, name = _CLASSES[sop_class]
        return kind, f"the SOP class is {name}" if kind is not Kind.OTHER else f"it is {name}"
    if modality == "SEG":
        return Kind.SEGMENTATION, "Modality is SEG"
    if modality != "MG" and sop_class not in _MAMMOGRAPHY_CLASSES:
        return Kind.OTHER, f"Modality is {modality or 'missing'}, expected MG"
    if "Rows" not in header or "Columns" not in header:
        return Kind.OTHER, "it holds no image (no Rows and Columns)"
    return None


def _terms(header: Dataset) -> list[tuple[int, str]]:
    """Number and normalised text of the values of ImageType from the third on."""
    terms = [re.sub(r"[\s_-]+", "_", str(value).strip().upper()) for value in values(header, "ImageType")]
    return [(place, term) for place, term in enumerate(terms, start=1) if place >= 3 and term]


def _plain(header: Dataset, keyword: str) -> str:
    return re.sub(r"[\s_-]+", " ", text(header, keyword))


def _special(header: Dataset) -> tuple[Kind, str] | None:
    """What is a mammogram, but not a view of one exposure for presentation."""
    return _special_by_image_type(header) or _synthesized(header) or _for_processing(header)


def _special_by_image_type(header: Dataset) -> tuple[Kind, str] | None:
    for place, term in _terms(header):
        reason = f"ImageType value {place} is {term}"
        if term == _VIRTUAL:
            return Kind.OTHER, f"{reason}: a virtual image made by this software"
        if term in _TOMOSYNTHESIS:
            return Kind.TOMOSYNTHESIS, reason
        if _STEREO.fullmatch(term):
            return Kind.STEREO, reason
    return None


def _synthesized(header: Dataset) -> tuple[Kind, str] | None:
    frames = number(header, "NumberOfFrames") or 1
    if frames > 1:
        return Kind.TOMOSYNTHESIS, f"it has {frames:.0f} frames"
    for keyword in (*_DESCRIPTIONS, _COMMENTS):
        words = _plain(header, keyword)
        if (found := _SYNTHETIC_WORDS.search(words)) is not None:
            return Kind.TOMOSYNTHESIS, f"{keyword} names {found[0]}, a synthesized image"
    return None


def _for_processing(header: Dataset) -> tuple[Kind, str] | None:
    if text(header, "SOPClassUID") == _MG_FOR_PROCESSING:
        return Kind.FOR_PROCESSING, "the SOP class is Digital Mammography X-Ray Image Storage - For Processing"
    if text(header, "PresentationIntentType") == "FOR PROCESSING":
        return Kind.FOR_PROCESSING, "PresentationIntentType is FOR PROCESSING"
    return None


def _by_energy(header: Dataset) -> tuple[Kind, str]:
    found = _by_image_type(header)
    if len({kind for kind, _ in found}) > 1:
        return Kind.OTHER, "contradictory: " + ", ".join(reason for _, reason in found)
    sure = len(found)
    found += _by_processing(header)
    found += _by_words(header)
    if not found:
        return _by_contrast(header)
    kind, reason = found[0]
    against = [f"although {other}" for other_kind, other in found[1:] if other_kind is not kind]
    voltage = _voltage_against(header, kind)
    if voltage and not sure:  # words are often those of the whole examination
        return _against_words(voltage, kind, reason)
    return kind, ", ".join([reason, *against, *(f"although {one}" for one in voltage)])


def _against_words(voltage: list[str], kind: Kind, reason: str) -> tuple[Kind, str]:
    """What an image is whose voltage contradicts the words: an exposure above the K-edge, or nobody knows."""
    if kind is Kind.LOW_ENERGY:
        return Kind.HIGH_ENERGY, f"{voltage[0]}, although {reason}"
    return Kind.OTHER, f"contradictory: {reason}, although {voltage[0]}"


def _by_image_type(header: Dataset) -> list[tuple[Kind, str]]:
    return [
        (_ENERGY_TERMS[term], f"ImageType value {place} is {term}")
        for place, term in _terms(header)
        if term in _ENERGY_TERMS
    ]


def _by_processing(header: Dataset) -> list[tuple[Kind, str]]:
    code = _RECOMBINING_CODE.fullmatch(_plain(header, "AcquisitionDeviceProcessingCode"))
    if code is not None:
        return [(Kind.SUBTRACTED, f"AcquisitionDeviceProcessingCode is {code[0].replace(' ', '_')}")]
    return _words_of(header, "AcquisitionDeviceProcessingCode")


def _words_of(header: Dataset, keyword: str) -> list[tuple[Kind, str]]:
    """The energy that an attribute names; none if it names two, such as "from low and high energy"."""
    words = _plain(header, keyword)
    patterns = _ENERGY_WORDS + (_ENERGY_ABBREVIATIONS if _contrast_named(header)[0] else ())
    found = [(kind, match[0]) for pattern, kind in patterns if (match := pattern.search(words)) is not None]
    subtracted = [one for one in found if one[0] is Kind.SUBTRACTED]
    if len({kind for kind, _ in found}) > 1 and not subtracted:
        return []
    return [(kind, f"{keyword} names {word}") for kind, word in subtracted or found]


def _by_words(header: Dataset) -> list[tuple[Kind, str]]:
    return [one for keyword in _DESCRIPTIONS for one in _words_of(header, keyword)]


def _by_contrast(header: Dataset) -> tuple[Kind, str]:
    """An image whose header names no energy: by contrast words and tube voltage, then by free text."""
    kind, reason = _by_voltage(header)
    if kind in (Kind.LOW_ENERGY, Kind.HIGH_ENERGY):
        return kind, reason
    comments = _words_of(header, _COMMENTS)
    if not comments:
        return kind, reason
    voltage = _voltage_against(header, comments[0][0])
    return _against_words(voltage, *comments[0]) if voltage else comments[0]


def _by_voltage(header: Dataset) -> tuple[Kind, str]:
    named, by_image_type = _contrast_named(header)
    kvp = number(header, "KVP")
    if kvp is not None and _HIGH_KVP[0] <= kvp <= _HIGH_KVP[1]:
        return Kind.HIGH_ENERGY, f"KVP is {kvp:g}" + (f" and {named}" if named else "")
    if not named:
        return Kind.MAMMOGRAM, "a mammogram without contrast terms"
    # Who writes POST_CONTRAST writes SUBTRACTION too; else a derived image may be the subtracted one.
    exposure = by_image_type or not text(header, "ImageType").startswith("DERIVED")
    if kvp is not None and _LOW_KVP[0] <= kvp <= _LOW_KVP[1] and exposure:
        return Kind.LOW_ENERGY, f"{named} and KVP is {kvp:g}"
    return Kind.OTHER, f"{named}, but nothing says which energy"


def _contrast_named(header: Dataset) -> tuple[str, bool]:
    """Where a contrast examination is named, empty if nowhere; and whether that is in ImageType."""
    for place, term in _terms(header):
        if term in ("POST_CONTRAST", "PRE_CONTRAST"):
            return f"ImageType value {place} is {term}", True
    for keyword in (*_DESCRIPTIONS, _COMMENTS):
        if (found := _CONTRAST_WORDS.search(_plain(header, keyword))) is not None:
            return f"{keyword} names {found[0]}", False
    return "", False


def _voltage_against(header: Dataset, kind: Kind) -> list[str]:
    kvp = number(header, "KVP")
    unlike = {Kind.LOW_ENERGY: _HIGH_KVP, Kind.HIGH_ENERGY: _LOW_KVP}.get(kind)
    if kvp is None or unlike is None or not unlike[0] <= kvp <= unlike[1]:
        return []
    return [f"KVP is {kvp:g}"]
