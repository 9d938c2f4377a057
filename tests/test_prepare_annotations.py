from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from bundle.reader import ImageFileError
from scripts.prepare.annotations import ImageName, case_info, read_table
from scripts.prepare.regions import Regions, Shape, read_regions
from tests.archives.cdd_cesm import HEAD, table_row, write_table
from tests.archives.phantom import phantom_pairs

SIZE = (120, 160)
POLYGON = {"name": "polygon", "all_points_x": [20, 90, 130, 60], "all_points_y": [30, 20, 80, 100]}


def mask_of(folder: Path, *shapes: Any, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    file = write_regions(folder, *(("P1_L_DM_CC.jpg", shape) for shape in shapes))
    return Regions("P1_L_DM_CC", file, read_regions(file).shapes["P1_L_DM_CC"]).read(size)


def write_regions(folder: Path, *regions: tuple[str, Any]) -> Path:
    counts = Counter(name for name, _ in regions)
    rows = [[name, 1, "{}", counts[name], 0, json.dumps(shape), "{}"] for name, shape in regions]
    return write_rows(folder, *rows)


def write_rows(folder: Path, *rows: list[Any]) -> Path:
    with (folder / "regions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *rows])
    return folder / "regions.csv"


def inside(shape: dict[str, Any], size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """The pixels whose middle lies in a shape, by its equation or by the winding of its outline."""
    y, x = np.mgrid[: size[0], : size[1]]
    if "all_points_x" in shape:
        corners = np.stack([shape["all_points_x"], shape["all_points_y"]], axis=1)
        closed = Outline(np.concatenate([corners, corners[:1]]), closed=True)
        return closed.contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(size)
    cosine, sine = np.cos(shape.get("theta", 0)), np.sin(shape.get("theta", 0))
    along = (x - shape["cx"]) * cosine + (y - shape["cy"]) * sine
    across = (y - shape["cy"]) * cosine - (x - shape["cx"]) * sine
    radii = shape.get("rx", shape.get("r", 25)), shape.get("ry", shape.get("r", 25))
    return np.asarray((along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1)


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize(
    "shape",
    [
        POLYGON,
        {**POLYGON, "name": "polyline"},
        {"name": "ellipse", "cx": 70, "cy": 60, "rx": 40, "ry": 25},
        {"name": "ellipse", "cx": 70, "cy": 60, "rx": 40, "ry": 25, "theta": 0.6},
        {"name": "circle", "cx": 70, "cy": 60, "r": 31},
        {"name": "point", "cx": 70, "cy": 60},
    ],
    ids=["polygon", "polyline", "ellipse", "turned ellipse", "circle", "point"],
)
def test_every_shape_covers_the_pixels_that_lie_in_it(shape: dict[str, Any], tmp_path: Path) -> None:
    mask, expected = mask_of(tmp_path, shape), inside(shape)
    assert (str(mask.dtype), mask.shape) == ("bool", SIZE)
    assert overlap(mask, expected) > 0.95
    assert (mask | ~expected).all()  # the outline belongs to the region


def test_a_point_is_a_disc_of_radius_25(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, {"name": "point", "cx": 70, "cy": 60})
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (35, 85, 45, 95)


@pytest.mark.parametrize(
    "shape",
    [
        {"name": "polygon", "all_points_x": [-30, 60, 80, -10], "all_points_y": [-14, 20, 90, 70]},
        {"name": "ellipse", "cx": 5, "cy": 115, "rx": 40, "ry": 30},
        {"name": "circle", "cx": 158, "cy": 2, "r": 30},
    ],
    ids=lambda shape: shape["name"],
)
def test_what_lies_outside_the_image_is_cut_off(shape: dict[str, Any], tmp_path: Path) -> None:
    moved = {
        key: [x + 50 for x in value] if key.startswith("all_points") else value + 50
        for key, value in shape.items()
        if key not in ("name", "r", "rx", "ry")
    }
    whole = mask_of(tmp_path, {**shape, **moved}, size=(SIZE[0] + 100, SIZE[1] + 100))
    np.testing.assert_array_equal(mask_of(tmp_path, shape), whole[50:-50, 50:-50])


def test_the_mask_is_the_union_of_the_regions_of_its_image_only(tmp_path: Path) -> None:
    circles = [{"name": "circle", "cx": x, "cy": 60, "r": 20} for x in (40, 60, 130)]
    file = write_regions(
        tmp_path, ("P1_L_DM_CC.jpg", circles[0]), ("P1_L_CM_CC.jpg", circles[2]), ("P1_L_DM_CC.jpg", circles[1])
    )
    shapes = read_regions(file).shapes
    found = {name: Regions(name, file, shapes[name]).read(SIZE) for name in shapes}
    apart = [mask_of(tmp_path, circle) for circle in circles]
    np.testing.assert_array_equal(found["P1_L_DM_CC"], apart[0] | apart[1])
    np.testing.assert_array_equal(found["P1_L_CM_CC"], apart[2])


def test_a_line_that_crosses_itself_leaves_no_hole(tmp_path: Path) -> None:
    turns = np.linspace(0, 4 * np.pi, 80)  # twice around, the second time on a smaller circle
    radius = np.linspace(45, 30, 80)
    x, y = (70 + radius * np.cos(turns)).round().astype(int), (60 + radius * np.sin(turns)).round().astype(int)
    shape = {"name": "polyline", "all_points_x": x.tolist(), "all_points_y": y.tolist()}
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    angle = np.arctan2(rows - 60, columns - 70) % (2 * np.pi)
    within = np.hypot(rows - 60, columns - 70) <= 45 - 7.5 * angle / (2 * np.pi)
    assert overlap(mask_of(tmp_path, shape), within) > 0.95


def test_a_region_outside_its_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    outside = {"name": "circle", "cx": 400, "cy": 60, "r": 20}
    with pytest.raises(
        ImageFileError, match=r"region 2 of P1_L_DM_CC \(circle, x 400 to 400, y 60 to 60\) lies out.*160x120"
    ):
        mask_of(tmp_path, POLYGON, outside)


def test_exact_duplicates_are_dropped_and_blanks_do_not_matter(tmp_path: Path) -> None:
    file = write_regions(
        tmp_path, *((name, POLYGON) for name in ("P1_L_DM_CC.jpg", "P1_L_DM_CC .jpg", " P1_L_DM_CC.JPG "))
    )
    found = read_regions(write_rows(tmp_path, *([*row[:3], 3, *row[4:]] for row in list(csv.reader(file.open()))[1:])))
    assert {name: len(shapes) for name, shapes in found.shapes.items()} == {"P1_L_DM_CC": 1}
    assert (len(found.repeated), found.broken) == (2, ())


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ('{"name":"circle","cx":3,', "line 3: Expecting property name"),
        ('{"name":"rect","x":3,"y":3,"width":4,"height":4}', "a region of kind 'rect', expected one of polygon"),
        ('{"name":"polygon","all_points_x":[1,2],"all_points_y":[1,2]}', "a polygon of 2 x and 2 y"),
        ('{"name":"polygon","all_points_x":[1,2,3],"all_points_y":[1,2]}', "a polygon of 3 x and 2 y"),
        (
            '{"name":"polygon","all_points_x":[1,2,"3"],"all_points_y":[1,2,3]}',
            "all_points_x is '3', expected a number",
        ),
        ('{"name":"polygon","all_points_x":7,"all_points_y":[1,2,3]}', "all_points_x is '7', expected a list"),
        ('{"name":"circle","cx":NaN,"cy":3,"r":4}', "cx is 'nan', expected a number"),
        ('{"name":"circle","cx":3e9,"cy":3,"r":4}', "cx is '3000000000.0', expected a number"),
        ('{"name":"circle","cx":3,"cy":3}', "r is 'None', expected a number"),
        ('{"name":"circle","cx":3,"cy":3,"r":0}', "a circle of radius 0, expected more than 0"),
        ("[1, 2]", "a region of kind None"),
        ("{}", "a region of kind None"),
    ],
)
def test_a_broken_row_is_named_and_costs_no_other(attributes: str, reason: str, tmp_path: Path) -> None:
    good = ["P1_L_DM_CC.jpg", 1, "{}", 2, 0, json.dumps(POLYGON), "{}"]
    found = read_regions(write_rows(tmp_path, good, [*good[:5], attributes, "{}"]))
    assert len(found.shapes["P1_L_DM_CC"]) == 1
    (broken,) = found.broken
    assert (broken.name, broken.file, broken.needed) == ("P1_L_DM_CC", "regions.csv", True)
    assert broken.reason.startswith("line 3: ")
    assert reason in broken.reason


def test_rows_that_are_cut_off_or_missing_are_named(tmp_path: Path) -> None:
    good = ["P1_L_DM_CC.jpg", 1, "{}", 1, 0, json.dumps(POLYGON), "{}"]
    one_of_two = ["P2_L_DM_CC.jpg", 1, "{}", 2, 0, json.dumps(POLYGON), "{}"]
    found = read_regions(write_rows(tmp_path, good, one_of_two, ["P3_L_DM_CC.jpg", 1]))
    assert list(found.shapes) == ["P1_L_DM_CC", "P2_L_DM_CC"]
    assert [(one.name, one.reason) for one in found.broken] == [
        ("P3_L_DM_CC", "line 4: the row has not as many cells as the head"),
        ("P2_L_DM_CC", "1 rows, but region_count says 2"),
    ]


@pytest.mark.parametrize("content", [b"", b"name,label\nP1,2\n", b"\xff\xd8\xff\xe0\x00\x10"])
def test_a_file_that_is_no_csv_of_regions_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "regions.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"no column filename, region_count, region_shape_attributes|is not a csv"):
        read_regions(tmp_path / "regions.csv")


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("P1_L_DM_MLO", "P1_L_MLO"),
        (" P12_R_CM_CC  ", "P12_R_CC"),
        ("P99_L_DM_MLO_2", "P99_L_MLO_2"),
        ("P281_L_CM_MLO2", "P281_L_MLO_2"),
        ("p7_r_cm_cc", "P7_R_CC"),
        ("P1_L_MLO", None),
        ("P1_X_DM_MLO", None),
        ("P1_L_DM_MLO copy", None),
    ],
)
def test_names_give_patient_side_kind_view_and_repeat(text: str, case: str | None) -> None:
    name = ImageName.parse(text)
    assert (name and name.case) == case
    if name is not None:
        assert ImageName.parse(str(name)) == name
        assert name.subtracted == ("CM" in text.upper())


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    pair = phantom_pairs(5, 64)[2]
    return [table_row("P1_R_CC", kind, pair) for kind in ("DM", "CM")]


