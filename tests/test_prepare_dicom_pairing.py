from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from scripts.prepare.dicom_exposure import NO_DAY, Exposure
from scripts.prepare.dicom_pairing import pair_exposures

AMBIGUOUS = "several images could be its partner, and neither times nor references tell which"
START = datetime(2020, 2, 29, 23, 58)  # noqa: DTZ001 - DICOM times have no zone


def exposure(uid: str, seconds: float | None = 0.0, **more: Any) -> Exposure:
    """An L CC image; ``LE`` and ``DES`` in its name are for the reader only."""
    acquired = None if seconds is None else START + timedelta(seconds=seconds)
    return replace(Exposure(uid, "study", "L", "CC", acquired), **more)


def paired(images: Sequence[Exposure], labels: Sequence[Exposure], minutes: float = 10.0) -> set[str]:
    """Pairs as ``LE1-DES1``; the order of the images must not matter."""
    found = set()
    for order in permutations(images):
        pairs, unpaired = pair_exposures(order, list(reversed(labels)), minutes)
        found.add(frozenset(f"{pair.image.uid}-{pair.label.uid}" for pair in pairs))
        ends = [one.uid for pair in pairs for one in (pair.image, pair.label)] + [one.exposure.uid for one in unpaired]
        assert sorted(ends) == sorted(one.uid for one in (*images, *labels))
    assert len(found) == 1
    return set(found.pop())


def reasons(images: Sequence[Exposure], labels: Sequence[Exposure]) -> dict[str, str]:
    return {one.exposure.uid: one.reason for one in pair_exposures(images, labels)[1]}


def test_views_of_one_study_pair_by_side_and_view() -> None:
    names = [(side, view) for side in "LR" for view in ("CC", "MLO")]
    images = [exposure(f"LE{n}", None, laterality=side, view=view) for n, (side, view) in enumerate(names)]
    labels = [exposure(f"DES{n}", None, laterality=side, view=view) for n, (side, view) in enumerate(names)]
    assert paired(images, labels) == {f"LE{n}-DES{n}" for n in range(4)}


def test_studies_are_kept_apart() -> None:
    assert paired([exposure("LE1")], [exposure("DES1", study="other")]) == set()
    assert reasons([exposure("LE1")], []) == {"LE1": "no recombined image of the same study, side and view"}
    assert reasons([], [exposure("DES1")]) == {"DES1": "no low-energy image of the same study, side and view"}


def test_repeated_views_pair_with_the_nearest_in_time_across_midnight() -> None:
    images = [exposure("LE1", 0), exposure("LE2", 150)]
    labels = [exposure("DES1", 2), exposure("DES2", 152)]
    assert paired(images, labels) == {"LE1-DES1", "LE2-DES2"}


def test_a_recombined_image_that_lost_its_partner_takes_none_from_others() -> None:
    assert paired([exposure("LE1", 0)], [exposure("DES1", 1), exposure("DES2", 240)]) == {"LE1-DES1"}
    assert "belong to others" in reasons([exposure("LE1", 0)], [exposure("DES1", 1), exposure("DES2", 240)])["DES2"]
    assert paired([exposure("LE2", 300), exposure("LE1", 0)], [exposure("DES2", 300)]) == {"LE2-DES2"}


def test_images_too_far_apart_in_time_do_not_pair() -> None:
    assert paired([exposure("LE1", 0)], [exposure("DES1", 599)]) == {"LE1-DES1"}
    assert paired([exposure("LE1", 0)], [exposure("DES1", 601)]) == set()
    assert paired([exposure("LE1", 0)], [exposure("DES1", 601)], minutes=11) == {"LE1-DES1"}
    assert "over 10 minutes" in reasons([exposure("LE1", 0)], [exposure("DES1", 601)])["LE1"]


def test_a_reference_takes_precedence_over_time() -> None:
    images = [exposure("LE1", 0), exposure("LE2", 60)]
    labels = [exposure("DES1", 61, references=frozenset({"LE1"})), exposure("DES2", 2)]
    assert paired(images, labels) == {"LE1-DES1", "LE2-DES2"}
    assert paired([exposure("LE1", 0)], [exposure("DES1", 9999, references=frozenset({"LE1"}))]) == {"LE1-DES1"}


