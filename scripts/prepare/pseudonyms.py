"""Names that tell nothing about a patient, and the private folder with which the person in charge resolves them."""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import io
import os
import secrets
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bundle.files import atomic_path, remove_unfinished_in

__all__ = ["KEY_FILE", "SALT_FILE", "KeyRow", "Pseudonyms", "normalised", "open_private", "write_key"]

SALT_FILE = "salt.txt"
KEY_FILE = "key.csv"
_SALT_BYTES = 32
_INVISIBLE = ("Cc", "Cf")
_KEY_HEADER = ("name", "kind", "stands for")


@dataclass(frozen=True, order=True)
class KeyRow:
    """One line of ``key.csv``: a name used in the dataset, ``patient`` or ``file``, and what it stands for."""

    name: str
    kind: str
    stands_for: str


def normalised(identifier: str) -> str:
    """An identifier without what differs by spelling only: case, blanks, invisible characters, composed letters.

    Two spellings of one patient would be two patients, and could be in training and in test; so the rules are coarse.
    """
    composed = unicodedata.normalize("NFKC", identifier)
    visible = (letter for letter in composed if not letter.isspace() and unicodedata.category(letter) not in _INVISIBLE)
    return "".join(visible).casefold()


class Pseudonyms:
    """Salted names: whoever lacks the salt can neither resolve them nor try out identifiers.

    ``P-`` and 50 bits of HMAC-SHA256(salt, identifier) in base32. The same salt gives the same names, in any archive.

    Args:
        salt: secret bytes, at least 16.
    """

    def __init__(self, salt: bytes) -> None:
        if len(salt) < 16:
            raise ValueError(f"a salt of {len(salt)} bytes, expected at least 16. Let the command make one.")
        self._salt = salt
        self._owners: dict[str, str] = {}

    def patient(self, identifier: str) -> str:
        """The pseudonym of a patient, ``P-`` and 10 characters.

        Raises:
            ValueError: another patient has the same one (once in 10^15 pairs of patients).
        """
        identifier = normalised(identifier)
        name = "P-" + base64.b32encode(self._digest("patient", identifier))[:10].decode()
        if self._owners.setdefault(name, identifier) != identifier:
            raise ValueError(f"two patients would both be called {name}. Take a new, empty --private folder.")
        return name

    def file(self, relative: str) -> str:
        """How reports name the file at this path relative to its archive."""
        return f"file {self._digest('file', relative).hex()[:10]}"

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.digest(self._salt, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256)


def open_private(folder: Path, dataset: Path) -> Pseudonyms:
    """The pseudonyms of a private folder, which is made with a new salt where it is absent.

    Args:
        folder: where salt and key are kept, readable by the owner only.
        dataset: the dataset folder, which people share: the private folder must not be in it.

    Raises:
        ValueError: the private folder is the dataset folder or lies in it, or its salt is damaged.
    """
    if folder.resolve().is_relative_to(dataset.resolve()):
        raise ValueError(
            f"--private {folder} lies in the dataset folder {dataset}: who gets the dataset would get the key to the "
            "patients. Give a folder elsewhere."
        )
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    _close(folder)
    remove_unfinished_in(folder, SALT_FILE, KEY_FILE)
    file = folder / SALT_FILE
    if not file.exists():
        if (folder / KEY_FILE).exists():
            raise ValueError(
                f"{folder} has a {KEY_FILE} but no {SALT_FILE}: new pseudonyms would not agree with the old. "
                f"Put {SALT_FILE} back, or give another --private folder."
            )
        _write_private(file, secrets.token_hex(_SALT_BYTES) + "\n")
    return Pseudonyms(_salt(file))


def _close(folder: Path) -> None:
    """Leave the folder to its owner; one that holds other files too may be shared on purpose, so that is only said."""
    if os.name != "posix" or not folder.stat().st_mode & 0o077:
        return
    if {file.name for file in folder.iterdir()} <= {SALT_FILE, KEY_FILE}:
        folder.chmod(0o700)
        print(f"{folder} could be opened by others: now only by its owner (chmod 700)", file=sys.stderr)
    else:
        print(f"Warning: {folder} can be opened by others, and holds the key to the patients.", file=sys.stderr)


def _salt(file: Path) -> bytes:
    try:
        salt = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except ValueError:
        salt = b""
    if len(salt) != _SALT_BYTES:
        raise ValueError(
            f"{file} is damaged: expected {2 * _SALT_BYTES} hexadecimal digits. Put the old file back, or give another "
            "--private folder (all pseudonyms will be new)."
        )
    return salt


def write_key(folder: Path, rows: Iterable[KeyRow]) -> Path:
    """Write ``key.csv`` into the private folder; rows of earlier runs and other archives stay in it."""
    file = folder / KEY_FILE
    merged = {*rows, *_key_rows(file)}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_KEY_HEADER)
    writer.writerows((row.name, row.kind, row.stands_for) for row in sorted(merged))
    _write_private(file, text.getvalue())
    return file


def _key_rows(file: Path) -> list[KeyRow]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        rows = [row for row in csv.reader(lines) if row]
    if not rows or tuple(rows[0]) != _KEY_HEADER or any(len(row) != len(_KEY_HEADER) for row in rows):
        raise ValueError(
            f"{file} is not a key that this command wrote. Move it away, or give another --private folder."
        )
    return [KeyRow(*row) for row in rows[1:]]


def _write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    with atomic_path(file) as unfinished:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(text)