def test_a_pair_keeps_the_words_of_its_le_row_and_what_differs_on_the_des(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    rows[1] |= {"Pathology Classification/ Follow up": "Benign ", "Tags": "non enhancement"}
    write_table(tmp_path / "table.xlsx", rows)
    annotations, broken = read_table(tmp_path / "table.xlsx")
    assert broken == []
    image, label = (annotations[name] for name in map(ImageName.parse, ("P1_R_DM_CC", "P1_R_CM_CC")) if name)
    assert case_info(image, label) == {
        "label": "malignant",
        "pathology": "Malignant",
        "birads": "3, 2",
        "density": "A",
        "findings": ["Mass with calcification", "IMLN"],
        "tags": ["malignant mass", "spiculated"],
        "age": 41,
        "machine": "1",
        "vendor": "machine 1",
        "label_des": "benign",
        "birads_des": "5",
        "tags_des": ["non enhancement"],
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Image_name": "P1_R_CC"}, "row 3: the name is 'P1_R_CC', expected one such as P1_L_DM_MLO"),
        ({"Patient_ID": 2}, "row 3: Patient_ID is '2', but the name P1_R_CM_CC says '1'"),
        ({"Type": "DM"}, "row 3: Type is 'DM', but the name P1_R_CM_CC says 'CESM'"),
        ({"Pathology Classification/ Follow up": "?"}, "row 3: the pathology is '?', expected one of normal, benign"),
    ],
)
def test_a_row_that_cannot_be_right_is_named(
    change: dict[str, Any], reason: str, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    write_table(tmp_path / "table.xlsx", [rows[0], rows[1] | change])
    annotations, broken = read_table(tmp_path / "table.xlsx")
    assert [str(name) for name in annotations] == ["P1_R_DM_CC"]
    assert len(broken) == 1
    assert broken[0].reason.startswith(reason)


def test_two_rows_that_contradict_each_other_count_for_nothing(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    write_table(tmp_path / "table.xlsx", [*rows, rows[1], rows[0] | {"Age": 80}])
    annotations, broken = read_table(tmp_path / "table.xlsx")
    assert [str(name) for name in annotations] == ["P1_R_CM_CC"]
    assert [one.name for one in broken] == ["P1_R_DM_CC"]


def test_a_table_without_its_sheet_or_columns_or_that_is_no_table_is_refused(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "table.xlsx"
    write_table(path, rows, sheet="everything")
    with pytest.raises(ValueError, match="has no sheet 'all'; it has: everything, mass_description"):
        read_table(path)
    write_table(path, [{key: value for key, value in row.items() if key not in ("Tags", "Age")} for row in rows])
    with pytest.raises(ValueError, match="has no column Age, Tags; it has: Image_name"):
        read_table(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be read as xlsx"):
        read_table(path)


def test_the_published_csv_is_read_completely(shared_data: Path) -> None:
    found = read_regions(shared_data / "cdd-cesm-originals/Radiology_hand_drawn_segmentations_v2.csv")
    shapes = [shape for several in found.shapes.values() for shape in several]
    assert (len(shapes) + len(found.repeated), len(found.repeated), found.broken) == (2971, 6, ())
    assert (len(found.shapes), len({name.split("_")[0] for name in found.shapes})) == (1233, 283)
    assert sum(min(*shape.x, *shape.y) < 0 for shape in shapes) == 9
    kinds = Counter(shape.kind for shape in (*shapes, *found.repeated))
    assert kinds == {"polygon": 2028, "ellipse": 598, "circle": 331, "polyline": 10, "point": 4}
    assert all(name is not None for name in map(ImageName.parse, found.shapes))


def test_the_published_table_is_read_completely(shared_data: Path) -> None:
    annotations, broken = read_table(shared_data / "cdd-cesm-originals/Radiology manual annotations.xlsx")
    assert broken == []
    assert Counter(name.subtracted for name in annotations) == {False: 1003, True: 1003}
    assert len({name.patient for name in annotations}) == 326
    assert len({name.case for name in annotations}) == 1003
    labels = Counter(annotation.label for annotation in annotations.values())
    assert labels == {"normal": 757, "benign": 587, "malignant": 662}
    assert sorted(name.case for name in annotations if name.repeat > 1 and name.subtracted) == [
        "P281_L_MLO_2",
        "P99_L_MLO_2",
    ]
    assert {annotation.density for annotation in annotations.values()} == {"", "A", "B", "C", "D"}


def test_shapes_of_the_published_csv_are_drawn_without_error(shared_data: Path) -> None:
    found = read_regions(shared_data / "cdd-cesm-originals/Radiology_hand_drawn_segmentations_v2.csv")
    kinds: dict[str, Shape] = {shape.kind: shape for shapes in found.shapes.values() for shape in shapes}
    assert all(shape.mask((4096, 3328)).any() for shape in kinds.values())
