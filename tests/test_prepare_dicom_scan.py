from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle.reader import ImageFileError
from scripts.prepare import dicom_scan
from scripts.prepare.dicom_patients import identities
from scripts.prepare.dicom_scan import archive_at, scan
from scripts.prepare.dicom_source import DicomSource
from tests.archives.dicom_archive import Truth, write_dicomdir
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

    def who(*patients: tuple[str, str, str]) -> list[str | None]:
        """The identifiers of images with PatientID, issuer and study."""
        given = [
            replace(
                found, patient=patient, issuer=issuer, study=study, exposure=replace(found.exposure, uid=str(index))
            )
            for index, (patient, issuer, study) in enumerate(patients)
        ]
        known = identities(given)
        return [known[one.uid].identifier if one.uid in known else None for one in given]

    assert who(("7", "", "1.1"), ("7", "", "1.2")) == ["7", "7"]
    assert who(("7", "A", "1.1"), ("7", "B", "1.2")) == ["7 of a", "7 of b"]
    assert who(("7", "A", "1.1"), ("7", "", "1.2")) == ["7 of a", "7 of a"]
    assert who(("7", "A", "1.1"), ("7", "B", "1.2"), ("7", "", "1.3")) == ["7", "7", "7"]
    assert who(("7", "", "1.1"), ("", "", "1.1"), (" ANONYMOUS", "", "1.2")) == ["7", "7", "study 1.2"]
    assert who(("7", "", "1.1"), ("8", "", "1.1"), ("", "", "1.1"), ("", "", "")) == ["7", "8", None, None]


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
