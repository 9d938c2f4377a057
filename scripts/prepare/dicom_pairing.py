"""Which recombined image (DES) was made from which low-energy image (LE), by what their headers say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product

from scripts.prepare.dicom_exposure import (
    NO_DAY,
    NO_TIME,
    Exposure,
    delay,
    known_apart,
    same_exposure,
    telling_numbers,
    with_usable_times,
)

__all__ = ["MINUTES", "ExposurePair", "Unpaired", "pair_exposures"]

MINUTES = 10.0
"""Default of the longest time between an LE image and its DES image."""
_UNNAMED_SECONDS = 30.0
"""The same where the view or the side of one is missing: within this time, no other view can be exposed."""
_TIE_SECONDS = 5.0
"""Two candidates whose times differ by less are equally near."""
_TIME_ONLY = 3
"""The weakest evidence, see ``_Link``."""


@dataclass(frozen=True)
class ExposurePair:
    """An LE image and its DES image, with what is known of the view from either of them."""

    image: Exposure
    label: Exposure
    laterality: str | None
    view: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unpaired:
    """An image that got no partner, and why; ``too_far``: a longer limit of the time might give it one."""

    exposure: Exposure
    reason: str
    too_far: bool = False


@dataclass(frozen=True)
class _Link:
    """That a DES image may belong to an LE image; the smaller ``key``, the likelier."""

    image: Exposure
    label: Exposure
    evidence: int  # 0: one names the other, 1: a common event or source, 2: the acquisition number, 3: time and view
    gap: float
    backwards: bool  # the DES image, which is computed from the LE image, is the earlier one
    other_number: bool

    @property
    def named(self) -> bool:
        return self.image.named and self.label.named

    @property
    def key(self) -> tuple[int, bool, float, bool, bool, str, str]:
        ends = self.image.uid, self.label.uid
        return self.evidence, self.backwards, self.gap, self.other_number, not self.named, *ends

    def has(self, uid: str) -> bool:
        return uid in (self.image.uid, self.label.uid)

    def allowed(self, limit: float) -> bool:
        """Whether the time between the two is short enough; a named or an unknown time does not forbid."""
        if self.evidence < 2 or self.gap == NO_TIME:  # a number alone may be of another day's count
            return True
        return self.gap <= (limit if self.named else min(limit, _UNNAMED_SECONDS))

    def ties(self, other: _Link) -> bool:
        """Whether nothing says which of the two is the likelier."""
        if (self.evidence, self.backwards, self.other_number) != (other.evidence, other.backwards, other.other_number):
            return False
        if NO_TIME in (self.gap, other.gap):
            return self.gap == other.gap and self.named == other.named
        return abs(self.gap - other.gap) <= _TIE_SECONDS


def pair_exposures(
    images: Sequence[Exposure], labels: Sequence[Exposure], minutes: float = MINUTES
) -> tuple[list[ExposurePair], list[Unpaired]]:
    """Pair LE with DES images of the same study, side and view, one to one.

    First come images one of which names the other, then those with a common irradiation event or source image, then
    those whose acquisition number is the same and unique in the view, then the nearest in time, if the order of the
    exposures agrees. Where a side or a view is missing, the other's serves. What stays ambiguous is not paired.

    Args:
        images: the LE images.
        labels: the DES images.
        minutes: longest time between the two of a pair, where only view and time connect them.

    Returns:
        The pairs, and every image without partner with the reason.
    """
    pairs: list[ExposurePair] = []
    reasons: dict[str, str] = {}
    far: set[str] = set()
    by_study: dict[str, tuple[list[Exposure], list[Exposure]]] = defaultdict(lambda: ([], []))
    for role, group in enumerate((images, labels)):
        for exposure in group:
            by_study[exposure.study][role].append(exposure)
    for study in sorted(by_study):
        links = _links(*with_usable_times(*by_study[study]))
        found, why = _matched([link for link in links if link.allowed(60 * minutes)])
        pairs += found
        named = [link for link in links if link.named]
        reasons |= {end.uid: _too_far(minutes) for link in named for end in (link.image, link.label)} | why
        distant = [link for link in named if not link.allowed(60 * minutes)]
        far |= {end.uid for link in distant for end in (link.image, link.label)} - why.keys()
    used = {one.uid for pair in pairs for one in (pair.image, pair.label)}
    unpaired = []
    for group, missing in ((images, "recombined"), (labels, "low-energy")):
        default = f"no {missing} image of the same study, side and view"
        left = [one for one in group if one.uid not in used]
        unpaired += [Unpaired(one, reasons.get(one.uid, default), one.uid in far) for one in left]
    return pairs, unpaired


def _too_far(minutes: float) -> str:
    return f"the images of this view that could be its partner belong to others, or are over {minutes:g} minutes away"


def _links(images: Sequence[Exposure], labels: Sequence[Exposure]) -> list[_Link]:
    """All that agree in what is known of side and view, the likeliest first."""
    links = []
    telling = telling_numbers(images, labels)
    for image in images:
        for label in labels:
            if known_apart(image, label):
                continue
            named = image.uid in label.references or label.uid in image.references
            shared = bool((image.events | image.references) & (label.events | label.references))
            other_number = image.number is None or image.number != label.number
            alike = image.place == label.place and image.place in telling
            evidence, seconds = 0 if named else 1 if shared else 2 if alike else _TIME_ONLY, delay(image, label)
            links.append(_Link(image, label, evidence, abs(seconds), seconds < -_TIE_SECONDS, other_number))
    return sorted(links, key=lambda link: link.key)


def _matched(links: Sequence[_Link]) -> tuple[list[ExposurePair], dict[str, str]]:
    """Take the likeliest link again and again; and why others got none."""
    chosen, reasons = _chosen(links)
    crossing = _crossing(chosen, reasons, links)
    pairs = [_pair(link, notes) for link, notes in chosen if not crossing & {link.image.uid, link.label.uid}]
    return pairs, reasons | dict.fromkeys(crossing, _AMBIGUOUS)


def _chosen(links: Sequence[_Link]) -> tuple[list[tuple[_Link, tuple[str, ...]]], dict[str, str]]:
    """The links taken, with notes; and why others were not."""
    chosen: list[tuple[_Link, tuple[str, ...]]] = []
    reasons: dict[str, str] = {}
    taken: set[str] = set()
    ends = _ends(links)
    for link in links:
        if link.image.uid in taken or link.label.uid in taken:
            continue
        rivals = [
            other
            for other in (*ends[link.image.uid], *ends[link.label.uid])
            if other is not link and other.ties(link) and not {other.image.uid, other.label.uid} & taken
        ]
        clear = all(same_exposure(_other_end(rival, link), _other_end(link, rival)) for rival in rivals)
        clear = clear and not (rivals and _computed_together(link, ends))
        both = {end.uid for one in (link, *rivals) for end in (one.image, one.label)}
        taken |= both
        if clear:
            best, notes = _first_version(link, rivals, ends)
            chosen.append((best, notes))
            reasons |= dict.fromkeys(both - {best.image.uid, best.label.uid}, _SAME_EXPOSURE)
        else:
            reasons |= dict.fromkeys(both, _AMBIGUOUS)
    return chosen, reasons


def _first_version(
    link: _Link, rivals: Sequence[_Link], ends: Mapping[str, Sequence[_Link]]
) -> tuple[_Link, tuple[str, ...]]:
    """Of several versions of one exposure the first that was made, by content time, series number and UID."""
    images = {one.image.uid: one.image for one in (link, *rivals)}
    labels = {one.label.uid: one.label for one in (link, *rivals)}
    image, label = (min(versions.values(), key=_made) for versions in (images, labels))
    best = next((one for one in ends[image.uid] if one.has(label.uid)), link)
    counts = {"low-energy": len(images), "recombined": len(labels)}
    return best, tuple(
        f"of {count} versions of the {word} image the first" for word, count in counts.items() if count > 1
    )


def _made(one: Exposure) -> tuple[datetime, float, str]:
    return one.created or NO_DAY, math.inf if one.series is None else one.series, one.uid


def _computed_together(link: _Link, ends: Mapping[str, Sequence[_Link]]) -> bool:
    """Whether DES images of one time may be of several LE exposures: then their time is that of computing."""
    exposures = [
        sum(not any(same_exposure(one, two) for two in group[:place]) for place, one in enumerate(group))
        for group in ([one.image for one in ends[link.label.uid]], [one.label for one in ends[link.image.uid]])
    ]
    return exposures[1] < exposures[0]


def _crossing(
    chosen: Sequence[tuple[_Link, tuple[str, ...]]], reasons: Mapping[str, str], links: Sequence[_Link]
) -> set[str]:
    """Images paired by time alone, though the order of the exposures would pair them otherwise.

    A DES image may be stamped with the time of its computing. Then the nearest LE image can be that of the next
    exposure: of two such pairs, or of a pair and two images left over, the earlier LE image has the later DES image.
    """
    used = {uid for link, _ in chosen for uid in (link.image.uid, link.label.uid)} | reasons.keys()
    allowed = {(link.image.uid, link.label.uid) for link in links}
    by_time = [(link.image, link.label) for link, _ in chosen if link.evidence == _TIME_ONLY]
    images = {link.image for link in links if link.image.uid not in used}
    labels = {link.label for link in links if link.label.uid not in used}
    found: set[str] = set()
    for image, label in by_time:
        for other in (*by_time, *product(images, labels)):
            swapped = {(image.uid, other[1].uid), (other[0].uid, label.uid)} <= allowed
            if swapped and _order(image, other[0]) * _order(label, other[1]) < 0:
                found |= {one.uid for one in (image, label, *other)}
    return found


def _order(one: Exposure, two: Exposure) -> int:
    """1 if the second is the later one, -1 if it is the earlier one, 0 where that is not known."""
    seconds = delay(one, two)
    return 0 if not math.isfinite(seconds) else (seconds > 0) - (seconds < 0)


_SAME_EXPOSURE = "another version of this exposure was taken"
_AMBIGUOUS = "several images could be its partner, and neither times nor references tell which"


def _ends(links: Iterable[_Link]) -> Mapping[str, list[_Link]]:
    ends: dict[str, list[_Link]] = defaultdict(list)
    for link in links:
        ends[link.image.uid].append(link)
        ends[link.label.uid].append(link)
    return ends


def _other_end(link: _Link, other: _Link) -> Exposure:
    """The end of ``link`` that ``other``, which shares one end with it, does not have."""
    return link.label if link.image.uid == other.image.uid else link.image


def _pair(link: _Link, more: tuple[str, ...] = ()) -> ExposurePair:
    image, label = link.image, link.label
    notes = []
    for field, word in (("laterality", "side"), ("view", "view")):
        own, partner = getattr(image, field), getattr(label, field)
        if own is None and partner is not None:
            notes.append(f"{word} from the recombined image")
    return ExposurePair(image, label, image.laterality or label.laterality, image.view or label.view, (*notes, *more))
