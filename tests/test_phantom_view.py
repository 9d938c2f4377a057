"""What the rendered views show."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.phantom import PhantomView, acquisition, render_view
from bundle.phantom.patient import LESION_KINDS, draw_patient
from bundle.phantom.render import TissueMaps, tissue_maps

SIZE = 64


def cases_with(kind: str, count: int) -> list[tuple[int, str, str]]:
    """The first patients, sides and views whose breast has a lesion of a kind."""
    people = [draw_patient(0, 0, number) for number in range(60)]
    found = [
        (number, laterality, view)
        for number, person in enumerate(people)
        for laterality, view in person.views
        if (lesion := person.lesions["LR".index(laterality)]) is not None and lesion.kind == kind
    ]
    return found[:count]


def contrast(picture: NDArray[np.uint16], view: PhantomView) -> float:
    """Mean inside the lesion minus mean of what surrounds it within four pixels."""
    near = view.mask.copy()
    for _ in range(4):
        near[1:] |= near[:-1].copy()
        near[:-1] |= near[1:].copy()
        near[:, 1:] |= near[:, :-1].copy()
        near[:, :-1] |= near[:, 1:].copy()
    ring = near & ~view.mask & (view.image > 0)
    return float(picture[view.mask].mean() - picture[ring].mean())


def test_same_arguments_give_the_same_bytes() -> None:
    first, second = (render_view(5, 2, "MLO", "R", SIZE, "W") for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.label.tobytes() == second.label.tobytes()
    assert first.info == second.info


@pytest.mark.parametrize(
    "changed",
    [
        (6, 2, "MLO", "R", "W"),
        (5, 3, "MLO", "R", "W"),
        (5, 2, "CC", "R", "W"),
        (5, 2, "MLO", "L", "W"),
        (5, 2, "MLO", "R", "Rh"),
    ],
)
def test_any_other_argument_gives_another_picture(changed: tuple[int, int, str, str, str]) -> None:
    seed, patient, view, laterality, site = changed
    usual, other = render_view(5, 2, "MLO", "R", SIZE, "W"), render_view(seed, patient, view, laterality, SIZE, site)
    assert not np.array_equal(usual.image, other.image)


@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_every_size_shows_the_same_patient(view: str) -> None:
    coarse: TissueMaps = tissue_maps(0, 1, view, "L", 64, "W")
    fine: TissueMaps = tissue_maps(0, 1, view, "L", 256, "W")
    for name in ("thickness", "gland", "iodine"):
        small = getattr(fine, name).reshape(64, 4, 64, 4).mean((1, 3))
        assert np.corrcoef(small.ravel(), getattr(coarse, name).ravel())[0, 1] > 0.97, name
    assert (coarse.chord > 0).mean() == pytest.approx((fine.chord > 0).mean(), rel=0.25, abs=0.001)
    assert coarse.info == fine.info


@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_chest_wall_is_left_in_a_left_breast_and_right_in_a_right_one(view: str) -> None:
    for number in range(4):
        left, right = (render_view(0, number, view, side, SIZE, "W").image > 0 for side in "LR")
        assert left[:, 0].mean() > 0.4
        assert not left[:, -1].any()
        assert right[:, -1].mean() > 0.4
        assert not right[:, 0].any()


def test_mask_is_exactly_where_the_beam_crosses_the_lesion() -> None:
    for (number, side, view), size in product(cases_with("malignant", 3), (64, 96)):
        rendered, truth = render_view(0, number, view, side, size, "W"), tissue_maps(0, number, view, side, size, "W")
        chord = truth.chord if side == "L" else truth.chord[:, ::-1]
        np.testing.assert_array_equal(rendered.mask, chord > 0)
        assert rendered.mask.any()
        assert (rendered.image[rendered.mask] > 0).all()


def test_enhancing_lesions_shine_and_non_enhancing_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquisition, "MOTION_MM", 0.0)
    mean = {}
    for kind in LESION_KINDS:
        views = [render_view(0, number, view, side, 96, "W") for number, side, view in cases_with(kind, 14)]
        mean[kind] = float(np.mean([contrast(view.label, view) for view in views]))
        assert all(view.info["lesion"] == kind for view in views)
        if kind == "benign_non_enhancing":
            assert np.mean([contrast(view.image, view) for view in views]) > 100  # 4095 is the whole window
    assert abs(mean["benign_non_enhancing"]) < 4  # a tenth of a mg/cm2
    assert mean["malignant"] > 20
    assert mean["benign"] > 8
    assert mean["non_mass"] > 8


def test_breast_without_lesion_has_an_empty_mask() -> None:
    number, side = next(
        (number, side) for number in range(60) for side in range(2) if draw_patient(0, 0, number).lesions[side] is None
    )
    view = render_view(0, number, "CC", "LR"[side], SIZE, "W")
    assert not view.mask.any()
    assert view.info["lesion"] == "none"


def test_views_of_a_patient_share_density_and_lesion() -> None:
    for number in range(6):
        views = [render_view(0, number, view, "L", SIZE, "W") for view in ("CC", "MLO")]
        assert views[0].info == views[1].info


def test_edge_of_the_des_is_a_bright_band_inside_a_dark_one() -> None:
    view = render_view(0, 0, "CC", "L", 128, "W")
    row = int(np.argmax((view.image > 0).sum(1)))
    band = view.label[row - 6 : row + 7].astype(float)
    width = int((band[0] > 0).sum())
    profile = band[:, : width - 6].mean(0)
    assert profile[-12:].max() - profile[-3:].mean() > 10


def test_population_has_the_stated_shares() -> None:
    people = [draw_patient(0, 0, number) for number in range(600)]
    lesions = [lesion for person in people for lesion in person.lesions]
    found = [lesion for lesion in lesions if lesion is not None]
    assert len(found) / len(lesions) == pytest.approx(0.65, abs=0.05)
    assert np.mean([lesion.kind == "malignant" for lesion in found]) == pytest.approx(0.5, abs=0.06)
    assert np.median([lesion.iodine for lesion in found if lesion.kind == "malignant"]) == pytest.approx(1.0, abs=0.1)
    assert np.mean([lesion.rim for lesion in found if lesion.kind == "malignant"]) == pytest.approx(0.25, abs=0.07)
    np.testing.assert_allclose(
        np.bincount([person.density for person in people]) / 600, (0.12, 0.40, 0.40, 0.08), atol=0.06
    )
    assert 5.2 < np.mean([person.thickness_cm for person in people]) < 5.6
    assert {len(person.views) for person in people} == {1, 2, 4}


@pytest.mark.parametrize("number", range(4))
def test_gland_share_is_that_of_the_density_class(number: int) -> None:
    truth = tissue_maps(3, number, "CC", "L", 128, "W")
    inside = truth.thickness > 0
    share = (truth.gland[inside] / truth.thickness[inside]).mean()
    target = {"a": 0.06, "b": 0.13, "c": 0.22, "d": 0.36}[str(truth.info["density"])]
    assert target * 0.8 < share < target + 0.08  # strands, muscle and the lesion come on top


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, "ML", "L", 64, "W"), "Unknown view 'ML'"),
        ((0, 0, "CC", "left", 64, "W"), "Unknown laterality 'left'"),
        ((0, 0, "CC", "L", 16, "W"), "size 16 is too small: expected at least 32"),
        ((0, 0, "CC", "L", 64, "GE"), "Unknown phantom site 'GE'"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[int, int, str, str, int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_view(*arguments)
