from __future__ import annotations

import math

from bundle.strata import case_strata, size_class


def test_strata_come_from_the_info_of_a_case_then_from_the_case() -> None:
    case = {"image": "/LE/1.png", "label": "/DES/1.png", "view": "CC", "info": {"label": "benign", "density": 3}}
    assert case_strata([case]) == {
        "/LE/1.png": {"view": "CC", "density": "3", "label": "benign", "lesion_kind": ""},
    }


def test_the_path_of_the_real_image_is_no_diagnosis() -> None:
    bare = {"image": "/LE/1.png", "label": "/DES/1.png"}
    assert set(case_strata([bare])["/LE/1.png"].values()) == {""}


def test_own_strata_are_named_by_their_key() -> None:
    case = {"image": "/LE/1.png", "info": {"vendor": "X"}}
    assert case_strata([case], {"unit": "vendor"}) == {"/LE/1.png": {"unit": "X"}}


def test_sizes_are_parted_at_10_and_20_mm() -> None:
    assert [size_class(mm) for mm in (9.9, 10.0, 19.9, 20.0)] == [
        "below 10 mm",
        "10 to 20 mm",
        "10 to 20 mm",
        "20 mm and more",
    ]
    assert size_class(math.nan) == ""
