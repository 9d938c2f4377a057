from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.image_facts import image_facts
from scripts.prepare.conversion import Settings
from scripts.prepare.registration import Alignment
from scripts.prepare.sources import FileImage, FileMask
from scripts.prepare.stored import storing
from scripts.prepare.view import Pixels, View
from tests.archives.pairs import SHAPE, Made, breast, lesion, write
from tests.archives.phantom import phantom_pairs
from tests.test_prepare_conversion import NATIVE, Shaped, case_of, made, refusal, write_format


def cut(monkeypatch: pytest.MonkeyPatch, **masks: NDArray[np.bool_]) -> View:
    """A view whose DES lacks the upper 6 rows and the right 3 columns of its LE."""
    aligned = Alignment(1.0, 0.0, 6.0, 0.92, 0.99, registered=True)
    monkeypatch.setattr("scripts.prepare.conversion.align", lambda *_: aligned)
    image, label = breast(0)
    return made(image, label[6:, :-3], **{key: Shaped(mask) for key, mask in masks.items()})


def drawn(*boxes: tuple[slice, slice], shape: tuple[int, int] = SHAPE) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=np.bool_)
    for box in boxes:
        mask[box] = True
    return mask


def test_a_lesion_outside_the_common_field_never_disappears_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = slice(1, 5), slice(10, 14)
    inside = slice(20, 30), slice(10, 20)
    partly = slice(2, 16), slice(22, 28)
    left_out = refusal(cut(monkeypatch, mask=drawn(outside)))
    assert left_out.reason == "mask: the lesion lies outside what LE and DES both show"
    assert left_out.remedy
    case = case_of(cut(monkeypatch, mask=drawn(outside, inside, partly)))
    assert case.entry["info"]["notes"] == [
        "mask: 1 of 3 lesions outside what LE and DES both show",
        "mask: 1 of 3 lesions partly outside what LE and DES both show",
    ]
    assert "notes" not in case_of(cut(monkeypatch, mask=drawn(inside))).entry["info"]
    short = (SHAPE[0] - 6, SHAPE[1] - 3)
    kept = case_of(cut(monkeypatch, mask=drawn(inside), label_mask=drawn(inside, shape=short)))
    assert "notes" not in kept.entry["info"]


def test_a_lesion_of_the_des_outside_the_common_field_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    image, label = breast(0)
    aligned = Alignment(1.0, 0.0, -6.0, 0.92, 0.99, registered=True)
    monkeypatch.setattr("scripts.prepare.conversion.align", lambda *_: aligned)
    outside, inside = (slice(0, 4), slice(5, 9)), (slice(20, 30), slice(10, 20))
    view = made(image[6:], label, label_mask=Shaped(drawn(outside, inside)))
    notes = case_of(view).entry["info"]["notes"]
    assert notes == ["mask of the DES: 1 of 2 lesions outside what LE and DES both show"]
    alone = replace(view, label_mask=Shaped(drawn(outside)))
    assert refusal(alone).reason == "mask of the DES: the lesion lies outside what LE and DES both show"


