from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from bundle.dicom import Kind, kind_of
from tests.archives.dicom_files import TAGS, Style, write_dicom

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")  # carelessly written on purpose
MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.1.2"
ENERGIES = (Kind.LOW_ENERGY, Kind.SUBTRACTED, Kind.HIGH_ENERGY)


def header(image_type: str = r"ORIGINAL\PRIMARY", **attributes: Any) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.Modality, dataset.Rows, dataset.Columns = MAMMOGRAPHY, "MG", 8, 8
    dataset.ImageType = image_type.split("\\")
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("style", TAGS)
@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_every_vendor_is_recognised_from_a_file(kind: Kind, style: Style, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16), kind=kind, style=style)
    found, reason = kind_of(pydicom.dcmread(tmp_path / "a.dcm", stop_before_pixels=True))
    assert found is kind
    assert reason


IMAGE_TYPES = {
    # DICOM PS3.3 C.8.11.7.1.4: contrast in value 3, operation in value 4, energy in value 5
    r"ORIGINAL\PRIMARY\PRE_CONTRAST\\LOW_ENERGY": Kind.LOW_ENERGY,
    r"ORIGINAL\PRIMARY\POST_CONTRAST\\HIGH_ENERGY": Kind.HIGH_ENERGY,
    r"DERIVED\PRIMARY\POST_CONTRAST\SUBTRACTION": Kind.SUBTRACTED,
    # GE: the terms in value 4
    r"ORIGINAL\PRIMARY\\LOW_ENERGY": Kind.LOW_ENERGY,
    r"DERIVED\PRIMARY\\RECOMBINED": Kind.SUBTRACTED,
    # elsewhere, and written carelessly
    r"DERIVED\PRIMARY\LOW_ENERGY": Kind.LOW_ENERGY,
    r"derived\primary\\\ Low energy ": Kind.LOW_ENERGY,
    r"DERIVED\PRIMARY\\low-energy": Kind.LOW_ENERGY,
    r"DERIVED\PRIMARY\POST_CONTRAST\SUBTRACTED\\\\\50000": Kind.SUBTRACTED,
    r"ORIGINAL\PRIMARY": Kind.MAMMOGRAM,
    r"DERIVED\PRIMARY\\\\\\\150000": Kind.MAMMOGRAM,
    r"ORIGINAL\PRIMARY\POST_PROCESSED": Kind.MAMMOGRAM,
    r"DERIVED\PRIMARY\TOMO\GENERATED_2D\\\\\150000": Kind.TOMOSYNTHESIS,
    r"DERIVED\PRIMARY\TOMOSYNTHESIS\GENERATED_2D": Kind.TOMOSYNTHESIS,
    r"DERIVED\PRIMARY\TOMO_2D\LEFT": Kind.TOMOSYNTHESIS,
    r"ORIGINAL\PRIMARY\TOMO_PROJ\RIGHT": Kind.TOMOSYNTHESIS,
    r"ORIGINAL\PRIMARY\STEREO_MINUS": Kind.STEREO,
    r"ORIGINAL\PRIMARY\POSTFIRE_PLUS": Kind.STEREO,
    r"ORIGINAL\PRIMARY\POSTMARKER": Kind.STEREO,
    r"DERIVED\SECONDARY\\\\VIRTUAL_DES": Kind.OTHER,
}


@pytest.mark.parametrize("image_type", IMAGE_TYPES)
def test_the_terms_of_image_type_count_wherever_they_stand(image_type: str) -> None:
    found, reason = kind_of(header(image_type))
    assert found is IMAGE_TYPES[image_type]
    assert found is Kind.MAMMOGRAM or "ImageType value" in reason


