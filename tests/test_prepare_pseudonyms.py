from __future__ import annotations

import csv
import hashlib
import hmac
import re
from base64 import b32encode
from pathlib import Path

import pytest

from scripts.prepare.pseudonyms import KeyRow, Pseudonyms, normalised, open_private, write_key

SALT = bytes(range(32))


def test_a_pseudonym_is_the_salted_hash_of_the_identifier() -> None:
    expected = b32encode(hmac.new(SALT, b"patient\x00mrn42", hashlib.sha256).digest())[:10].decode()
    assert Pseudonyms(SALT).patient("MRN 42") == f"P-{expected}"
    assert re.fullmatch(r"P-[A-Z2-7]{10}", Pseudonyms(SALT).patient("x"))


def test_the_salt_decides_and_spelling_does_not() -> None:
    names = Pseudonyms(SALT)
    assert len({names.patient(text) for text in ("mrn 42", "MRN  42 ", "\tMrn 42", "mrn42", "MRN\u200b42")}) == 1
    assert names.patient("mrn 42") != names.patient("mrn 43")
    assert names.patient("mrn 42") != Pseudonyms(SALT[::-1]).patient("mrn 42")
    assert normalised("e\u0301") == normalised("\u00c9")


def test_patients_and_files_are_named_apart() -> None:
    names = Pseudonyms(SALT)
    assert re.fullmatch(r"file [0-9a-f]{10}", names.file("a/b"))
    assert names.file("a/b") != names.file("a/B")
    assert names.file("\udcff") != names.file("x")  # a name that is not UTF-8


def test_two_patients_never_share_a_pseudonym(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Pseudonyms(SALT)
    monkeypatch.setattr(names, "_digest", lambda *_: bytes(32))
    names.patient("one")
    names.patient(" ONE")
    with pytest.raises(ValueError, match="two patients would both be called"):
        names.patient("two")


def test_a_private_folder_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder, dataset = tmp_path / "up" / "data.private", tmp_path / "data"
    first = open_private(folder, dataset).patient("x")
    assert open_private(folder, dataset).patient("x") == first
    write_key(folder, [KeyRow("P-A", "patient", "x")])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "salt.txt": 0o600,
        "key.csv": 0o600,
    }
    assert open_private(tmp_path / "other", dataset).patient("x") != first


def test_a_private_folder_that_others_can_open_is_closed_or_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, mode, words in (("empty", 0o700, "now only by its owner"), ("shared", 0o755, "can be opened by others")):
        (tmp_path / name).mkdir(mode=0o755)
        if name == "shared":
            (tmp_path / name / "other").touch()
        open_private(tmp_path / name, tmp_path / "data")
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("inside", ["data", "data/private", "data/../data/x"])
def test_a_private_folder_in_the_dataset_is_refused(inside: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lies in the dataset folder"):
        open_private(tmp_path / inside, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_lost_or_damaged_salt_is_not_replaced(tmp_path: Path) -> None:
    folder, dataset = tmp_path / "private", tmp_path / "data"
    open_private(folder, dataset)
    write_key(folder, [])
    (folder / "salt.txt").write_text("0123")
    with pytest.raises(ValueError, match="is damaged"):
        open_private(folder, dataset)
    (folder / "salt.txt").unlink()
    with pytest.raises(ValueError, match="but no salt"):
        open_private(folder, dataset)


def test_the_key_grows_and_stays_the_same(tmp_path: Path) -> None:
    one, two = KeyRow("P-B", "patient", 'a,"b"\nc'), KeyRow("file 1", "file", "sub/\udcff.dcm")
    first = write_key(tmp_path, [one]).read_bytes()
    assert write_key(tmp_path, [one]).read_bytes() == first
    file = write_key(tmp_path, [two])
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows == [
        ["name", "kind", "stands for"],
        ["P-B", "patient", 'a,"b"\nc'],
        ["file 1", "file", "sub/\udcff.dcm"],
    ]


def test_a_foreign_key_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "key.csv").write_text("house,door\n")
    with pytest.raises(ValueError, match="is not a key that this command wrote"):
        write_key(tmp_path, [])
    assert (tmp_path / "key.csv").read_text() == "house,door\n"


def test_a_short_salt_is_refused() -> None:
    with pytest.raises(ValueError, match="a salt of 2 bytes"):
        Pseudonyms(b"ab")
