"""What the header of an LE or a DES image says about its exposure, and how two of them compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import combinations

__all__ = [
    "NO_DAY",
    "NO_TIME",
    "Exposure",
    "delay",
    "known_apart",
    "same_exposure",
    "telling_numbers",
    "with_usable_times",
]

_SAME_SECONDS = 1.0
"""Images of one view that were taken within this time are versions of one exposure."""
NO_TIME = float("inf")
Place = tuple[str | None, str | None, int | None]
NO_DAY = datetime(9999, 12, 31)  # noqa: DTZ001 - DICOM times have no zone
"""The day of times whose date was removed. They are compared with those of the same study only."""


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
        series: series number.
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
    series: int | None = None
    events: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()

    @property
    def named(self) -> bool:
        """Whether side and view are both known."""
        return self.laterality is not None and self.view is not None

    @property
    def place(self) -> Place:
        """Side, view and acquisition number."""
        return self.laterality, self.view, self.number


def with_usable_times(images: Sequence[Exposure], labels: Sequence[Exposure]) -> tuple[list[Exposure], list[Exposure]]:
    """The exposures of a study, without times that are the same for different views: no machine takes two at once."""
    pairs = [(one, two) for one, two in combinations(images, 2) if known_apart(one, two)]
    no_acquired = any(_seconds(one.acquired, two.acquired) == 0 for one, two in pairs)
    no_created = any(_seconds(one.created, two.created) == 0 for one, two in pairs)

    days = {time.date() for one in (*images, *labels) for time in (one.acquired, one.created) if time is not None}
    day = NO_DAY.date() if NO_DAY.date() in days else None

    def cleared(one: Exposure) -> Exposure:
        acquired, created = None if no_acquired else one.acquired, None if no_created else one.created
        return replace(one, acquired=_on(day, acquired), created=_on(day, created))

    return [cleared(one) for one in images], [cleared(one) for one in labels]


def _on(day: date | None, time: datetime | None) -> datetime | None:
    """The time, on this day if there is one: where one image lost its date, the dates of the others tell nothing."""
    return time if day is None or time is None else datetime.combine(day, time.time())


def known_apart(one: Exposure, two: Exposure) -> bool:
    """Whether side or view are known to differ."""
    sides, views = (one.laterality, two.laterality), (one.view, two.view)
    return any(None not in both and both[0] != both[1] for both in (sides, views))


def _seconds(one: datetime | None, two: datetime | None) -> float:
    return NO_TIME if one is None or two is None else (two - one).total_seconds()


def delay(one: Exposure, two: Exposure) -> float:
    """Seconds from one image to the other: like with like where possible."""
    for first, second in ((one.acquired, two.acquired), (one.created, two.created)):
        if first is not None and second is not None:
            return _seconds(first, second)
    return _seconds(one.acquired or one.created, two.acquired or two.created)


def same_exposure(one: Exposure, two: Exposure) -> bool:
    """Whether two images are versions of one, by acquisition time.

    The content time of several DES images may be that of computing all of them.
    """
    same_view = one.named and (one.laterality, one.view) == (two.laterality, two.view)
    return same_view and abs(_seconds(one.acquired, two.acquired)) <= _SAME_SECONDS


def telling_numbers(images: Sequence[Exposure], labels: Sequence[Exposure]) -> set[Place]:
    """Side, view and acquisition number of one LE and one DES image each; none of views that count the two apart."""
    telling: set[Place] = set()
    counts = [Counter(one.place for one in group) for group in (images, labels)]
    for view in {place[:2] for place in counts[0]}:
        numbers = [{place[2] for place in count if place[:2] == view and place[2] is not None} for count in counts]
        if numbers[0] <= numbers[1] or numbers[1] <= numbers[0]:
            both = {(*view, number) for number in numbers[0] & numbers[1]}
            telling |= {place for place in both if counts[0][place] == counts[1][place] == 1}
    return telling
