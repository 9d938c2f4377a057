"""What an earlier run has finished, so that a later one goes on and removes only what the command itself wrote."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bundle
from bundle.files import json_text, write_text
from scripts.prepare.conversion import FOLDERS, Settings
from scripts.prepare.view import LeftOut, View

__all__ = [
    "RECORDS", "all_recorded_files", "claim", "discard", "fingerprint", "finished", "has_files", "is_damaged",
    "possible_files", "read_record", "recorded_files", "refusal", "refuse", "remove_others", "save", "shelve",
]  # fmt: skip

RECORDS = ".prepared"
VERSION = 3
"""To be raised when the same sources and settings shall give other files."""
_HEADERS = (".mhd", ".nhdr")
"""Formats whose grey values lie in another file."""
_DATA_SUFFIXES = (".raw", ".zraw", ".raw.gz", ".gz", ".bz2", ".img", ".dat", ".bin")
_HEADER_BYTES = 65536
_DECODERS = (
    *("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "highdicom"),
    *("itk", "nibabel", "pillow"),
)
_PAGES = r"(datalist|data_card|cases|excluded)"
_UNFINISHED = re.compile(rf"\.{_PAGES}\.\d+\.(json|html|csv)|\.{{1,2}}datalist\.json(\.\d+){{1,2}}\.draft")


def _record_file(folder: Path, name: str) -> Path:
    return folder / RECORDS / f"{name}.json"


def fingerprint(view: View, settings: Settings) -> str:
    """A text that changes with the view, its files and the settings; the fold is drawn later and does not count.

    To be taken before the files are read: what is still being copied then counts as changed later.
    """
    found = [repr(replace(view, fold=None)), VERSION, settings.size, settings.in_place, settings.min_overlap]
    found += [_state(path) for path in _files(view)]
    return _hash(found)


def _hash(found: Any) -> str:
    return hashlib.blake2b(repr(found).encode(), digest_size=16).hexdigest()


def _files(view: View) -> list[Path]:
    paths = [view.image.path, view.label.path]
    for mask in (view.mask, view.label_mask):
        paths += [] if mask is None else mask.paths
    return [*paths, *(data for path in paths for data in _data_files(path))]


def _data_files(header: Path) -> list[Path]:
    """The files in which the values of a header alone (.mhd, .nhdr) may lie: those it names, those of its stem."""
    if header.suffix.lower() not in _HEADERS:
        return []
    try:
        with header.open("rb") as file:
            text = file.read(_HEADER_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    named = [re.split(r"[=:]", line, maxsplit=1)[-1].strip() for line in text.splitlines()]
    named += [header.stem + suffix for suffix in _DATA_SUFFIXES]
    return [header.parent / name for name in dict.fromkeys(named) if name and _is_file(header.parent / name)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a line that can be no name
        return False


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # decoding it says what is wrong
    return status.st_size, status.st_mtime_ns


def _circumstances(view: View) -> str:
    """What a refusal depends on besides the fingerprint: permissions (time of change), the decoders, this program."""
    changed = [path.stat().st_ctime_ns if _is_file(path) else None for path in _files(view)]
    return _hash((changed, _program()))


@cache
def _program() -> str:
    """Changes with the decoders and with the code: a newer version may take what this one refuses."""
    code = [*Path(__file__).parent.glob("*.py"), *Path(bundle.__file__).parent.rglob("*.py")]
    found = [f"{package} {_version(package)}" for package in _DECODERS]
    return _hash((found, [(file.name, file.read_bytes()) for file in sorted(code)]))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """What is recorded of a case; empty if nothing (readable)."""
    try:
        record = json.loads(_record_file(folder, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else {}


def is_damaged(folder: Path, name: str) -> bool:
    """Whether there is a record that says nothing: files of that name may be ours, but that is not known."""
    return not read_record(folder, name) and _record_file(folder, name).exists()


def possible_files(name: str) -> list[str]:
    """All files that may be written for a case, relative to the dataset folder."""
    return [f"{part}/{name}.png" for part in FOLDERS.values()]


def recorded_files(folder: Path, name: str) -> list[str]:
    """The files that are recorded as written for a case, and no others whatever the record says."""
    record = read_record(folder, name)
    return [file for file in possible_files(name) if file in record.get("files", {})]


def all_recorded_files(folder: Path) -> list[str]:
    """The files that are recorded as written for any case."""
    return [file for name in _recorded_names(folder) for file in recorded_files(folder, name)]


def _recorded_names(folder: Path) -> list[str]:
    return [file.stem for file in sorted((folder / RECORDS).glob("*.json")) if not file.name.startswith(".")]


def has_files(folder: Path, name: str) -> bool:
    """Whether an earlier run has written (or begun to write) files for a case of this name."""
    return bool(recorded_files(folder, name)) or is_damaged(folder, name)


def finished(view: View, settings: Settings) -> dict[str, Any] | None:
    """The record of a view that is refused, shelved, or whose files would come out the same again; else None."""
    record = read_record(settings.folder, view.name)
    if record.get("fingerprint") != fingerprint(view, settings):
        return None
    if "circumstances" in record and record["circumstances"] != _circumstances(view):
        return None
    for name, size in record["files"].items():
        state = _state(settings.folder / name)
        if state is None or state[0] != size:
            return None
    return record


def refusal(record: Mapping[str, Any]) -> LeftOut | None:
    """Why the view of a record became no case; None if it did."""
    return LeftOut(**record["left_out"]) if "left_out" in record else None


def claim(view: View, settings: Settings, files: Iterable[str]) -> None:
    """Note which files are about to be written, so that a later run knows them as its own if this one is cut off."""
    names = {*files, *recorded_files(settings.folder, view.name)}
    write_text(_record_file(settings.folder, view.name), json_text({"files": dict.fromkeys(sorted(names), 0)}))


def save(view: View, settings: Settings, mark: str, files: Iterable[str], content: Mapping[str, Any]) -> dict[str, Any]:
    """Record a case with its fingerprint; files of an earlier form of it (a mask it no longer has) are removed."""
    folder = settings.folder
    sizes = {name: (folder / name).stat().st_size for name in sorted(files)}
    for name in recorded_files(folder, view.name):
        if name not in sizes:
            (folder / name).unlink(missing_ok=True)
    record = {"fingerprint": mark, "files": sizes, **content}
    write_text(_record_file(folder, view.name), json_text(record))
    return record


def refuse(view: View, settings: Settings, mark: str, left_out: LeftOut) -> None:
    """Record why a view cannot become a case, so that it is not tried again before something has changed."""
    save(view, settings, mark, (), {"circumstances": _circumstances(view), "left_out": asdict(left_out)})


def shelve(view: View, settings: Settings, record: Mapping[str, Any], left_out: LeftOut | None) -> None:
    """Remove the files of a case that the data set does not use, and keep what is known of it.

    Args:
        view: the case.
        settings: those of the data set.
        record: its record.
        left_out: why it is not used, where that does not depend on other cases.
    """
    kept = {key: record[key] for key in ("entry", "facts")} | {"shelved": True}
    if left_out is not None:
        kept |= {"circumstances": _circumstances(view), "left_out": asdict(left_out)}
    save(view, settings, record["fingerprint"], (), kept)


def discard(folder: Path, name: str) -> bool:
    """Remove what is recorded as written for a case, and the record; False where nothing (certain) is known."""
    if not read_record(folder, name):
        return False
    for file in recorded_files(folder, name):
        (folder / file).unlink(missing_ok=True)
    _record_file(folder, name).unlink()
    return True


def remove_others(folder: Path, names: Collection[str]) -> int:
    """Remove what was written for cases of other names, and what interrupted writing left; return how many cases."""
    gone = [name for name in _recorded_names(folder) if name not in names]
    used = [name for name in gone if "entry" in read_record(folder, name)]
    removed = [name for name in gone if discard(folder, name)]
    ours = {*names, *removed}
    for part in (*FOLDERS.values(), RECORDS):
        for file in (folder / part).glob(".*"):
            match = re.fullmatch(r"\.(.+)\.\d+\.(png|json)", file.name)
            if match and (match[1] in ours or part == RECORDS):
                file.unlink(missing_ok=True)
        _remove_if_empty(folder / part)
    for file in folder.glob(".*"):
        if _UNFINISHED.fullmatch(file.name):
            file.unlink(missing_ok=True)
    return len(used)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
