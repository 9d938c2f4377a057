from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from bundle.reader import ImageFileError
from scripts.prepare import segmentation
from scripts.prepare.segmentation import Drawing, LesionMask, MaskFiles, lesion_segments, too_large
from tests.archives.dicom_archive import write_segmentation
from tests.archives.dicom_files import write_dicom

SHAPE = (48, 40)


def box(top: int, left: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, dtype=np.bool_)
    mask[top : top + 5, left : left + 3] = True
    return mask


@pytest.fixture
def source(tmp_path: Path) -> Dataset:
    values = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(SHAPE)
    return write_dicom(tmp_path / "image.dcm", values, patient_id="Mueller-77")


def drawn(path: Path, source: Dataset, *segments: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.bool_]:
    drawing = Drawing(path, "file 1", segments)
    return LesionMask((drawing,), source.SOPInstanceUID).read(shape)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_every_kind_of_segmentation_gives_its_mask(
    kind: str, by_hand: bool, source: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError

    if by_hand:
        monkeypatch.setattr(segmentation, "_with_highdicom", refuse)
    one, two = box(2, 3), box(30, 20)
    path = tmp_path / "seg"
    write_segmentation(path, source, [one, two], kind)
    assert (drawn(path, source, 1, 2) == (one | two)).all()
    assert (drawn(path, source, 1) == one).all()
    assert (drawn(path, source, 2) == two).all()


def test_a_segmentation_that_highdicom_refuses_is_read_by_its_frames(source: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "seg"
    segmented = pydicom.Dataset(write_segmentation(path, source, [box(2, 3), box(30, 20)]))
    header = pydicom.dcmread(path)
    for keyword in (
        "DimensionIndexSequence",
        "SegmentsOverlap",
        "ReferencedSeriesSequence",
        "SharedFunctionalGroupsSequence",
    ):
        if keyword in header:
            delattr(header, keyword)
    header.save_as(path)
    assert segmented.NumberOfFrames == 2
    with pytest.raises(Exception):  # noqa: B017, PT011 - any
        segmentation._with_highdicom(header, source.SOPInstanceUID, [2])
    assert (drawn(path, source, 2) == box(30, 20)).all()


def test_a_segmentation_of_another_image_adds_nothing(source: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "seg"
    write_segmentation(path, source, [box(2, 3)])
    assert not LesionMask((Drawing(path, "file 1", (1,)),), "1.2.3").read(SHAPE).any()


def test_several_files_are_united(source: Dataset, tmp_path: Path) -> None:
    write_segmentation(tmp_path / "seg", source, [box(2, 3)])
    Image.fromarray(box(30, 20).astype(np.uint8) * 255).save(tmp_path / "drawn.png")
    mask = LesionMask(
        (Drawing(tmp_path / "seg", "file 1", (1,)), Drawing(tmp_path / "drawn.png", "file 2")), source.SOPInstanceUID
    )
    assert (mask.read(SHAPE) == (box(2, 3) | box(30, 20))).all()
    assert mask.report_name == "file 1, file 2"
    assert mask.paths == (tmp_path / "seg", tmp_path / "drawn.png")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _rubbish(path: Path) -> None:
    path.write_bytes(b"Mueller-77")


@pytest.mark.parametrize(
    ("spoil", "shape", "message"),
    [
        (None, (40, 48), "a segmentation of 40x48 pixels, its image has 48x40"),
        (_cut, SHAPE, ""),
        (_rubbish, SHAPE, ""),
        (Path.unlink, SHAPE, ""),
    ],
)
def test_an_unusable_segmentation_is_named_without_path_and_patient(
    spoil: Any, shape: tuple[int, int], message: str, source: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "Mueller-77.seg"
    write_segmentation(path, source, [box(2, 3)])
    if spoil is not None:
        spoil(path)
    with pytest.raises(ImageFileError) as caught:
        drawn(path, source, 1, shape=shape)
    assert message in str(caught.value)
    assert str(caught.value).startswith("file 1: ")
    assert all(secret not in str(caught.value) for secret in ("Mueller", str(tmp_path), source.SOPInstanceUID))


def test_segments_are_chosen_by_label() -> None:
    segments = {1: "Lesion mass", 2: "Biopsy clip", 4: "LESION"}
    assert lesion_segments(segments, None) == (1, 2, 4)
    assert lesion_segments(segments, re.compile("lesion", re.IGNORECASE)) == (1, 4)
    assert lesion_segments(segments, re.compile("nipple")) == ()


def test_segments_of_normal_anatomy_are_no_lesions_unless_asked_for() -> None:
    segments = {
        1: "Breast",
        2: "Breast mass",
        3: "pectoral muscle",
        4: "fibroglandular tissue",
        5: "1",
        6: "Skin lesion",
    }
    assert lesion_segments(segments, None) == (2, 5, 6)
    assert lesion_segments(segments, re.compile("breast", re.IGNORECASE)) == (1, 2)


def test_a_segment_of_half_the_image_is_too_large(source: Dataset, tmp_path: Path) -> None:
    write_segmentation(tmp_path / "seg", source, [box(2, 3), ~box(2, 3)])
    assert too_large(tmp_path / "seg", source.SOPInstanceUID, (1, 2)) == {2: pytest.approx((~box(2, 3)).mean())}
    _cut(tmp_path / "seg")
    assert too_large(tmp_path / "seg", source.SOPInstanceUID, (1, 2)) == {}


IMAGES = {"1.2.840.5": "a/IM1.dcm", "1.2.840.6": "b/IM1", "1.2.840.7": "b/1.2.840.77"}


@pytest.mark.parametrize(
    ("beside", "apart", "owner"),
    [
        ("a/IM1_mask.png", None, "1.2.840.5"),
        ("b/IM1_Mask.nii.gz", None, "1.2.840.6"),
        ("b/1.2.840.77_mask.png", None, "1.2.840.7"),
        ("anywhere/1.2.840.6.png", None, "1.2.840.6"),
        ("anywhere/1.2.840.6_mask.nrrd", None, "1.2.840.6"),
        (None, "b/IM1.png", "1.2.840.6"),
        (None, "1.2.840.77.png", "1.2.840.7"),
        (None, "IM1_mask.png", "fits 2 DICOM files"),
        (None, "IM9.png", "fits 0 DICOM files"),
        ("c/IM1_mask.png", None, "fits 0 DICOM files"),
        ("a/IM1.png", None, ""),
        ("a/notes_mask.txt", None, ""),
    ],
)
def test_mask_files_are_found_by_name(beside: str | None, apart: str | None, owner: str) -> None:
    given = [{} if one is None else {Path("/x") / one: one} for one in (beside, apart)]
    owned, lost = MaskFiles(*given).of(IMAGES)
    path = Path("/x") / (beside or apart or "")
    if owner in IMAGES:
        assert (owned, lost) == ({owner: [path]}, {})
    elif owner:
        assert (owned, list(lost)) == ({}, [path])
        assert owner in lost[path]
    else:
        assert (owned, lost) == ({}, {})