def test_a_reference_to_another_view_is_not_followed() -> None:
    label = exposure("DES1", 0, references=frozenset({"LE1", "LE2"}))
    assert paired([exposure("LE1", 0, view="MLO"), exposure("LE2", 60)], [label]) == {"LE2-DES1"}


def test_a_shared_event_or_source_takes_precedence_over_time() -> None:
    raw = frozenset({"raw"})
    images = [exposure("LE1", 0, events=raw), exposure("LE2", 60)]
    assert paired(images, [exposure("DES1", 60, references=raw), exposure("DES2", 1)]) == {"LE1-DES1", "LE2-DES2"}


def test_like_times_are_compared_with_like() -> None:
    late = START + timedelta(hours=3)
    images = [exposure("LE1", 0, created=START), exposure("LE2", 90, created=START + timedelta(seconds=90))]
    labels = [exposure("DES1", 1, created=late), exposure("DES2", 91, created=late)]
    assert paired(images, labels) == {"LE1-DES1", "LE2-DES2"}
    lagging = [exposure("DES1", None, created=START + timedelta(seconds=45))]
    assert paired(images, lagging) == {"LE1-DES1"}  # computed from an image that was there already


def test_times_that_an_anonymiser_made_equal_are_not_used() -> None:
    other = exposure("LE3", 0, view="MLO")
    images, labels = [exposure("LE1", 0), exposure("LE2", 0)], [exposure("DES1", 0), exposure("DES2", 0)]
    assert paired([*images, other], [*labels, exposure("DES3", 0, view="MLO")]) == {"LE3-DES3"}
    assert "several images could be its partner" in reasons([*images, other], labels)["LE1"]


def test_acquisition_numbers_decide_where_times_do_not() -> None:
    images = [exposure("LE1", None, number=1), exposure("LE2", None, number=3)]
    assert paired(images, [exposure("DES1", None, number=1), exposure("DES2", None, number=3)]) == {
        "LE1-DES1",
        "LE2-DES2",
    }
    assert paired(images, [exposure("DES1", None), exposure("DES2", None)]) == set()


TWICE = [exposure("LE1", 0), exposure("LE2", 60)]
LATE = [exposure("DES1", 80), exposure("DES2", 140)]  # stamped when they were computed


def test_the_nearest_time_is_not_believed_against_the_order_of_the_exposures() -> None:
    assert paired(TWICE, LATE) == set()
    assert set(reasons(TWICE, LATE).values()) == {AMBIGUOUS}
    images, labels = ([replace(one, acquired=None, created=one.acquired) for one in group] for group in (TWICE, LATE))
    assert paired(images, labels) == set()
    assert paired(TWICE, labels) == set()
    far = [exposure("LE1", 0), exposure("LE2", 500)], [exposure("DES1", 520), exposure("DES2", 1020)]
    assert paired(*far) == set()  # LE1 and DES2 are too far apart to be a pair
    assert paired(TWICE, [exposure("DES1", 12), exposure("DES2", 72)]) == {"LE1-DES1", "LE2-DES2"}


def test_the_acquisition_number_goes_before_time() -> None:
    def numbered(group: Sequence[Exposure], *numbers: int) -> list[Exposure]:
        return [replace(one, number=number) for one, number in zip(group, numbers, strict=True)]

    assert paired(numbered(TWICE, 1, 2), numbered(LATE, 1, 2)) == {"LE1-DES1", "LE2-DES2"}
    assert paired(numbered(TWICE, 1, 1), numbered(LATE, 1, 1)) == set()
    assert paired(numbered(TWICE, 1, 2), numbered(LATE, 2, 3)) == set()  # counted apart
    far = replace(LATE[1], acquired=START + timedelta(hours=1), number=1)
    assert paired(numbered(TWICE[:1], 1), [far]) == set()


