from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.reader import ImageFileError
from scripts.prepare import dicom_scan
from scripts.prepare.dicom_patients import identities
from scripts.prepare.dicom_scan import archive_at, scan
from scripts.prepare.dicom_source import DicomSource
from tests.archives.dicom_archive import Truth, write_dicomdir
from tests.archives.dicom_files import write_dicom
from tests.archives.phantom import phantom_pairs


@pytest.fixture
def small(tmp_path: Path) -> Truth:
    """One pair, in files called low and rec."""
    truth = Truth(tmp_path / "archive")
    truth.write_pair(phantom_pairs(4, 64)[0])
    return truth


def test_a_medium_with_small_letters_and_a_wrong_dicomdir(small: Truth, tmp_path: Path) -> None:
    directory = write_dicomdir(small.root, tmp_path / "medium")
    for folder in sorted((path for path in (tmp_path / "medium").rglob("*") if path != directory), reverse=True):
        folder.rename(folder.with_name(folder.name.lower()))
    assert len(archive_at(directory).files) == 2
    with pytest.raises(ValueError, match="neither a folder nor a DICOMDIR"):
        archive_at(small.root / "low")


def test_a_side_that_only_the_partner_knows_turns_the_image(small: Truth) -> None:
    pair = phantom_pairs(4, 64)[0]
    keywords = ("ImageLaterality", "PatientOrientation", "SeriesDescription", "ViewCodeSequence", "ViewPosition")
    small.write("turned", pair.image[:, ::-1], **dict.fromkeys(keywords))
    read = DicomSource(small.root / "turned", "file 1", "L").read()
    assert read.mirrored
    assert np.array_equal(read.values[:, ::-1], pair.image)
    assert not DicomSource(small.root / "turned", "file 1").read().mirrored


def test_an_unreadable_image_is_named_by_its_label_alone(small: Truth) -> None:
    path = small.root / "low"
    path.write_bytes(path.read_bytes()[:-5000])
    for missing in (False, True):
        if missing:
            path.unlink()
        with pytest.raises(ImageFileError) as caught:
            DicomSource(path, "file 1").read()
        assert str(caught.value).startswith("file 1: ")
        assert [secret for secret in (*small.secrets, str(small.root)) if secret in str(caught.value)] == []


def test_patients_are_told_apart_as_far_as_it_is_safe(small: Truth) -> None:
    found = scan(archive_at(small.root), progress=False).instances[0]

    nobody = replace(found, name="", birth="")

    def who(*patients: tuple[str, str, str]) -> list[str | None]:
        """The identifiers of images with PatientID, issuer and study."""
        given = [
            replace(
                nobody, patient=patient, issuer=issuer, study=study, exposure=replace(found.exposure, uid=str(index))
            )
            for index, (patient, issuer, study) in enumerate(patients)
        ]
        known = identities(given)
        return [known[one.uid].identifier if one.uid in known else None for one in given]

    assert who(("7", "", "1.1"), ("7", "", "1.2")) == ["7", "7"]
    assert who(("7", "A", "1.1"), ("7", "B", "1.2")) == ["7 of a", "7 of b"]
    assert who(("7", "A", "1.1")) == who(("7", "", "1.1")) == ["7"]
    assert who(("7", "A", "1.1"), ("7", "", "1.2")) == ["7", "7"]
    assert who(("7", "A", "1.1"), ("7", "B", "1.2"), ("7", "", "1.3")) == ["7", "7", "7"]
    assert who(("7", "", "1.1"), ("", "", "1.1"), (" ANONYMOUS", "", "1.2")) == ["7", "7", "study 1.2"]
    assert who(("7", "", "1.1"), ("8", "", "1.1"), ("", "", "1.1"), ("", "", "")) == ["7", "8", None, None]


def test_without_patient_id_name_and_date_of_birth_tell_the_patient(small: Truth) -> None:
    found = scan(archive_at(small.root), progress=False).instances[0]

    def who(*patients: tuple[str, str, str]) -> list[str]:
        """The identifiers of images with PatientID, name and date of birth, each of its own study."""
        given = [
            replace(
                found,
                patient=patient,
                name=name,
                birth=birth,
                study=str(n),
                exposure=replace(found.exposure, uid=str(n)),
            )
            for n, (patient, name, birth) in enumerate(patients)
        ]
        known = identities(given)
        return [known[one.uid].identifier for one in given]

    anna, same = ("", "Mueller^Anna", "19600203"), "name muelleranna born 19600203"
    assert who(anna, ("00000000", "MUELLER, Anna", "1960-02-03")) == [same, same]
    assert who(anna, ("Anonymized^", "Mueller^Eva", "19600203")) == [same, "name muellereva born 19600203"]
    assert who(anna, ("7", *anna[1:])) == ["7", "7"]
    for name, birth in (("", "19600203"), ("Anonymous^F", "19600203"), ("Mueller^Anna", ""), ("X^X", "19600203")):
        assert who(("", name, birth), ("", name, birth)) == ["study 0", "study 1"]
    assert who(("", "Mueller^Anna", "19000101")) == ["study 0"]


