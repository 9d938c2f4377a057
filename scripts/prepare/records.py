"""What an earlier run has finished, so that a later one goes on and removes only what the command itself wrote."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundle.data import DATALIST
from bundle.files import json_text, write_text
from scripts.prepare.conversion import FOLDERS, Settings
from scripts.prepare.view import View

__all__ = ["claim", "fingerprint", "finished", "has_files", "read_record", "remove_others", "require_own", "save"]

RECORDS = ".prepared"
VERSION = 2
"""To be raised when the same sources and settings shall give other files."""
_FEW = 5


def _record_file(folder: Path, name: str) -> Path:
    return folder / RECORDS / f"{name}.json"


def fingerprint(view: View, settings: Settings) -> str:
    """A text that changes with the view, its files and the settings; the fold is drawn later and does not count."""
    paths = [view.image.path, view.label.path]
    for mask in (view.mask, view.label_mask):
        paths += [] if mask is None else mask.paths
    found = [repr(replace(view, fold=None)), VERSION, settings.size, settings.in_place, settings.min_overlap]
    found += [_state(path) for path in paths]
    return hashlib.blake2b(repr(found).encode(), digest_size=16).hexdigest()


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # decoding it says what is wrong
    return status.st_size, status.st_mtime_ns


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """What is recorded of a case; empty if nothing (readable)."""
    try:
        record = json.loads(_record_file(folder, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _possible_files(name: str) -> list[str]:
    return [f"{part}/{name}.png" for part in FOLDERS.values()]


def _own_files(folder: Path, name: str) -> list[str]:
    """The files that are recorded as written for a case, and no others whatever the record says."""
    record, possible = read_record(folder, name), _possible_files(name)
    if not record and _record_file(folder, name).exists():
        return possible  # the record was damaged, but it was one
    return [file for file in possible if file in record.get("files", {})]


def has_files(folder: Path, name: str) -> bool:
    """Whether an earlier run has written (or begun to write) files for a case of this name."""
    return bool(_own_files(folder, name))


def finished(view: View, settings: Settings) -> dict[str, Any] | None:
    """The record of a view whose files are there and would come out the same again; else None."""
    record = read_record(settings.folder, view.name)
    if record.get("fingerprint") != fingerprint(view, settings):
        return None
    for name, size in record["files"].items():
        state = _state(settings.folder / name)
        if state is None or state[0] != size:
            return None
    return record


def claim(view: View, settings: Settings, files: Iterable[str]) -> None:
    """Note which files are about to be written, so that a later run knows them as its own if this one is cut off."""
    names = {*files, *_own_files(settings.folder, view.name)}
    write_text(_record_file(settings.folder, view.name), json_text({"files": dict.fromkeys(sorted(names), 0)}))


def save(view: View, settings: Settings, files: Iterable[str], content: Mapping[str, Any]) -> dict[str, Any]:
    """Record a finished case; files of an earlier form of it (a mask it no longer has) are removed."""
    folder = settings.folder
    sizes = {name: (folder / name).stat().st_size for name in sorted(files)}
    for name in _own_files(folder, view.name):
        if name not in sizes:
            (folder / name).unlink(missing_ok=True)
    record = {"fingerprint": fingerprint(view, settings), "files": sizes, **content}
    write_text(_record_file(folder, view.name), json_text(record))
    return record


def require_own(views: Sequence[View], settings: Settings) -> None:
    """Refuse a folder in which files of others would be overwritten.

    Raises:
        ValueError: naming them.
    """
    folder = settings.folder
    foreign = []
    if not (folder / RECORDS).is_dir():
        foreign = [
            name for name in (DATALIST, "data_card.html", "cases.csv", "excluded.csv") if (folder / name).exists()
        ]
    for view in [] if settings.in_place else views:
        own = _own_files(folder, view.name)
        foreign += [name for name in _possible_files(view.name) if name not in own and (folder / name).exists()]
    if foreign:
        more = f" and {len(foreign) - _FEW} more" if len(foreign) > _FEW else ""
        raise ValueError(
            f"{folder} holds files that this command did not write and would overwrite: "
            f"{', '.join(foreign[:_FEW])}{more}. Give an empty or new folder as --output."
        )


def remove_others(folder: Path, names: Collection[str]) -> int:
    """Remove what was written for cases of other names, and what interrupted writing left; return how many cases."""
    removed = 0
    for file in sorted((folder / RECORDS).glob("*.json")):
        if file.stem in names or file.name.startswith("."):
            continue
        for name in _own_files(folder, file.stem):
            (folder / name).unlink(missing_ok=True)
        file.unlink()
        removed += 1
    for part in (*FOLDERS.values(), RECORDS):
        for file in (folder / part).glob(".*"):
            match = re.fullmatch(r"\.(.+)\.\d+\.(png|json)", file.name)
            if match and match[1] in names:
                file.unlink(missing_ok=True)
        _remove_if_empty(folder / part)
    return removed


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