DESCRIBED: list[tuple[dict[str, Any], Kind, str]] = [
    ({"AcquisitionDeviceProcessingCode": "GEMS_CESM_1"}, Kind.SUBTRACTED, "GEMS_CESM_1"),
    ({"AcquisitionDeviceProcessingCode": "GEMS_FFDM_PV"}, Kind.MAMMOGRAM, "without contrast"),
    ({"AcquisitionDeviceProcessingDescription": "Recombined image"}, Kind.SUBTRACTED, "Description names RECOMB"),
    ({"SeriesDescription": "L MLO low energy"}, Kind.LOW_ENERGY, "SeriesDescription names LOW ENERGY"),
    ({"SeriesDescription": "RCC_LOW_ENERGY"}, Kind.LOW_ENERGY, "LOW ENERGY"),
    ({"SeriesDescription": "R CC CEDM Subtracted"}, Kind.SUBTRACTED, "SUBTRACT"),
    ({"ProtocolName": "TiCEM high-energy"}, Kind.HIGH_ENERGY, "ProtocolName"),
    ({"SeriesDescription": "L CC LE", "ProtocolName": "CESM"}, Kind.LOW_ENERGY, "LE"),
    ({"SeriesDescription": "LE L CC", "ProtocolName": "CESM"}, Kind.LOW_ENERGY, "LE"),
    ({"SeriesDescription": "L CC REC TiCEM"}, Kind.SUBTRACTED, "REC"),
    ({"SeriesDescription": "L CC LE", "KVP": 28}, Kind.MAMMOGRAM, "without contrast"),
    ({"SeriesDescription": "REC L CC", "KVP": 28}, Kind.MAMMOGRAM, "without contrast"),
    ({"SeriesDescription": "L CC sub areolar", "KVP": 28}, Kind.MAMMOGRAM, "without contrast"),
    ({"SeriesDescription": "L CC sub areolar", "ProtocolName": "CEM", "KVP": 28}, Kind.LOW_ENERGY, "KVP is 28"),
    ({"SeriesDescription": "CC des seins", "ProtocolName": "CEM", "KVP": 28}, Kind.LOW_ENERGY, "KVP is 28"),
    ({"SeriesDescription": "L CC CEM", "ImageComments": "subtract it", "KVP": 28}, Kind.LOW_ENERGY, "KVP is 28"),
    ({"SeriesDescription": "L CC", "ImageComments": "not subtracted", "KVP": 28}, Kind.MAMMOGRAM, "without"),
    ({"SeriesDescription": "L CC CEM", "ImageComments": "low energy"}, Kind.LOW_ENERGY, "ImageComments names"),
    ({"SeriesDescription": "CEM low and high energy", "KVP": 28}, Kind.LOW_ENERGY, "CEM and KVP is 28"),
    ({"SeriesDescription": "CEM High/Low energy", "KVP": 49}, Kind.HIGH_ENERGY, "KVP is 49"),
    ({"SeriesDescription": "CEM low and high energy"}, Kind.OTHER, "nothing says which energy"),
    ({"SeriesDescription": "CEM low energy", "KVP": 49}, Kind.HIGH_ENERGY, "KVP is 49, although SeriesDescription"),
    ({"SeriesDescription": "low energy", "KVP": 41}, Kind.LOW_ENERGY, "LOW ENERGY"),
    ({"SeriesDescription": "CEM high energy", "KVP": 28}, Kind.OTHER, "contradictory: SeriesDescription names HIGH"),
    ({"SeriesDescription": "CESM RMLO DES"}, Kind.SUBTRACTED, "DES"),
    ({"SeriesDescription": "Mammographie des seins, le 3 mai"}, Kind.MAMMOGRAM, "without contrast"),
    ({"SeriesDescription": "Subtracted from low energy and high energy"}, Kind.SUBTRACTED, "SUBTRACT"),
    ({"SeriesDescription": "L CC C-View"}, Kind.TOMOSYNTHESIS, "synthesized"),
    ({"SeriesDescription": "V-Preview"}, Kind.TOMOSYNTHESIS, "synthesized"),
    ({"SeriesDescription": "SenoBright HD", "KVP": 28}, Kind.LOW_ENERGY, "SENOBRIGHT and KVP is 28"),
    ({"SeriesDescription": "L CC I-View", "KVP": 49}, Kind.HIGH_ENERGY, "KVP is 49"),
    ({"SeriesDescription": "L CC I-View"}, Kind.OTHER, "nothing says which energy"),
    ({"SeriesDescription": "I-View", "KVP": 29, "image_type": r"DERIVED\PRIMARY"}, Kind.OTHER, "which energy"),
    ({"KVP": 29, "image_type": r"DERIVED\PRIMARY\POST_CONTRAST"}, Kind.LOW_ENERGY, "POST_CONTRAST and KVP is 29"),
    ({"KVP": 47}, Kind.HIGH_ENERGY, "KVP is 47"),
    ({"KVP": 31}, Kind.MAMMOGRAM, "without contrast"),
    ({"PresentationIntentType": "FOR PROCESSING"}, Kind.FOR_PROCESSING, "PresentationIntentType"),
    ({"NumberOfFrames": 60}, Kind.TOMOSYNTHESIS, "60 frames"),
    ({"Modality": "MG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Kind.MAMMOGRAM, "without contrast"),
    ({"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"}, Kind.OTHER, "Modality is CR, expected MG"),
    ({"Modality": "US", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, Kind.OTHER, "Modality is US"),
    ({"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.50"}, Kind.OTHER, "Modality is SR"),
    ({"Modality": "PR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1"}, Kind.OTHER, "Modality is PR"),
    ({"SOPClassUID": "1.2.840.10008.1.3.10"}, Kind.OTHER, "DICOMDIR"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.13.1.4"}, Kind.TOMOSYNTHESIS, "Breast Projection"),
]


@pytest.mark.parametrize(("attributes", "kind", "reason"), DESCRIBED, ids=lambda value: str(value)[:60])
def test_without_a_term_in_image_type_other_attributes_decide(
    attributes: dict[str, Any], kind: Kind, reason: str
) -> None:
    found, why = kind_of(header(**attributes))
    assert (found, reason in why) == (kind, True), why


CONTRADICTIONS: list[tuple[dict[str, Any], Kind, str]] = [
    ({"image_type": r"ORIGINAL\PRIMARY\\LOW_ENERGY", "KVP": 49}, Kind.LOW_ENERGY, "although KVP is 49"),
    (
        {"image_type": r"ORIGINAL\PRIMARY\\LOW_ENERGY", "AcquisitionDeviceProcessingCode": "GEMS_CESM_1"},
        Kind.LOW_ENERGY,
        "although AcquisitionDeviceProcessingCode is GEMS_CESM_1",
    ),
    ({"image_type": r"D\P\POST_CONTRAST\SUBTRACTION\LOW_ENERGY"}, Kind.OTHER, "contradictory"),
    ({"image_type": r"O\P\\HIGH_ENERGY", "KVP": 28}, Kind.HIGH_ENERGY, "although KVP is 28"),
    ({"image_type": r"O\P\\RECOMBINED", "SeriesDescription": "low energy"}, Kind.SUBTRACTED, "although SeriesDesc"),
]


@pytest.mark.parametrize(("attributes", "kind", "reason"), CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_contradictions_are_part_of_the_reason(attributes: dict[str, Any], kind: Kind, reason: str) -> None:
    found, why = kind_of(header(**attributes))
    assert (found, reason in why) == (kind, True), why


def test_an_empty_header_is_no_mammogram_and_no_error() -> None:
    assert kind_of(Dataset()) == (Kind.OTHER, "Modality is missing, expected MG")
    dataset = header()
    del dataset.Rows
    assert kind_of(dataset)[0] is Kind.OTHER


def test_film_in_a_secondary_capture_is_a_mammogram(shared_data: Path) -> None:
    for file in sorted((shared_data / "cbis-ddsm-dicom").glob("*.dcm")):
        assert kind_of(pydicom.dcmread(file, stop_before_pixels=True))[0] is Kind.MAMMOGRAM