def test_a_copy_is_read_where_the_largest_is_damaged(small: Truth) -> None:
    (small.root / "larger").write_bytes((small.root / "low").read_bytes()[:-300])
    read = DicomSource(small.root / "larger", "file 1", copies=(small.root / "low",)).read()
    assert np.array_equal(read.values, phantom_pairs(4, 64)[0].image)
    assert "another copy of the file was read: the largest is damaged" in read.notes
    with pytest.raises(ImageFileError, match="file 1: "):
        DicomSource(small.root / "larger", "file 1", copies=(small.root / "absent",)).read()


def test_both_images_of_a_pair_lie_the_way_the_low_energy_one_does(small: Truth) -> None:
    """The subtracted image looks mirrored; without PatientOrientation, both are told from the low-energy image."""
    pair = phantom_pairs(4, 64)[0]
    for same, orientations in ((True, [None, None]), (False, [["A", "R"], None]), (False, [["A", "R"], ["P", "R"]])):
        for name, values, orientation in zip(("a", "b"), (pair.image, pair.label[:, ::-1]), orientations, strict=True):
            small.write(name, values, laterality="L", view="CC", PatientOrientation=orientation)
        low = DicomSource(small.root / "a", "file 1", "L")
        assert DicomSource(small.root / "b", "file 2", "L").read().mirrored
        label = DicomSource(small.root / "b", "file 2", "L", partner=low).read()
        assert label.mirrored == (not same)
        assert ("turned as the low-energy image is" in label.notes) == same
        assert not low.read().mirrored


def test_the_notes_of_reading_come_with_the_pixels(small: Truth) -> None:
    small.write("odd", phantom_pairs(4, 64)[0].image, PatientOrientation=None, RescaleSlope=0)
    notes = DicomSource(small.root / "odd", "file 1").read().notes
    assert notes[0] == "RescaleSlope is 0: ignored"
    assert notes[1].startswith("no usable PatientOrientation")


@pytest.mark.parametrize("name", ["pipe", "DICOMDIR", "low_mask.png"])
def test_a_pipe_is_named_and_never_opened(name: str, small: Truth) -> None:
    os.mkfifo(small.root / name)
    found = scan(archive_at(small.root), progress=False)
    assert [(one.path.name, one.problem) for one in found.broken] == [(name, "a pipe or a device, expected a file")]
    assert len(found.instances) == 2


def test_times_without_dates_are_kept_on_one_day(small: Truth) -> None:
    dates: dict[str, Any] = dict.fromkeys(("StudyDate", "AcquisitionDate", "ContentDate"))
    write_dicom(small.root / "dateless", phantom_pairs(4, 64)[0].image, acquired="235800", **dates)
    (found,) = (one for one in scan(archive_at(small.root), progress=False).instances if one.path.name == "dateless")
    assert str(found.exposure.acquired) == str(found.taken) == "9999-12-31 23:58:00"


def test_links_to_folders_are_followed_once_and_the_output_is_no_source(small: Truth) -> None:
    (small.root / "sub").mkdir()
    (small.root / "sub/loop").symlink_to(small.root, target_is_directory=True)
    (small.root / "out").mkdir()
    (small.root / "out/more.dcm").write_bytes(b"")
    archive = archive_at(small.root, [small.root / "out"])
    assert [archive.relative(file) for file in archive.files] == ["low", "rec"]


def test_many_files_are_read_in_processes_with_the_same_result(
    small: Truth, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (small.root / "broken.dcm").write_bytes((small.root / "low").read_bytes()[:170])
    archive = archive_at(small.root)
    alone = scan(archive, 1, progress=False)
    monkeypatch.setattr(dicom_scan, "_MANY", 1)
    assert scan(archive, 2, progress=False) == alone
    assert capfd.readouterr() == ("", "")
