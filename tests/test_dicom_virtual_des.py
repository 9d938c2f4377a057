"""What a virtual DES object says, and that the standard's own checker finds no error in it."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from bundle.dicom import Kind, VirtualDESObjects, kind_of, refusal
from bundle.image_file_error import ImageFileError
from tests.archives.dicom_files import write_dicom
from tests.dciodvfy import dicom_errors

ROWS, COLUMNS = 60, 44
#: What no exposure made must not be said of.
REMOVED = (
    "KVP",
    "ExposureTime",
    "XRayTubeCurrent",
    "Exposure",
    "EntranceDoseInmGy",
    "OrganDose",
    "ContrastBolusAgent",
    "ContrastBolusVolume",
    "AcquisitionDeviceProcessingCode",
    "AcquisitionDeviceProcessingDescription",
    "IrradiationEventUID",
)


def ramp() -> NDArray[np.float32]:
    """A (W, H) prediction in 0..255 that differs from its mirror images."""
    pred = np.linspace(0, 255, COLUMNS * ROWS, dtype=np.float32).reshape(COLUMNS, ROWS)
    pred[:5, :9] = 255
    return pred


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


def source(path: Path, **how: Any) -> Dataset:
    values = np.random.default_rng(0).integers(0, 4096, (ROWS, COLUMNS)).astype(np.uint16)
    return write_dicom(path, values, **how)


def made(tmp_path: Path, weights: Path, how: dict[str, Any] | None = None, **options: Any) -> tuple[Dataset, Dataset]:
    """The source and the object made of it, which is checked on the way."""
    original = source(tmp_path / "le.dcm", **(how or {}))
    target = tmp_path / "out" / "des.dcm"
    VirtualDESObjects(weights, **options).write(ramp(), tmp_path / "le.dcm", target)
    assert dicom_errors(target) == []
    return original, pydicom.dcmread(target)


def test_the_mammography_object_says_that_it_is_synthetic_derived_and_for_research(
    tmp_path: Path, weights: Path
) -> None:
    original, des = made(tmp_path, weights)
    assert des.SOPClassUID == DigitalMammographyXRayImageStorageForPresentation
    assert list(des.ImageType) == ["DERIVED", "SECONDARY", "", "", "", "VIRTUAL_DES"]
    assert (des.SyntheticData, des.ContentQualification, des.BurnedInAnnotation) == ("YES", "RESEARCH", "NO")
    assert "SYNTHETIC - RESEARCH ONLY" in des.SeriesDescription
    assert "no contrast agent, not for diagnosis" in des.ImageComments
    assert hashlib.sha256(b"weights").hexdigest() in des.DerivationDescription
    assert des.DerivationCodeSequence[0].CodeValue == "113085"
    reference = des.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == original.SOPInstanceUID
    assert reference.SpatialLocationsPreserved == "YES"
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in des.ContributingEquipmentSequence]
    assert purposes == ["109100", "109101"]
    assert des.ContributingEquipmentSequence[1].Manufacturer == original.Manufacturer
    assert des.Manufacturer == "cesm_virtual_contrast"


def test_patient_study_and_geometry_are_those_of_the_source_and_what_an_exposure_leaves_is_gone(
    tmp_path: Path, weights: Path
) -> None:
    exposure: dict[str, Any] = {"ExposureTime": "900", "XRayTubeCurrent": "60", "Exposure": "54", "OrganDose": "0.1"}
    exposure |= {"ContrastBolusAgent": "Iodine", "ContrastBolusVolume": "90", "EntranceDoseInmGy": "4"}
    exposure |= {"AcquisitionDeviceProcessingDescription": "CESM", "IrradiationEventUID": "1.2.3"}
    geometry: dict[str, Any] = {"BodyPartThickness": "55", "PositionerPrimaryAngle": "-45", "InstanceNumber": "3"}
    original, des = made(tmp_path, weights, {"view": "MLO", "FrameOfReferenceUID": "1.2.9", **exposure, **geometry})
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber", "StudyDate",
                    "FrameOfReferenceUID", "ImagerPixelSpacing", "ImageLaterality", "ViewPosition", *geometry,
                    "PatientOrientation", "Rows", "Columns"):  # fmt: skip
        assert des[keyword].value == original[keyword].value, keyword
    assert [keyword for keyword in REMOVED if keyword in des] == []
    assert des.SOPInstanceUID != original.SOPInstanceUID
    assert des.SeriesInstanceUID != original.SeriesInstanceUID
    assert des.ViewCodeSequence[0].CodeValue == "399368009"


def test_the_pixels_are_twelve_bits_on_the_grid_of_the_source(tmp_path: Path, weights: Path) -> None:
    _, des = made(tmp_path, weights)
    assert (des.BitsAllocated, des.BitsStored, des.PhotometricInterpretation) == (16, 12, "MONOCHROME2")
    assert (des.WindowCenter, des.WindowWidth, des.RescaleSlope) == (2048, 4096, 1)
    np.testing.assert_array_equal(des.pixel_array, np.rint(ramp().T / 255 * 4095))
    np.testing.assert_array_equal(highdicom.imread(tmp_path / "out" / "des.dcm").get_frame(1), des.pixel_array)


def test_a_secondary_capture_on_request_says_the_same_with_sixteen_bits(tmp_path: Path, weights: Path) -> None:
    original, des = made(tmp_path, weights, object_type="secondary_capture")
    assert des.SOPClassUID == SecondaryCaptureImageStorage
    assert des.ImageType[5] == "VIRTUAL_DES"
    assert (des.SyntheticData, des.PatientID, des.StudyInstanceUID) == (
        "YES", original.PatientID, original.StudyInstanceUID,
    )  # fmt: skip
    np.testing.assert_array_equal(des.pixel_array, np.rint(ramp().T / np.float32(255) * 65535))
    highdicom.imread(tmp_path / "out" / "des.dcm")


def test_deterministic_objects_are_the_same_bytes_in_every_run_and_others_are_new(
    tmp_path: Path, weights: Path
) -> None:
    source(tmp_path / "le.dcm")

    def write(name: str, **options: Any) -> Path:
        VirtualDESObjects(weights, **options).write(ramp(), tmp_path / "le.dcm", tmp_path / name)
        return tmp_path / name

    same = [write(name, deterministic_uids=True).read_bytes() for name in "ab"]
    assert same[0] == same[1]
    new = [pydicom.dcmread(write(name)) for name in "cd"]
    assert len({one.SOPInstanceUID for one in new}) == len({one.SeriesInstanceUID for one in new}) == 2
    weights.write_bytes(b"others")
    other = pydicom.dcmread(write("e", deterministic_uids=True))
    assert other.SOPInstanceUID != pydicom.dcmread(tmp_path / "a").SOPInstanceUID


def test_images_of_one_series_stay_in_one_series(tmp_path: Path, weights: Path) -> None:
    objects = VirtualDESObjects(weights)
    found = []
    for name in ("a", "b"):
        source(tmp_path / f"{name}.dcm", SeriesInstanceUID="1.2.3.4")
        objects.write(ramp(), tmp_path / f"{name}.dcm", tmp_path / name)
        found.append(pydicom.dcmread(tmp_path / name))
    assert found[0].SeriesInstanceUID == found[1].SeriesInstanceUID
    assert found[0].SOPInstanceUID != found[1].SOPInstanceUID


def test_a_notice_is_burned_in_away_from_the_breast_and_declared(tmp_path: Path, weights: Path) -> None:
    size = (600, 400)
    write_dicom(tmp_path / "le.dcm", np.zeros(size, np.uint16))
    pred = np.zeros(size[::-1], np.float32)
    pred[:250, 100:] = 120  # at the left, from row 100 down
    VirtualDESObjects(weights, burn_in_notice=True).write(pred, tmp_path / "le.dcm", tmp_path / "des.dcm")
    des = pydicom.dcmread(tmp_path / "des.dcm")
    changed = des.pixel_array != np.rint(pred.T / 255 * 4095)
    assert des.BurnedInAnnotation == "YES"
    assert des.pixel_array[changed].max() > 4000
    assert not changed[100:, :250].any()
    assert dicom_errors(tmp_path / "des.dcm") == []


def test_loss_of_the_source_is_carried_on(tmp_path: Path, weights: Path) -> None:
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_15444_1"}
    _, des = made(tmp_path, weights, {**lossy, "LossyImageCompressionRatio": "9.5"})
    assert (des.LossyImageCompression, des.LossyImageCompressionRatio) == ("01", 9.5)
    assert des.LossyImageCompressionMethod == "ISO_15444_1"
    _, des = made(tmp_path, weights, {"LossyImageCompression": "01"})
    assert des.LossyImageCompression == "01"
    _, des = made(tmp_path, weights, {"transfer_syntax": RLELossless})
    assert des.LossyImageCompression == "00"


def test_a_lossy_transfer_syntax_counts_as_loss_whatever_the_header_says(tmp_path: Path, weights: Path) -> None:
    header = source(tmp_path / "le.dcm")
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.PixelData = encapsulate([b"\xff\xd8 no pixels are read \xff\xd9"])
    header["PixelData"].VR = "OB"
    header.save_as(tmp_path / "le.dcm", enforce_file_format=True)
    VirtualDESObjects(weights).write(ramp(), tmp_path / "le.dcm", tmp_path / "des.dcm")
    des = pydicom.dcmread(tmp_path / "des.dcm")
    assert (des.LossyImageCompression, des.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert dicom_errors(tmp_path / "des.dcm") == []


@pytest.mark.parametrize(
    "missing", [("ImagerPixelSpacing",), ("ViewPosition", "ViewCodeSequence", "SeriesDescription")]
)
def test_what_a_mammogram_must_say_and_the_source_does_not_makes_a_secondary_capture(
    tmp_path: Path, weights: Path, missing: tuple[str, ...]
) -> None:
    source(tmp_path / "le.dcm", **dict.fromkeys(missing))
    notes = VirtualDESObjects(weights).write(ramp(), tmp_path / "le.dcm", tmp_path / "des.dcm")
    assert "Secondary Capture, since the source does not tell" in notes[0]
    assert pydicom.dcmread(tmp_path / "des.dcm").SOPClassUID == SecondaryCaptureImageStorage
    assert dicom_errors(tmp_path / "des.dcm") == []


def test_an_orientation_that_is_not_stated_is_filled_from_the_pixels_and_said(tmp_path: Path, weights: Path) -> None:
    values = np.zeros((ROWS, COLUMNS), np.uint16)
    for row in range(10, 50):  # a half disc at the right edge
        values[row, COLUMNS - int(np.sqrt(400 - (row - 30) ** 2)) :] = 2000
    write_dicom(tmp_path / "le.dcm", values, laterality="R", PatientOrientation=None)
    notes = VirtualDESObjects(weights).write(ramp(), tmp_path / "le.dcm", tmp_path / "des.dcm")
    assert "PatientOrientation P L as seen in the pixels" in notes
    assert list(pydicom.dcmread(tmp_path / "des.dcm").PatientOrientation) == ["P", "L"]


def test_values_against_the_standard_are_not_carried_on(tmp_path: Path, weights: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = {"PatientAge": "95 years", "StudyTime": "about ten", "PatientSex": "female", "DetectorType": "CMOS"}
        _, des = made(tmp_path, weights, {**wrong, "BreastImplantPresent": "PERHAPS", "StudyDate": "2024-13-50"})
    assert "PatientAge" not in des
    assert [des.StudyTime, des.PatientSex, des.StudyDate] == ["", "", ""]


def test_a_source_without_identifiers_is_an_error_that_names_them(tmp_path: Path, weights: Path) -> None:
    source(tmp_path / "le.dcm", StudyInstanceUID=None)
    with pytest.raises(ImageFileError, match=r"lacks StudyInstanceUID.*Export the image"):
        VirtualDESObjects(weights).write(ramp(), tmp_path / "le.dcm", tmp_path / "des.dcm")
    assert not (tmp_path / "des.dcm").exists()


@pytest.mark.parametrize(
    ("pred", "words"),
    [(ramp().T, "60 columns x 44 rows"), (np.full((COLUMNS, ROWS), np.nan, np.float32), "NaN or infinite")],
)
def test_a_prediction_that_is_off_the_grid_or_not_finite_is_refused(
    tmp_path: Path, weights: Path, pred: NDArray[np.float32], words: str
) -> None:
    source(tmp_path / "le.dcm")
    with pytest.raises(ValueError, match=words):
        VirtualDESObjects(weights).write(pred, tmp_path / "le.dcm", tmp_path / "des.dcm")
    assert not (tmp_path / "des.dcm").exists()


def test_no_warning_quotes_the_patient(tmp_path: Path, weights: Path, recwarn: pytest.WarningsRecorder) -> None:
    source(tmp_path / "le.dcm", PatientName="Mueller Anna")
    for kind in ("mammogram", "secondary_capture"):
        VirtualDESObjects(weights, kind).write(ramp(), tmp_path / "le.dcm", tmp_path / "des.dcm")
    assert [str(one.message) for one in recwarn.list if "Mueller" in str(one.message)] == []


def test_our_own_objects_are_never_taken_for_a_low_energy_image(tmp_path: Path, weights: Path) -> None:
    _, des = made(tmp_path, weights)
    assert kind_of(des)[0] is Kind.OTHER
    assert "virtual image made by this software" in (refusal(des) or "")


def test_an_unknown_object_type_names_the_known_ones(weights: Path) -> None:
    with pytest.raises(ValueError, match="'mammogram' or 'secondary_capture'"):
        VirtualDESObjects(weights, "mg")  # type: ignore[arg-type]