def test_recombined_images_computed_at_one_time_are_no_versions_of_one_exposure() -> None:
    images = [exposure("LE1", None, created=START), exposure("LE2", None, created=START + timedelta(seconds=20))]
    labels = [exposure(f"DES{n}", None, created=START + timedelta(seconds=60 + n)) for n in range(2)]
    assert paired(images, labels) == set()
    assert paired(TWICE, [exposure("DES1", 80), exposure("DES2", 80.5)]) == set()


def test_without_dates_the_times_of_a_study_are_compared_on_one_day() -> None:
    images = [exposure("LE1", 0), exposure("LE2", 60)]
    labels = [
        replace(one, acquired=datetime.combine(NO_DAY.date(), (START + timedelta(seconds=seconds)).time()))
        for one, seconds in ((exposure("DES1"), 1), (exposure("DES2"), 61))
    ]
    assert paired(images, labels) == {"LE1-DES1", "LE2-DES2"}


def test_what_a_longer_limit_could_pair_says_so() -> None:
    late = pair_exposures([exposure("LE1", 0)], [exposure("DES1", 601), exposure("DES3", 0, view="MLO")])[1]
    assert {one.exposure.uid: one.too_far for one in late} == {"LE1": True, "DES1": True, "DES3": False}


def test_of_two_versions_of_an_exposure_one_is_taken() -> None:
    images = [exposure("LE1", 0), exposure("LE1 again", 0.5)]
    assert paired(images, [exposure("DES1", 0)]) == {"LE1-DES1"}
    assert reasons(images, [exposure("DES1", 0)]) == {"LE1 again": "another version of this exposure was taken"}


def test_of_versions_the_first_that_was_made_is_taken_and_noted() -> None:
    second = START + timedelta(seconds=30)
    images = [exposure("LE a", 0, created=second), exposure("LE b", 0, created=START)]
    labels = [exposure("DES a", 0, created=second, series=7), exposure("DES b", 0, created=second, series=5)]
    assert paired(images, labels) == {"LE b-DES b"}
    notes = ("of 2 versions of the low-energy image the first", "of 2 versions of the recombined image the first")
    assert pair_exposures(images, labels)[0][0].notes == notes


def test_a_missing_view_or_side_is_taken_from_the_partner() -> None:
    images = [exposure("LE1", 0, view=None), exposure("LE2", 60, view="MLO")]
    labels = [exposure("DES1", 0), exposure("DES2", 60, laterality=None, view="MLO")]
    pairs, unpaired = pair_exposures(images, labels)
    assert [(one.image.uid, one.label.uid, one.laterality, one.view, one.notes) for one in pairs] == [
        ("LE1", "DES1", "L", "CC", ("view from the recombined image",)),
        ("LE2", "DES2", "L", "MLO", ()),
    ]
    assert unpaired == []


def test_nothing_but_time_pairs_images_without_view() -> None:
    blank = {"laterality": None, "view": None}
    images = [exposure(f"LE{n}", 60 * n, **blank) for n in range(3)]
    labels = [exposure(f"DES{n}", 60 * n + 2, **blank) for n in range(3)]
    assert paired(images, labels) == {f"LE{n}-DES{n}" for n in range(3)}
    pairs, _ = pair_exposures(images[:1], labels[:1])
    assert (pairs[0].laterality, pairs[0].view) == (None, None)


@pytest.mark.parametrize(("seconds", "expected"), [(20, {"LE1-DES1"}), (40, set()), (None, {"LE1-DES1"})])
def test_a_missing_view_needs_a_shorter_time(seconds: float | None, expected: set[str]) -> None:
    assert paired([exposure("LE1", 0, view=None)], [exposure("DES1", seconds)]) == expected


def test_what_is_ambiguous_is_not_paired() -> None:
    labels = [exposure("DES1", None), exposure("DES2", None, view="MLO")]
    assert paired([exposure("LE1", None, view=None)], labels) == set()
    assert set(reasons([exposure("LE1", None, view=None)], labels)) == {"LE1", "DES1", "DES2"}
    assert paired([exposure("LE1", 0), exposure("LE2", 60)], [exposure("DES1", 30)]) == {"LE1-DES1"}
