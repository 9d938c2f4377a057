from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import RLELossless

from bundle.dicom import Kind
from scripts import prepare_data
from scripts.prepare import conversion, dicom_archive, geometry
from scripts.prepare.geometry import Alignment
from tests.archives.dicom_archive import (
    LABEL_WINDOW,
    PATIENTS,
    Truth,
    place,
    write_archive,
    write_dicomdir,
    write_segmentation,
)
from tests.archives.dicom_files import write_dicom
from tests.archives.phantom import PhantomPair, phantom_pairs


@pytest.fixture(autouse=True, scope="module")
def _only_what_the_importer_hands_over() -> Iterator[None]:
    """The registration of LE and DES, which has tests of its own, leaves all as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(prepare_data.SOURCES, "dicom", dicom_archive)
        patch.setattr(conversion, "align", lambda *_: Alignment(1.0, 0.0, 0.0, 1.0, 1.0, registered=False))
        yield


@dataclass(frozen=True)
class Made:
    """A prepared archive: what went in, what came out, and what was said."""

    truth: Truth
    folder: Path
    status: int
    printed: str

    @property
    def cases(self) -> list[dict[str, Any]]:
        cases: list[dict[str, Any]] = json.loads((self.folder / "datalist.json").read_text())["cases"]
        return cases

    @property
    def key(self) -> list[tuple[str, str]]:
        """Names, and what they stand for."""
        with (self.private / "key.csv").open() as lines:
            return [(row["name"], row["stands for"]) for row in csv.DictReader(lines)]

    @property
    def meanings(self) -> set[str]:
        return {meaning for _, meaning in self.key}

    @property
    def private(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.private")

    def case(self, patient: str, side: str, view: str, number: int = 1) -> dict[str, Any]:
        name = next(name for name, meaning in self.key if meaning == patient)
        file = f"LE/{name}_{side}_{view}{'' if number == 1 else f'_{number}'}.png"
        return next(case for case in self.cases if case["image"] == file)

    def pixels(self, file: str) -> NDArray[Any]:
        return np.asarray(Image.open(self.folder / file))

    def excluded(self) -> dict[str, dict[str, str]]:
        """What was left out, by its path in the archive."""
        key = dict(self.key)
        with (self.folder / "excluded.csv").open() as lines:
            return {key.get(row["file"], row["file"]): row for row in csv.DictReader(lines)}


def prepare(truth: Truth, folder: Path, *words: str, archive: Path | None = None) -> Made:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        command = ["dicom", str(archive or truth.root), "--output", str(folder), "--workers", "1", *words]
        status = prepare_data.main([*command, *(() if "--size" in words else ("--size", "native"))])
    return Made(truth, folder, status, printed.getvalue())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pacs")
    return prepare(write_archive(folder / "archive"), folder / "data", "--folds", "3")


@pytest.fixture
def small(tmp_path: Path) -> Truth:
    """One pair, in files called low and rec."""
    truth = Truth(tmp_path / "archive")
    truth.write_pair(phantom_pairs(4, 64)[0])
    return truth


def test_every_pair_comes_back_exactly_as_it_went_in(made: Made) -> None:
    assert made.status == 3
    assert len(made.cases) == len(made.truth.pairs) == 19
    for place_of_case, expected in made.truth.pairs.items():
        case = made.case(*place_of_case)
        assert (case["laterality"], case["view"]) == place_of_case[1:3]
        assert case["info"]["vendor"] == expected.vendor
        assert case["label_window"] == list(LABEL_WINDOW)
        for key in ("image", "label"):
            assert np.array_equal(made.pixels(case[key]), getattr(expected, key)), (place_of_case, key)


def test_registered_images_on_one_grid_stay_exactly_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "align", geometry.align)
    rows, columns = np.indices((96, 64))
    inside = ((rows - 48) / 40) ** 2 + (columns / 45) ** 2 < 1
    rng = np.random.default_rng(0)
    image, label = (np.where(inside, rng.integers(2000, 4000, inside.shape), 0).astype(np.uint16) for _ in range(2))
    truth = Truth(tmp_path / "archive")
    truth.write_pair(PhantomPair(0, "L", "CC", image, label, inside))
    made = prepare(truth, tmp_path / "data", "--folds", "0")
    assert made.status == 0
    assert np.array_equal(made.pixels(made.cases[0]["image"]), image)
    assert np.array_equal(made.pixels(made.cases[0]["label"]), label)


def test_every_mask_comes_back_exactly_and_there_are_no_others(made: Made) -> None:
    for place_of_case, expected in made.truth.pairs.items():
        case = made.case(*place_of_case)
        for key in ("mask", "label_mask"):
            mask = getattr(expected, key)
            assert (key in case) == (mask is not None), (place_of_case, key)
            assert mask is None or np.array_equal(made.pixels(case[key]) > 0, mask), (place_of_case, key)


def test_every_refusal_is_named_with_its_reason_and_nothing_else_is(made: Made) -> None:
    excluded = made.excluded()
    for needed, files in (("True", made.truth.refused), ("False", made.truth.passed)):
        for file, words in files.items():
            assert words in excluded[file]["reason"], file
            assert excluded[file]["needed"] == needed, file
    assert excluded.keys() - made.truth.refused.keys() - made.truth.passed.keys() == {"4 files"}


def test_nothing_that_was_written_or_said_tells_who_the_patients_are(made: Made) -> None:
    secrets = {secret.encode() for secret in made.truth.secrets}
    assert {b"MRN-77310", b"Doe^MRN-77310", b"Mueller_Anna_0", b"20240102", b"19600101", b"AMRN-77310"} <= secrets
    files = [file for file in made.folder.rglob("*") if file.is_file()]
    contents = {str(file): file.read_bytes() for file in files}
    contents |= {f"pixels of {file}": _unpacked(file.read_bytes()) for file in files if file.suffix == ".png"}
    contents["names"] = "\n".join(str(file.relative_to(made.folder)) for file in files).encode()
    contents["screen"] = made.printed.encode()
    for file, content in contents.items():
        assert [secret for secret in secrets if secret.lower() in content.lower()] == [], file
    assert set(PATIENTS) <= made.meanings


def _unpacked(png: bytes) -> bytes:
    """The pixels of a PNG file, in case one hides a name."""
    return zlib.decompressobj().decompress(png[png.index(b"IDAT") + 4 :])


def test_the_key_is_for_its_owner_alone_and_resolves_what_the_reports_say(made: Made) -> None:
    assert made.private.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in made.private.iterdir()} == {0o600}
    assert {case["patient_id"] for case in made.cases} <= dict(made.key).keys()
    assert f"{place(PATIENTS[0])}/IMLOW000000.dcm" in made.meanings
    assert "key.csv resolves them" in made.printed


def test_facts_that_tell_nothing_are_kept(made: Made) -> None:
    info = made.case(PATIENTS[1], "L", "MLO")["info"]
    expected = {"vendor": "Hologic", "model": "Selenia Dimensions", "kvp": 30.0, "age": 90, "study": 1}
    assert info.keys() - expected.keys() <= {"pixel_mm"}
    assert info | expected == info
    assert made.case(PATIENTS[1], "L", "MLO", 2)["info"]["study"] == 2
    assert made.case(PATIENTS[2], "R", "MLO")["info"]["notes"] == ["view from the recombined image"]
    notes = made.case(PATIENTS[3], "L", "UNKNOWN")["info"]["notes"]
    assert notes[:2] == ["side from the pixels", "no view in either header"]
    assert any("no usable PatientOrientation: the chest wall is seen" in note for note in notes[2:])


def test_running_again_changes_no_byte(made: Made) -> None:
    def digests() -> dict[Path, tuple[str, int]]:
        files = [file for folder in (made.folder, made.private) for file in sorted(folder.rglob("*")) if file.is_file()]
        images = {file: file.stat().st_mtime_ns if file.suffix == ".png" else 0 for file in files}
        return {file: (hashlib.sha256(file.read_bytes()).hexdigest(), images[file]) for file in files}

    before = digests()
    assert prepare(made.truth, made.folder, "--folds", "3").status == 3
    assert digests() == before


def test_a_dicomdir_gives_the_same_pairs_and_names_what_the_medium_lacks(made: Made, tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    directory = write_dicomdir(made.truth.root / place(PATIENTS[1]), medium)
    from_file = prepare(made.truth, tmp_path / "one", "--folds", "0", archive=directory)
    assert from_file.status == 0
    assert len(from_file.cases) == 4
    expected = made.truth.pairs[PATIENTS[1], "R", "CC", 1]
    case = from_file.case(PATIENTS[1], "R", "CC")
    assert np.array_equal(from_file.pixels(case["label"]), expected.label)
    lost = next(file for file in sorted(medium.rglob("*")) if file.is_file() and file != directory)
    lost.unlink()
    for number, archive in enumerate((directory, medium)):
        again = prepare(made.truth, tmp_path / f"again{number}", "--folds", "0", archive=archive)
        assert again.status == 3
        assert len(again.cases) == 3
        row = again.excluded()[lost.relative_to(medium).as_posix()]
        assert row["reason"] == "named in the DICOMDIR, but not there"


def test_lesions_come_from_a_folder_of_masks_and_by_label(small: Truth, tmp_path: Path) -> None:
    low = small.root / "low"
    masks = tmp_path / "masks"
    header = write_dicom(tmp_path / "copy" / "low", phantom_pairs(4, 64)[0].image, patient_id=PATIENTS[0])
    lesion, clip, drawn = (np.zeros((64, 64), dtype=np.bool_) for _ in range(3))
    lesion[5:9, 5:9], clip[30:33, 3:9], drawn[50, 2:9] = True, True, True
    write_segmentation(masks / "seg", header, [lesion, clip], second="Clip")
    Image.fromarray(drawn).save(masks / "rec.png")
    Image.fromarray(drawn).save(masks / "nobody.png")
    assert low.exists()
    words = ("--folds", "0", "--masks", str(masks))
    made = prepare(small, tmp_path / "all", *words)
    assert np.array_equal(made.pixels(made.cases[0]["mask"]) > 0, lesion | clip)
    assert np.array_equal(made.pixels(made.cases[0]["label_mask"]) > 0, drawn)
    assert "fits 0 DICOM files" in made.excluded()["nobody.png"]["reason"]
    chosen = prepare(small, tmp_path / "chosen", *words, "--segment-label", "^lesion")
    assert np.array_equal(chosen.pixels(chosen.cases[0]["mask"]) > 0, lesion)
    none = prepare(small, tmp_path / "none", *words, "--segment-label", "nipple")
    assert "mask" not in none.cases[0]


def test_a_mask_of_another_size_costs_its_pair_and_is_named(small: Truth, tmp_path: Path) -> None:
    Image.fromarray(np.eye(32, dtype=np.bool_)).save(small.root / "low_mask.png")
    made = prepare(small, tmp_path / "data", "--folds", "0")
    assert made.status == 1
    assert "mask: a mask of 32x32 pixels, its image has 64x64" in made.printed
    assert "low_mask" not in made.printed


def test_a_cut_copy_loses_against_the_whole_file(small: Truth, tmp_path: Path) -> None:
    whole = (small.root / "low").read_bytes()
    (small.root / "a").write_bytes(whole[:-1000])
    made = prepare(small, tmp_path / "data", "--folds", "0")
    assert made.status == 0
    assert "a copy of another file" in made.excluded()["a"]["reason"]


def test_a_copy_whose_header_is_cut_off_does_not_count(small: Truth, tmp_path: Path) -> None:
    (small.root / "low.part").write_bytes((small.root / "low").read_bytes()[:900])
    made = prepare(small, tmp_path / "data", "--folds", "0")
    assert (made.status, len(made.cases)) == (0, 1)
    assert "a copy of another file" in made.excluded()["low.part"]["reason"]


def test_a_larger_copy_without_its_end_loses_against_a_whole_one(small: Truth, tmp_path: Path) -> None:
    header = pydicom.dcmread(small.root / "low")
    whole = (small.root / "low").read_bytes()
    header.compress(RLELossless, generate_instance_uid=False)
    header.save_as(small.root / "low")
    (small.root / "cut").write_bytes(whole[:-300])
    assert (small.root / "cut").stat().st_size > (small.root / "low").stat().st_size
    made = prepare(small, tmp_path / "data", "--folds", "0")
    assert (made.status, len(made.cases)) == (0, 1)
    assert np.array_equal(made.pixels(made.cases[0]["image"]), phantom_pairs(4, 64)[0].image)


@pytest.mark.parametrize("other", [{"patient_id": "MRN-2"}, {"acquired": "104500"}])
def test_images_of_two_patients_or_times_with_one_uid_are_no_copies(
    other: dict[str, str], small: Truth, tmp_path: Path
) -> None:
    low = pydicom.dcmread(small.root / "low")
    pair = phantom_pairs(4, 64)[0]
    how: dict[str, Any] = {"patient_id": PATIENTS[0], "laterality": pair.laterality, "view": pair.view} | other
    how |= {"study_uid": low.StudyInstanceUID, "SOPInstanceUID": low.SOPInstanceUID}
    small.write("again", pair.image + 1, **how)
    made = prepare(small, tmp_path / "data", "--folds", "0")
    assert made.status == 1
    for name in ("low", "again"):
        file = next(named for named, meaning in made.key if meaning == name)
        assert f"{file}: low-energy image: 2 different images have its SOPInstanceUID" in made.printed


def test_an_image_of_both_breasts_is_named(small: Truth, tmp_path: Path) -> None:
    pair = phantom_pairs(4, 64)[1]
    small.write_pair(pair, ("low2", "rec2"), laterality="B", PatientOrientation=None, acquired="110000")
    made = prepare(small, tmp_path / "data", "--folds", "0")
    assert (made.status, len(made.cases)) == (3, 1)
    assert made.excluded()["low2"]["reason"] == "low-energy image: shows both breasts"


def test_a_contradiction_in_a_header_is_noted_with_the_case(small: Truth, tmp_path: Path) -> None:
    pair = phantom_pairs(4, 64)[0]
    small.write("low", pair.image, patient_id=PATIENTS[0], laterality=pair.laterality, view=pair.view, KVP=49)
    made = prepare(small, tmp_path / "data", "--folds", "0")
    words = "low-energy image: ImageType value 4 is LOW_ENERGY, although KVP is 49"
    assert made.cases[0]["info"]["notes"] == [words]


def test_times_apart_name_the_option_that_allows_them(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "archive")
    pair = phantom_pairs(4, 64)[0]
    how: dict[str, Any] = {"patient_id": PATIENTS[0], "laterality": pair.laterality, "view": pair.view}
    truth.write("low", pair.image, acquired="101500", **how)
    truth.write("rec", pair.label, acquired="103000", kind=Kind.SUBTRACTED, **how)
    assert "--minutes" in prepare(truth, tmp_path / "data", "--folds", "0").printed
    assert prepare(truth, tmp_path / "data", "--folds", "0", "--minutes", "20").status == 0


def test_segments_of_the_breast_are_no_lesions_and_the_others_are_listed(small: Truth, tmp_path: Path) -> None:
    lesion = np.zeros((64, 64), dtype=np.bool_)
    lesion[5:9, 5:9] = True
    header = pydicom.dcmread(small.root / "low")
    write_segmentation(small.root / "seg", header, [lesion, ~lesion], second="Drawn")
    write_segmentation(small.root / "seg2", header, [lesion, lesion.T], second="Pectoral muscle")
    made = prepare(small, tmp_path / "data", "--folds", "0")
    assert np.array_equal(made.pixels(made.cases[0]["mask"]) > 0, lesion)
    assert "segments taken as lesions: Lesion (2); --segment-label chooses among them" in made.printed
    assert made.excluded()["seg"]["reason"] == "segment 2 covers 100% of the image: no lesion"
    assert made.excluded()["seg2"]["reason"] == "1 segments of normal anatomy"


def test_different_images_of_one_uid_are_all_left_out(small: Truth, tmp_path: Path) -> None:
    pair = phantom_pairs(4, 64)[1]
    uid = write_dicom(tmp_path / "x" / "low", phantom_pairs(4, 64)[0].image, patient_id=PATIENTS[0]).SOPInstanceUID
    small.write_pair(pair, ("low2", "rec2"), acquired="110000", SOPInstanceUID=uid)
    made = prepare(small, tmp_path / "data", "--folds", "0")
    assert made.status == 1
    assert "3 different images have its SOPInstanceUID" in made.printed


def test_without_patient_id_a_study_is_a_patient(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "archive")
    for number, pair in enumerate(phantom_pairs(4, 64)[:2]):
        names = (f"low{number}", f"rec{number}")
        truth.write_pair(pair, names, PatientID="", PatientBirthDate="", study_uid=f"1.2.826.{number}")
    made = prepare(truth, tmp_path / "data", "--folds", "0")
    assert len({case["patient_id"] for case in made.cases}) == 2
    assert made.cases[0]["info"]["notes"] == ["no PatientID: the study counts as a patient"]
    assert {"study 1.2.826.0", "study 1.2.826.1"} <= made.meanings
    assert "WARNING: 2 studies have no PatientID: each counts as a patient of its own" in made.printed


def test_without_patient_id_the_name_and_the_date_of_birth_keep_a_patient_together(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "archive")
    for number, pair in enumerate(phantom_pairs(4, 64)[:2]):
        who = {"PatientID": "Anonymized^", "PatientName": "Mueller^Anna", "study_uid": f"1.2.826.{number}"}
        truth.write_pair(pair, (f"low{number}", f"rec{number}"), **who)
    made = prepare(truth, tmp_path / "data", "--folds", "0")
    assert len({case["patient_id"] for case in made.cases}) == 1
    assert made.cases[0]["info"]["notes"] == ["no PatientID: the patient by name and date of birth"]
    assert "Mueller" not in made.printed
    assert "WARNING" not in made.printed


def test_a_file_without_preamble_is_read(small: Truth, tmp_path: Path) -> None:
    (small.root / "low").write_bytes((small.root / "low").read_bytes()[132:])
    assert prepare(small, tmp_path / "data", "--folds", "0").status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--private", "{data}/key"], "lies in the dataset folder"),
        (["--segment-label", "("], "is not a regular expression"),
        (["--masks", "{data}/absent"], "neither a folder nor a DICOMDIR"),
        (["--masks", "{archive}"], "ARCHIVE and --masks are the same folder"),
        (["--output", "{archive}"], "ARCHIVE and --output are the same folder"),
    ],
)
def test_a_wrong_command_is_explained(words: list[str], message: str, small: Truth, tmp_path: Path) -> None:
    places = {"data": tmp_path / "data", "archive": small.root}
    made = prepare(small, tmp_path / "data", *(word.format(**places) for word in words))
    assert made.status == 2
    assert message in made.printed
    assert not made.folder.exists()


@pytest.mark.parametrize("minutes", ["nan", "-5", "inf", "0", "ten"])
def test_a_time_limit_is_a_number_above_nothing(
    minutes: str, small: Truth, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        prepare_data.main(["dicom", str(small.root), "--output", str(tmp_path / "data"), "--minutes", minutes])
    assert f"'{minutes}' is not a number of minutes above 0" in capsys.readouterr().err


def test_film_mammograms_without_contrast_give_nothing_to_pair(shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "cbis-ddsm-dicom", tmp_path / "archive")
    made = prepare(Truth(tmp_path / "archive"), tmp_path / "data")
    assert made.status == 1
    assert made.printed.count("mammogram: a mammogram without contrast terms") >= 2
    assert "Nothing to pair: 0 low-energy and 0 subtracted images were found" in made.printed
    assert "P_00820" not in made.printed
    assert not (tmp_path / "data" / "datalist.json").exists()