def test_what_was_cut_off_is_told_in_pixels_of_the_le(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(cut(monkeypatch))
    assert (case.facts["crop_left"], case.facts["crop_top"]) == (0, 6)
    assert case.entry["info"] == {"crop_left": 0, "crop_top": 6}
    place = list(case.facts).index("overlap_after")
    assert list(case.facts)[place + 1 : place + 3] == ["crop_left", "crop_top"]
    monkeypatch.undo()
    assert case_of(made(*breast(0))).facts["crop_top"] == 0


def test_images_of_one_grid_are_never_registered_and_others_of_equal_size_are() -> None:
    pair = phantom_pairs(1, 192)[0]
    view = made(pair.image[:-8], pair.label[8:])
    assert case_of(view).facts["registered"]
    case = case_of(replace(view, same_grid=True), replace(NATIVE, min_overlap=0))
    assert not case.facts["registered"]
    np.testing.assert_array_equal(case.pixels["label"], pair.label[8:])


def write_directed(path: Path, pixels: NDArray[Any], rows: float = 1.0) -> Path:
    """NIfTI or NRRD at 0.1 mm; ``rows`` -1: they run the other way."""
    if path.suffix == ".nrrd":
        image = itk.image_from_array(pixels)
        image.SetSpacing([0.1, 0.1])
        image.SetDirection(itk.matrix_from_array(np.diag([1.0, rows])))
        itk.imwrite(image, str(path))
    else:
        affine = np.diag([-0.1, -0.1 * rows, 1, 1])
        nibabel.save(nibabel.Nifti1Image(pixels.T.astype(np.int16), affine), path)
    return path


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("turned", ["label", "mask", None])
def test_files_stored_in_another_direction_than_their_image_are_refused(
    suffix: str, turned: str | None, tmp_path: Path
) -> None:
    image, label = breast(0)
    pixels: dict[str, NDArray[Any]] = {"image": image, "label": label, "mask": lesion().astype(np.uint8)}
    files = {
        key: write_directed(tmp_path / f"{key}{suffix}", one, -1.0 if key == turned else 1.0)
        for key, one in pixels.items()
    }
    view = made(
        image, label, image=FileImage(files["image"]), label=FileImage(files["label"]), mask=FileMask(files["mask"])
    )
    if turned is None:
        np.testing.assert_array_equal(case_of(view).pixels["mask"], lesion())
        return
    left_out = refusal(view)
    assert left_out.file == str(files[turned])
    assert "stored in another direction than its LE image" in left_out.reason
    assert left_out.remedy


def test_a_mask_without_directions_is_taken_in_stored_order(tmp_path: Path) -> None:
    image, label = breast(0)
    files = [write_directed(tmp_path / f"{number}.nii.gz", one) for number, one in enumerate((image, label))]
    for affine in (np.eye(4), None):
        nibabel.save(nibabel.Nifti1Image(lesion().T.astype(np.uint8), affine), tmp_path / "mask.nii.gz")
        itk.imwrite(itk.image_from_array(lesion().astype(np.uint8)), str(tmp_path / "mask.nrrd"))
        for mask in ("mask.nii.gz", "mask.nrrd", "mask.png"):
            write(tmp_path / "mask.png", lesion())
            view = made(
                image, label, image=FileImage(files[0]), label=FileImage(files[1]), mask=FileMask(tmp_path / mask)
            )
            np.testing.assert_array_equal(case_of(view).pixels["mask"], lesion())


def test_equal_pixels_have_one_digest_in_every_format_and_way_up(tmp_path: Path) -> None:
    image, label = breast(0)
    digests = set()
    for suffix in (".png", ".nii.gz", ".mha", ".dcm"):
        write_format(tmp_path / f"le{suffix}", image)
        digests.add(case_of(made(image, label, image=FileImage(tmp_path / f"le{suffix}"))).facts["image_digest"])
        digests.add(image_facts(tmp_path / f"le{suffix}").digest)
    for values in (image.astype(np.float32), image.astype(np.int64), image.astype(">u2")):
        digests.add(case_of(made(values, label)).facts["image_digest"])
    turned = Pixels(image[::-1, ::-1], mirrored=True, upside_down=True)
    digests.add(case_of(made(image, label, image=Made(Path("le"), turned))).facts["image_digest"])
    assert len(digests) == 1
    assert case_of(made(image + np.uint16(1), label)).facts["image_digest"] not in digests


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii"])
def test_pixels_that_are_not_square_are_refused(suffix: str, tmp_path: Path) -> None:
    image, label = breast(0)
    if suffix == ".nii":
        nibabel.save(nibabel.Nifti1Image(image.T.astype(np.int16), np.diag([0.07, 0.14, 1, 1])), tmp_path / "le.nii")
    else:
        long = itk.image_from_array(image)
        long.SetSpacing([0.07, 0.14])
        itk.imwrite(long, str(tmp_path / f"le{suffix}"))
    left_out = refusal(made(image, label, image=FileImage(tmp_path / f"le{suffix}")))
    assert "LE: pixels of 0.07 by 0.14 mm, expected square ones" in left_out.reason
    assert "Resample" in left_out.remedy


@pytest.mark.parametrize("given", [None, "side from the pixels", ["side from the pixels"]])
def test_notes_of_the_importer_and_of_the_images_are_kept(given: Any) -> None:
    image, label = breast(0)
    sources = [
        Made(Path(f"{name}.dcm"), Pixels(one, notes=(f"{name} turned",)))
        for name, one in (("le", image), ("des", label))
    ]
    view = made(image, label, image=sources[0], label=sources[1], info={} if given is None else {"notes": given})
    expected = ["LE: le turned", "DES: des turned"]
    assert case_of(view).entry["info"]["notes"] == ([] if given is None else ["side from the pixels"]) + expected
    in_place = case_of(view, Settings(Path.cwd(), in_place=True, min_overlap=0))
    assert in_place.entry["info"]["notes"][-2:] == expected


def test_the_way_back_of_values_from_0_has_no_negative_zero() -> None:
    for values, slope in ((np.array([[0, 9]], dtype=np.uint8), 1 / 257), (np.array([[0.0, 0.25, 1.0]]), 1 / 65535)):
        assert str(storing(values).back()) == f"[{slope}, 0.0]"
