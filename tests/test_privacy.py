"""Nothing that tells who a patient is leaves an archive, from preparation to the report; inference keeps what it must.

Every identifying attribute of every DICOM file holds a marker of its own. Everything that is written or printed is
searched for all of them, in several encodings, also inside archives and compressed files.
"""

from __future__ import annotations

import base64
import gzip
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.sequence import Sequence

from bundle.dicom import Kind
from scripts import check_data, prepare_data, report
from tests.archives.dicom_files import write_dicom
from tests.archives.phantom import phantom_pairs
from tests.conftest import TINY
from tests.workflow import command, run, train_options

PATIENTS = 4
NAMES: tuple[str, ...] = (
    "PatientName",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "PhysiciansOfRecord",
)
NAMES += ("RequestingPhysician", "NameOfPhysiciansReadingStudy", "PatientBirthName", "PatientMotherBirthName")
NAMES += ("OtherPatientNames", "ResponsiblePerson", "ConsultingPhysicianName")
TEXTS: tuple[str, ...] = (
    "PatientID",
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "Occupation",
)
TEXTS += (
    "PatientComments",
    "EthnicGroup",
    "MilitaryRank",
    "AdditionalPatientHistory",
    "Allergies",
    "MedicalRecordLocator",
)
TEXTS += ("InsurancePlanIdentification", "CountryOfResidence", "RegionOfResidence", "AccessionNumber", "StudyID")
TEXTS += ("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber")
TEXTS += ("StudyDescription", "ImageComments", "AdmittingDiagnosesDescription", "RequestedProcedureDescription")
TEXTS += (
    "PerformedProcedureStepDescription",
    "PerformedProcedureStepID",
    "RequestedProcedureID",
    "CurrentPatientLocation",
)
TEXTS += ("DetectorID", "GantryID", "PlateID", "ScheduledProcedureStepID", "ProtocolName", "DerivationDescription")
DATES: tuple[str, ...] = (
    "PatientBirthDate",
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "InstanceCreationDate",
)
DATES += (
    "PerformedProcedureStepStartDate",
    "DateOfLastCalibration",
    "LastMenstrualDate",
    "ScheduledProcedureStepStartDate",
)
TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "InstanceCreationTime", "PatientBirthTime")
UIDS: tuple[str, ...] = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "IrradiationEventUID",
)
UIDS += ("SynchronizationFrameOfReferenceUID", "DeviceUID")

