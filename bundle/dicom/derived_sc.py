"""A virtual DES as Secondary Capture, through highdicom: for sources that are no digital mammograms, and on request."""

from __future__ import annotations

import warnings

import highdicom
import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID

from bundle.dicom.derived import SOFTWARE, carried, copy_present
from bundle.dicom.header import number, text
from bundle.dicom.identity import Side
from bundle.dicom.spacing import spacing_of

__all__ = ["secondary_capture_of"]

_TOP = 65535
_CARRIED = (
    "TimezoneOffsetFromUTC",
    "IssuerOfPatientID",
    "PatientAge",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "StudyDescription",
    "AcquisitionDate",
    "AcquisitionTime",
)


def secondary_capture_of(
    pixels: NDArray[np.float32],
    source: Dataset,
    laterality: Side,
    orientation: tuple[str, str],
    series: tuple[UID, int],
    instance: UID,
) -> Dataset:
    """A Secondary Capture object without what all virtual DES objects share.

    Args:
        pixels: (H, W) in [0, 1]; stored with 16 bits.
        source: header of the low-energy image.
        laterality: ``L`` or ``R``.
        orientation: where the rows and where the columns lead.
        series: its SeriesInstanceUID and SeriesNumber.
        instance: its SOPInstanceUID.

    References:
        DICOM PS3.3 A.8.1 (IOD).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote the patient's name
        made: Dataset = SCImage(
            pixel_array=np.rint(pixels * _TOP).astype(np.uint16),
            photometric_interpretation="MONOCHROME2",
            bits_allocated=16,
            coordinate_system=highdicom.CoordinateSystemNames.PATIENT,
            study_instance_uid=source.StudyInstanceUID,
            series_instance_uid=series[0],
            series_number=series[1],
            sop_instance_uid=instance,
            instance_number=max(1, int(number(source, "InstanceNumber") or 1)),
            manufacturer=SOFTWARE,
            patient_id=carried(source, "PatientID"),
            patient_name=carried(source, "PatientName"),
            patient_birth_date=carried(source, "PatientBirthDate"),
            patient_sex=text(source, "PatientSex") if text(source, "PatientSex") in ("M", "F", "O") else None,
            accession_number=carried(source, "AccessionNumber"),
            study_id=carried(source, "StudyID"),
            study_date=carried(source, "StudyDate"),
            study_time=carried(source, "StudyTime"),
            referring_physician_name=carried(source, "ReferringPhysicianName"),
            pixel_spacing=spacing_of(source),
            laterality=laterality,
            patient_orientation=orientation,
        )
    copy_present(_CARRIED, source, made)
    made.BodyPartExamined = "BREAST"
    made.WindowCenter, made.WindowWidth = (_TOP + 1) // 2, _TOP + 1
    return made
