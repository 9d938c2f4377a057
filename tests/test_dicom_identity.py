from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.sequence import Sequence

from bundle.dicom import laterality_of, read_dicom, view_modifiers, view_of
from bundle.dicom.chest_wall import chest_wall_edge
from bundle.dicom.identity import orientation_of
from bundle.image_file_error import ImageFileError
from tests.archives.dicom_files import write_dicom
from tests.archives.phantom import phantom_pairs

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # carelessly written on purpose


def header(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, meaning: str = "", **more: Any) -> Sequence:
    return Sequence([header(CodeValue=value, CodeMeaning=meaning, CodingSchemeDesignator="SCT", **more)])


FRAME = header(FrameAnatomySequence=Sequence([header(FrameLaterality="R")]))

LATERALITIES: list[tuple[dict[str, Any], str | None]] = [
    ({"ImageLaterality": "L"}, "L"),
    ({"ImageLaterality": "R", "Laterality": "L"}, "R"),
    ({"ImageLaterality": "", "Laterality": "L"}, "L"),
    ({"Laterality": "right "}, "R"),
    ({"ImageLaterality": "U", "Laterality": "R"}, "R"),
    ({"ImageLaterality": "B", "Laterality": "R"}, None),
    ({"SharedFunctionalGroupsSequence": Sequence([FRAME])}, "R"),
    ({"AnatomicRegionSequence": code("80248007")}, "L"),
    ({"AnatomicRegionSequence": code("T-04000", AnatomicRegionModifierSequence=code("G-A100"))}, "R"),
    ({"PatientOrientation": ["A", "R"]}, "L"),
    ({"PatientOrientation": ["P", "L"]}, "R"),
    ({"PatientOrientation": ["A", "FR"]}, "L"),
    ({"PatientOrientation": ["P", "FR"]}, "L"),  # mirrored
    ({"PatientOrientation": ["P", "HR"]}, "R"),  # upside down
    ({"PatientOrientation": ["A", "L"]}, None),  # a left breast upside down, or a right one mirrored
    ({"PatientOrientation": ["P", "F"]}, "R"),
    ({"PatientOrientation": "CC"}, None),
    ({"PatientOrientation": ["MLO", "L"]}, None),
    ({"SeriesDescription": "R MLO"}, "R"),
    ({"SeriesDescription": "Left CC, SenoBright"}, "L"),
    ({"ProtocolName": "LMLO"}, "L"),
    ({"SeriesDescription": "full mammogram images"}, None),
    ({"SeriesDescription": "Trial CC"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("attributes", "expected"), LATERALITIES, ids=lambda value: str(value)[:70])
def test_laterality_comes_from_the_first_attribute_that_says_it(
    attributes: dict[str, Any], expected: str | None
) -> None:
    assert laterality_of(header(**attributes)) == expected


VIEWS: list[tuple[dict[str, Any], str | None]] = [
    ({"ViewPosition": "CC"}, "CC"),
    ({"ViewPosition": "mlo "}, "MLO"),
    ({"ViewPosition": "RMLO"}, "MLO"),
    ({"ViewPosition": "LML"}, "ML"),
    ({"ViewPosition": "LM"}, "LM"),
    ({"ViewPosition": "LMO"}, "LMO"),
    ({"ViewPosition": "Cranio-caudal"}, "CC"),
    ({"ViewPosition": "AT"}, "AT"),
    ({"ViewCodeSequence": code("399162004")}, "CC"),
    ({"ViewCodeSequence": code("R-10226")}, "MLO"),
    ({"ViewCodeSequence": code("399260004")}, "ML"),
    ({"ViewCodeSequence": code("Y-X1771")}, "XCCL"),
    ({"ViewCodeSequence": code("X99", "medio-lateral oblique")}, "MLO"),
    ({"ViewCodeSequence": code("X99", "from above")}, None),
    ({"ViewPosition": "", "ViewCodeSequence": code("399368009")}, "MLO"),
    ({"PatientOrientation": "CC"}, "CC"),
    ({"PatientOrientation": ["A", "R"]}, None),
    ({"SeriesDescription": "L MLO Low Energy"}, "MLO"),
    ({}, None),
]


@pytest.mark.parametrize(("attributes", "expected"), VIEWS, ids=lambda value: str(value)[:70])
def test_the_view_comes_from_its_position_its_code_or_where_else_it_was_written(
    attributes: dict[str, Any], expected: str | None
) -> None:
    assert view_of(header(**attributes)) == expected


def test_modifiers_of_the_view_are_named_wherever_they_are_nested() -> None:
    view = code("399162004", ViewModifierCodeSequence=code("399163009"))
    assert view_modifiers(header(ViewCodeSequence=view)) == ("magnification",)
    both = Sequence([*code("R-102D7"), *code("X1", "Odd one")])
    assert view_modifiers(header(ViewModifierCodeSequence=both)) == ("odd one", "spot compression")
    assert view_modifiers(header()) == ()


ORIENTATIONS: list[tuple[list[str] | str, str, tuple[str | None, bool | None]]] = [
    (["A", "R"], "L", ("left", False)),
    (["P", "L"], "R", ("right", False)),
    (["A", "FR"], "L", ("left", False)),
    (["P", "HL"], "R", ("right", True)),
    (["A", "L"], "L", ("left", True)),
    (["P", "R"], "L", ("right", False)),
    (["A\\F"], "L", (None, None)),
    (["L", "F"], "L", (None, False)),
    ("CC", "L", (None, None)),
    (["", ""], "L", (None, None)),
]


@pytest.mark.parametrize(("orientation", "laterality", "expected"), ORIENTATIONS, ids=str)
def test_patient_orientation_tells_the_chest_wall_and_what_is_up(
    orientation: list[str] | str, laterality: str, expected: tuple[str | None, bool | None]
) -> None:
    assert orientation_of(header(PatientOrientation=orientation, ImageLaterality=laterality)) == expected


def views() -> list[tuple[str, str, NDArray[np.uint16]]]:
    return [(pair.laterality, pair.view, pair.image) for pair in phantom_pairs(2, 96)]


@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_an_image_that_lies_otherwise_is_put_right(mirrored: bool, upside_down: bool, tmp_path: Path) -> None:
    for laterality, view, upright in views():
        stored = upright[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
        row = "A" if (laterality == "L") != mirrored else "P"
        inner, outer = ("R", "L") if laterality == "L" else ("L", "R")
        column = (outer if upside_down else inner) if view == "CC" else ("HL" if upside_down else "FR")
        options: dict[str, Any] = {"laterality": laterality, "view": view, "PatientOrientation": [row, column]}
        write_dicom(tmp_path / "a.dcm", stored, **options)
        image = read_dicom(tmp_path / "a.dcm")
        assert (image.laterality, image.view, image.notes) == (laterality, view, ())
        assert (image.mirrored, image.upside_down) == (mirrored, upside_down)
        righted = image.values[:: -1 if image.upside_down else 1, :: -1 if image.mirrored else 1]
        np.testing.assert_array_equal(righted, upright)


@pytest.mark.parametrize("orientation", [None, "CC"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_without_orientation_the_chest_wall_is_seen(mirrored: bool, orientation: str | None, tmp_path: Path) -> None:
    for laterality, view, upright in views():
        stored = upright[:, ::-1] if mirrored else upright
        write_dicom(tmp_path / "a.dcm", stored, laterality=laterality, view=view, PatientOrientation=orientation)
        image = read_dicom(tmp_path / "a.dcm")
        assert (image.laterality, image.mirrored, image.upside_down) == (laterality, mirrored, False)
        assert any("no usable PatientOrientation: the chest wall is seen at" in note for note in image.notes)


def test_without_laterality_it_follows_from_the_chest_wall(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"ImageLaterality": None, "PatientOrientation": None, "SeriesDescription": None}
    for laterality, view, upright in views():
        write_dicom(tmp_path / "a.dcm", upright, laterality=laterality, view=view, **nothing)
        image = read_dicom(tmp_path / "a.dcm")
        assert laterality_of(image.header) is None
        assert (image.laterality, image.mirrored) == (laterality, False)
        assert any(note.startswith(f"no laterality: {laterality} because") for note in image.notes)


def test_pixels_that_plainly_contradict_the_orientation_win_with_a_note(tmp_path: Path) -> None:
    laterality, view, upright = views()[0]
    write_dicom(tmp_path / "a.dcm", upright[:, ::-1], laterality=laterality, view=view)
    image = read_dicom(tmp_path / "a.dcm")
    assert image.mirrored
    assert any(
        "PatientOrientation has the chest wall at the left edge, the pixels at the right" in n for n in image.notes
    )


def disturbed(upright: NDArray[np.uint16], kind: str, laterality: str) -> NDArray[np.uint16]:
    """The picture with something bright on the side of the air."""
    away = upright.copy() if laterality == "L" else upright[:, ::-1].copy()
    height, width = away.shape
    if kind == "label":
        away[2 : height // 6, width - width // 5 : width - 3] = 4095
    elif kind == "strip":
        away[:, width - 4 :] = 4095
    elif kind == "frame":
        away[:3], away[-3:], away[:, :3], away[:, -3:] = 4095, 4095, 4095, 4095
    elif kind == "padding":
        away = np.pad(away, ((0, 0), (60, 20)))
    elif kind == "noise":
        away = away + np.random.default_rng(0).integers(0, 60, away.shape).astype(np.uint16)
    return away if laterality == "L" else away[:, ::-1]


@pytest.mark.parametrize("kind", ["label", "strip", "frame", "padding", "noise"])
def test_labels_strips_frames_and_noise_do_not_mislead(kind: str) -> None:
    for pair in phantom_pairs(3, 128):
        expected = "left" if pair.laterality == "L" else "right"
        for picture in (pair.image, pair.label):
            assert chest_wall_edge(disturbed(picture, kind, pair.laterality)).side == expected


def test_a_picture_without_a_breast_leaves_doubt() -> None:
    for picture in (
        np.zeros((50, 40)),
        np.full((50, 40), 7),
        np.random.default_rng(0).random((90, 70)),
        np.ones((1, 1)),
    ):
        assert not chest_wall_edge(picture).certain


def test_real_film_is_read_upright_and_the_right_way_round(shared_data: Path) -> None:
    for name, laterality in (("1-280.dcm", "L"), ("1-282.dcm", "R")):
        image = read_dicom(shared_data / "cbis-ddsm-dicom" / name)
        assert (image.laterality, image.view) == (laterality, "CC")
        assert (image.mirrored, image.upside_down) == (False, False)
        assert (image.window, image.pixel_mm, image.values.dtype) == (None, None, np.dtype(np.uint16))
        half = image.values.shape[1] // 2
        towards_the_wall, away = image.values[:, :half].mean(), image.values[:, half:].mean()
        assert (towards_the_wall > away) == (laterality == "L")
        edge = "left" if laterality == "L" else "right"
        assert image.notes == (f"no usable PatientOrientation: the chest wall is seen at the {edge} edge",)


def test_the_chest_wall_is_seen_in_real_pairs(shared_data: Path) -> None:
    files = [file for kind in ("LE", "DES") for file in sorted((shared_data / "cdd-cesm-512" / kind).glob("P2?_*.jpg"))]
    wrong = []
    for file in files:
        with Image.open(file) as picture:
            edge = chest_wall_edge(np.asarray(picture.convert("L")))
        if edge.side != ("left" if "_L_" in file.name else "right"):
            wrong.append(file)
    assert (len(files) > 10, wrong) == (True, [])


def test_an_image_of_both_breasts_is_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16), laterality="B")
    with pytest.raises(ImageFileError, match="shows both breasts"):
        read_dicom(tmp_path / "a.dcm")


def test_columns_are_not_believed_where_the_pixels_overrule_the_rows(tmp_path: Path) -> None:
    """The header of a right breast, in an upright image of a left one, would turn it upside down."""
    upright = phantom_pairs(1, 96)[0].image
    for orientation, upside_down in ((["P", "L"], False), (["P", "HL"], True)):
        write_dicom(tmp_path / "a.dcm", upright, laterality="L", PatientOrientation=orientation)
        image = read_dicom(tmp_path / "a.dcm")
        assert (image.mirrored, image.upside_down) == (False, upside_down), image.notes
        assert ("and its columns are not believed" in image.notes[0]) != upside_down


PARTS: list[dict[str, Any]] = [
    {"ViewModifierCodeSequence": code("399055006")},
    {"EstimatedRadiographicMagnificationFactor": 1.8},
    {"PartialView": "YES"},
]


@pytest.mark.parametrize("part", PARTS, ids=lambda value: next(iter(value)))
def test_the_outline_of_a_part_of_the_breast_does_not_overrule_the_header(part: dict[str, Any], tmp_path: Path) -> None:
    laterality, view, upright = views()[0]
    write_dicom(tmp_path / "a.dcm", upright[:, ::-1], laterality=laterality, view=view, **part)
    image = read_dicom(tmp_path / "a.dcm")
    assert (image.mirrored, image.notes) == (False, ())