#: What a virtual DES in DICOM says of its source. Patient and study: it belongs into the same study of the same patient
#: (PS3.3 C.7.1, C.7.2). The time of the exposure, the frame of reference and the equipment: the derived image lies on
#: the grid of the exposure and must name where that comes from (C.7.5, C.12.1 ContributingEquipmentSequence). The
#: instance: it refers to its source (C.7.6.1 SourceImageSequence).
CARRIED = {"PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "ReferringPhysicianName", "StudyID"}
CARRIED |= {"AccessionNumber", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyDescription", "FrameOfReferenceUID"}
CARRIED |= {"AcquisitionDate", "AcquisitionTime", "SOPInstanceUID"}
CARRIED |= {"InstitutionName", "StationName", "DeviceSerialNumber"}
#: Results are called as their sources, so that a person finds them; whoever has them has the objects anyway.
PLACE = "folder or file"


@dataclass(frozen=True)
class Archive:
    """The archive, and each marker with the attribute it stands in."""

    root: Path
    markers: Mapping[str, str]


def _uid(number: int, place: int) -> str:
    return f"1.2.826.0.1.3680043.77{number:02d}{place:02d}.918273645"


def _tagged(number: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Attributes of one file, and marker -> attribute."""
    found: dict[str, Any] = {}
    markers: dict[str, str] = {}
    for place, keyword in enumerate(NAMES):
        family, given = f"Qzfam{number:02d}{place:02d}", f"Qzgiv{number:02d}{place:02d}"
        found[keyword] = f"{family}^{given}"
        markers |= {family: keyword, given: keyword}
    for place, keyword in enumerate(TEXTS):
        found[keyword] = f"QZT{number:02d}{place:02d}X"
        markers[found[keyword]] = keyword
    for place, keyword in enumerate(DATES):
        day = date(1931 + place, 1 + number % 12, 11 + place)
        found[keyword] = f"{day:%Y%m%d}"
        markers |= dict.fromkeys((f"{day:%Y%m%d}", f"{day:%Y-%m-%d}", f"{day:%d.%m.%Y}", f"{day:%Y/%m/%d}"), keyword)
    for place, keyword in enumerate(TIMES):
        found[keyword] = f"03{40 + place}{number % 60:02d}.718{place}{number:02d}"
        markers[found[keyword]] = keyword
    for place, keyword in enumerate(UIDS):
        found[keyword] = _uid(number, place)
        markers[found[keyword]] = keyword
    return found, markers


def _private(markers: dict[str, str], number: int) -> dict[str, Any]:
    """Further places: private elements, and items of sequences."""
    item = Dataset()
    item.RequestedProcedureDescription, item.ScheduledPerformingPhysicianName = (
        f"QZSEQ{number:02d}A",
        f"QZSEQ{number:02d}B",
    )
    markers |= dict.fromkeys((f"QZSEQ{number:02d}A", f"QZSEQ{number:02d}B"), "RequestAttributesSequence")
    return {"RequestAttributesSequence": Sequence([item])}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    root = tmp_path_factory.mktemp("pacs")
    markers: dict[str, str] = {}
    number = 0
    for pair in phantom_pairs(PATIENTS, 64)[::2]:  # the CC views of both breasts
        patient = _tagged(50 + pair.patient)[0]
        same = {
            name: patient[name]
            for name in (
                "PatientName",
                "PatientID",
                "PatientBirthDate",
                "StudyInstanceUID",
                "StudyDate",
                "AcquisitionDate",
                "ContentDate",
                "AcquisitionTime",
                "ContentTime",
                "IssuerOfPatientID",
                "IrradiationEventUID",
            )
        }
        markers |= {text: keyword for text, keyword in _tagged(50 + pair.patient)[1].items() if keyword in same}
        folder = f"Qzfolder{pair.patient}_Anna"
        for kind, values in ((Kind.LOW_ENERGY, pair.image), (Kind.SUBTRACTED, pair.label)):
            own, its = _tagged(number)
            markers |= {text: keyword for text, keyword in its.items() if keyword not in same} | {folder: PLACE}
            name = f"Qzfile{number:02d}_{'rec' if kind is Kind.SUBTRACTED else 'low'}"
            markers[name] = PLACE
            more = _private(markers, number)
            how = {"laterality": pair.laterality, "view": pair.view, "kind": kind, "style": "hologic"}
            path = root / folder / f"{name}.dcm"
            write_dicom(path, values, **{**how, **own, **same, **more})
            header = pydicom.dcmread(path)
            block = header.private_block(0x0009, f"QZCREATOR{number:02d}", create=True)
            block.add_new(1, "LO", f"QZPRIVATE{number:02d}")
            markers |= dict.fromkeys((f"QZCREATOR{number:02d}", f"QZPRIVATE{number:02d}"), "private")
            header.save_as(path)
            number += 1
    damaged = next(root.rglob("Qzfile01*"))
    damaged.write_bytes(damaged.read_bytes()[:-3000])  # so that something is said about it
    return Archive(root, markers)


def _encodings(marker: str) -> Iterator[bytes]:
    text = marker.lower()
    yield text.encode()
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")


def _in_base64(marker: str) -> list[bytes]:
    """The part of the marker that is the same in base64 wherever it stands."""
    parts = [base64.b64encode(b"\0" * shift + marker.encode()) for shift in range(3)]
    return [part[4 if shift else 0 : -4] for shift, part in enumerate(parts) if len(part) > 12]


def _contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and of what is in it."""
    content = path.read_bytes()
    yield content
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            for entry in parts.infolist():
                yield entry.filename.encode() + parts.read(entry)
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    if content[:4] == b"\x89PNG":
        with Image.open(path) as image:
            yield repr(image.info).encode()


def _found(contents: Iterator[bytes], markers: Mapping[str, str]) -> dict[str, str]:
    """The markers in the contents, with their attributes."""
    wanted = {form: marker for marker in markers for form in _encodings(marker)}
    pattern = re.compile(b"|".join(map(re.escape, sorted(wanted, key=len, reverse=True))))
    exact = {form: marker for marker in markers for form in _in_base64(marker)}
    coded = re.compile(b"|".join(map(re.escape, exact)))
    found: dict[str, str] = {}
    for content in contents:
        for match in pattern.findall(content.lower()):
            found[wanted[match]] = markers[wanted[match]]
        for match in coded.findall(content):
            found[exact[match]] = markers[exact[match]]
    return found


def leaks(folder: Path, markers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """File -> markers in it or in its name."""
    files = {
        path: [*_contents(path), str(path.relative_to(folder)).encode()] for path in folder.rglob("*") if path.is_file()
    }
    found = {str(path.relative_to(folder)): _found(iter(contents), markers) for path, contents in files.items()}
    return {name: one for name, one in found.items() if one}


def test_the_search_finds_markers_wherever_they_hide(archive: Archive, tmp_path: Path) -> None:
    marker = "QZT0000X"
    (tmp_path / "text").write_text(f"a {marker.lower()} b")
    (tmp_path / "wide").write_bytes(marker.encode("utf-16-le"))
    (tmp_path / "coded").write_bytes(base64.b64encode(b"xy" + marker.encode() + b"z" * 9))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(marker.encode()))
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("x", marker * 9)
    (tmp_path / marker).write_bytes(b"")
    names = {"text", "wide", "coded", "packed.gz", "a.pt", marker}
    assert set(leaks(tmp_path, {marker: "PatientID"})) == names
    known = {keyword for one in leaks(archive.root, archive.markers).values() for keyword in one.values()}
    assert known == set(archive.markers.values())


@pytest.mark.slow
def test_no_output_from_preparation_to_the_report_tells_who_a_patient_is(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made, data, out = tmp_path / "made", tmp_path / "made" / "data", tmp_path / "made" / "run"
    monkeypatch.setenv("XDG_CACHE_HOME", str(made / "cache"))
    line = ["dicom", str(archive.root), "--output", str(data), "--private", str(tmp_path / "private"), "--size", "32"]
    assert prepare_data.main([*line, "--folds", "3", "--workers", "1"]) == 3  # one file is damaged
    assert check_data.main([str(data)]) == 0
    printed = [*capfd.readouterr()]
    options = train_options(data, out, max_epochs=1)
    for run_id, configs in (("training", ["train.json"]), ("evaluating", ["train.json", "evaluate.json"])):
        done = run(*command(run_id, *configs, **options))
        assert done.returncode == 0, done.stderr[-2000:]
        printed += [done.stdout, done.stderr]
    assert report.main([str(out), "-o", str(made / "report.html")]) == 0
    printed += [*capfd.readouterr()]
    assert list(out.rglob("events.out.tfevents*"))
    assert (out / "run.json").is_file()
    assert leaks(made, archive.markers) == {}
    told = _found(iter([text.replace(str(archive.root), "").encode() for text in printed]), archive.markers)
    assert told == {}
    # the key, which resolves the pseudonyms, is what the person in charge keeps: apart, and for nobody else
    assert leaks(tmp_path / "private", archive.markers).keys() == {"key.csv"}
    assert (tmp_path / "private").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_inference_carries_patient_and_study_into_its_objects_and_nothing_else(
    archive: Archive, tmp_path: Path
) -> None:
    import torch

    from bundle.networks import ResnetGenerator

    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), tmp_path / "model.pt")
    kept = {name: TINY[name] for name in ("image_size", "network_def#width", "network_def#blocks")}
    paths = {"dataset_dir": archive.root, "output_dir": tmp_path / "virtual", "model_path": tmp_path / "model.pt"}
    done = run(*command("run", "inference.json", **kept, **paths))
    found = leaks(tmp_path / "virtual", archive.markers)
    objects = {name: set(one.values()) for name, one in found.items() if name.endswith(".dcm")}
    assert len(objects) == 2 * PATIENTS
    assert {
        name: keywords - CARRIED - {PLACE} for name, keywords in objects.items() if keywords - CARRIED - {PLACE}
    } == {}
    assert "PatientName" in set().union(*objects.values())
    others = {name: set(one.values()) for name, one in found.items() if not name.endswith(".dcm")}
    assert others == {"report.csv": {PLACE}}
    told = _found(iter([(done.stdout + done.stderr).replace(str(archive.root), "").encode()]), archive.markers)
    assert set(told.values()) <= {PLACE}
