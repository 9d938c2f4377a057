"""Which recombined image (DES) was made from which low-energy image (LE), by what their headers say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations

__all__ = ["Exposure", "ExposurePair", "Unpaired", "pair_exposures"]

MINUTES = 10.0
"""Default of the longest time between an LE image and its DES image."""
_UNNAMED_SECONDS = 30.0
"""The same where the view or the side of one is missing: within this time, no other view can be exposed."""
_TIE_SECONDS = 5.0
"""Two candidates whose times differ by less are equally near."""
_SAME_SECONDS = 1.0
"""Images of one view that were taken within this time are versions of one exposure."""
_NO_TIME = float("inf")


@dataclass(frozen=True)
class Exposure:
    """What the header of an LE or a DES image says about its exposure.

    Attributes:
        uid: its SOP instance UID, unique among the images to pair.
        study: images of different studies (or patients) are never paired.
        laterality: ``L`` or ``R``; None where missing.
        view: such as ``CC``; None where missing.
        acquired: date and time of the acquisition.
        created: date and time of the image's content: for a DES image, later than its acquisition.
        number: acquisition number.
        events: UIDs that images of one exposure share: irradiation event, source images.
        references: UIDs of the images it is said to be made from, or to belong to.
    """

    uid: str
    study: str
    laterality: str | None = None
    view: str | None = None
    acquired: datetime | None = None
    created: datetime | None = None
    number: int | None = None
    events: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()

    @property
    def named(self) -> bool:
        """Whether side and view are both known."""
        return self.laterality is not None and self.view is not None


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
    """An image that got no partner, and why."""

    exposure: Exposure
    reason: str


@dataclass(frozen=True)
class _Link:
    """That a DES image may belong to an LE image; the smaller ``key``, the likelier."""

    image: Exposure
    label: Exposure
    evidence: int  # 0: one names the other, 1: both name the same event or source, 2: time and view only
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

    def allowed(self, limit: float) -> bool:
        """Whether the time between the two is short enough; a named or an unknown time does not forbid."""
        if self.evidence < 2 or self.gap == _NO_TIME:
            return True
        return self.gap <= (limit if self.named else min(limit, _UNNAMED_SECONDS))

    def ties(self, other: _Link) -> bool:
        """Whether nothing says which of the two is the likelier."""
        if (self.evidence, self.backwards, self.other_number) != (other.evidence, other.backwards, other.other_number):
            return False
        if _NO_TIME in (self.gap, other.gap):
            return self.gap == other.gap and self.named == other.named
        return abs(self.gap - other.gap) <= _TIE_SECONDS


def pair_exposures(
    images: Sequence[Exposure], labels: Sequence[Exposure], minutes: float = MINUTES
) -> tuple[list[ExposurePair], list[Unpaired]]:
    """Pair LE with DES images of the same study, side and view, one to one.

    First come images one of which names the other, then those with a common irradiation event or source image, then
    the nearest in time. Where a side or a view is missing, the other's serves. What stays ambiguous is not paired.

    Args:
        images: the LE images.
        labels: the DES images.
        minutes: longest time between the two of a pair, where only view and time connect them.

    Returns:
        The pairs, and every image without partner with the reason.
    """
    pairs: list[ExposurePair] = []
    reasons: dict[str, str] = {}
    by_study: dict[str, tuple[list[Exposure], list[Exposure]]] = defaultdict(lambda: ([], []))
    for role, group in enumerate((images, labels)):
        for exposure in group:
            by_study[exposure.study][role].append(exposure)
    for study in sorted(by_study):
        links = _links(*_with_usable_times(*by_study[study]))
        found, why = _matched([link for link in links if link.allowed(60 * minutes)])
        pairs += found
        named = [link for link in links if link.named]
        reasons |= {end.uid: _too_far(minutes) for link in named for end in (link.image, link.label)} | why
    used = {one.uid for pair in pairs for one in (pair.image, pair.label)}
    unpaired = []
    for group, missing in ((images, "recombined"), (labels, "low-energy")):
        default = f"no {missing} image of the same study, side and view"
        unpaired += [Unpaired(one, reasons.get(one.uid, default)) for one in group if one.uid not in used]
    return pairs, unpaired


def _too_far(minutes: float) -> str:
    return f"the images of this view that could be its partner belong to others, or are over {minutes:g} minutes away"


def _with_usable_times(images: Sequence[Exposure], labels: Sequence[Exposure]) -> tuple[list[Exposure], list[Exposure]]:
    """The exposures of a study, without times that are the same for different views: no machine takes two at once."""
    pairs = [(one, two) for one, two in combinations(images, 2) if _known_apart(one, two)]
    no_acquired = any(_seconds(one.acquired, two.acquired) == 0 for one, two in pairs)
    no_created = any(_seconds(one.created, two.created) == 0 for one, two in pairs)

    def cleared(one: Exposure) -> Exposure:
        acquired, created = None if no_acquired else one.acquired, None if no_created else one.created
        return replace(one, acquired=acquired, created=created)

    return [cleared(one) for one in images], [cleared(one) for one in labels]


def _known_apart(one: Exposure, two: Exposure) -> bool:
    sides, views = (one.laterality, two.laterality), (one.view, two.view)
    return any(None not in both and both[0] != both[1] for both in (sides, views))


def _seconds(one: datetime | None, two: datetime | None) -> float:
    return _NO_TIME if one is None or two is None else (two - one).total_seconds()


def _delay(one: Exposure, two: Exposure) -> float:
    """Seconds from one image to the other: like with like where possible."""
    for first, second in ((one.acquired, two.acquired), (one.created, two.created)):
        if first is not None and second is not None:
            return _seconds(first, second)
    return _seconds(one.acquired or one.created, two.acquired or two.created)


def _links(images: Sequence[Exposure], labels: Sequence[Exposure]) -> list[_Link]:
    """All that agree in what is known of side and view, the likeliest first."""
    links = []
    for image in images:
        for label in labels:
            if _known_apart(image, label):
                continue
            named = image.uid in label.references or label.uid in image.references
            shared = bool((image.events | image.references) & (label.events | label.references))
            other_number = image.number is None or image.number != label.number
            evidence, delay = 0 if named else 1 if shared else 2, _delay(image, label)
            links.append(_Link(image, label, evidence, abs(delay), delay < -_TIE_SECONDS, other_number))
    return sorted(links, key=lambda link: link.key)


def _matched(links: Sequence[_Link]) -> tuple[list[ExposurePair], dict[str, str]]:
    """Take the likeliest link again and again; and why others got none."""
    pairs: list[ExposurePair] = []
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
        clear = all(_same_exposure(_other_end(rival, link), _other_end(link, rival)) for rival in rivals)
        ends_now = {link.image.uid, link.label.uid}
        others = {_other_end(rival, link).uid for rival in rivals}
        taken |= ends_now | others
        if clear:
            pairs.append(_pair(link))
            reasons |= dict.fromkeys(others, _SAME_EXPOSURE)
        else:
            reasons |= dict.fromkeys(others | ends_now, _AMBIGUOUS)
    return pairs, reasons


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


def _same_exposure(one: Exposure, two: Exposure) -> bool:
    same_view = one.named and (one.laterality, one.view) == (two.laterality, two.view)
    return same_view and abs(_delay(one, two)) <= _SAME_SECONDS


def _pair(link: _Link) -> ExposurePair:
    image, label = link.image, link.label
    notes = []
    for field, word in (("laterality", "side"), ("view", "view")):
        own, partner = getattr(image, field), getattr(label, field)
        if own is None and partner is not None:
            notes.append(f"{word} from the recombined image")
    return ExposurePair(image, label, image.laterality or label.laterality, image.view or label.view, tuple(notes))
