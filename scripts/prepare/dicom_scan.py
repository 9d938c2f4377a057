"""Find the DICOM objects of an archive, under whatever names, and read what their headers say."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset
from tqdm import tqdm

from bundle.dicom.header import items, text, values
from bundle.dicom.reading import read_elements
from bundle.threads import thread_pool
from scripts.prepare.dicom_instance import Instance, instance_of
from scripts.prepare.quiet_dicom import quiet, stay_quiet

__all__ = ["Archive", "Broken", "Scan", "archive_at", "scan"]

DICOMDIR = "DICOMDIR"
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_SUFFIXES = (".dcm", ".dicom", ".ima")
_GROUPS = (b"\x08\x00", b"\x02\x00")
"""First bytes of an object without preamble: an element of group 0008 or 0002."""
_THREADS = 8
_MANY = 4000
"""Files that are worth processes, which take seconds to start; for fewer, threads do."""
_CHUNK = 64


@dataclass(frozen=True)
class Archive:
    """Which files there are: ``root``, the files to be read, and what could not be found."""

    root: Path
    files: tuple[Path, ...]
    missing: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def relative(self, file: Path) -> str:
        """The path from ``root``, with slashes."""
        return Path(os.path.relpath(file, self.root)).as_posix()


@dataclass(frozen=True)
class Broken:
    """A file that should be DICOM and cannot be used."""

    path: Path
    problem: str


@dataclass(frozen=True)
class Scan:
    """What an archive holds: DICOM objects, broken ones, and files of other kinds, each in the order of the files."""

    instances: tuple[Instance, ...]
    broken: tuple[Broken, ...]
    others: tuple[Path, ...]


def archive_at(path: Path, passed_over: Sequence[Path] = ()) -> Archive:
    """The files of a folder at any depth, or those that a DICOMDIR names.

    Args:
        path: a folder, whose DICOMDIR files are compared with what is there; or one DICOMDIR file.
        passed_over: folders that are not part of it, such as the output.

    Raises:
        ValueError: neither a folder nor a DICOMDIR.
    """
    if path.is_dir():
        files, unread = _files_below(path, {folder.resolve() for folder in passed_over})
        directories = [file for file in files if file.name.upper() == DICOMDIR and file.is_file()]
        missing = [name for directory in directories for name in _missing(directory, path)]
        return Archive(path, tuple(files), tuple(missing), tuple(unread))
    found = None if not path.is_file() else _listed(path)
    if found is None:
        raise ValueError(
            f"{path} is neither a folder nor a DICOMDIR. Give the folder of the studies, or a DICOMDIR file."
        )
    files = sorted({file for file in found.values() if file is not None})
    return Archive(path.parent, tuple(files), tuple(sorted(name for name, file in found.items() if file is None)))


def _files_below(root: Path, passed_over: set[Path]) -> tuple[list[Path], list[str]]:
    """All files, in a fixed order, and the folders that could not be read. Links to folders are followed, once."""
    files, unread = [], []
    seen = set(passed_over)
    failed = lambda error: unread.append(os.path.relpath(error.filename, root))  # noqa: E731
    for folder, below, names in os.walk(root, onerror=failed, followlinks=True):
        if (here := Path(folder).resolve()) in seen:
            below.clear()
            continue
        seen.add(here)
        below[:] = sorted(name for name in below if not name.startswith("."))
        files += [Path(folder) / name for name in names if not name.startswith(".")]
    return sorted(files), sorted(unread)


def _missing(directory: Path, root: Path) -> Iterator[str]:
    for name, file in (_listed(directory) or {}).items():
        if file is None:
            yield (directory.parent.relative_to(root) / name).as_posix()


def _listed(directory: Path) -> dict[str, Path | None] | None:
    """File ID -> file (None: not there) of a DICOMDIR; None if it is not one."""
    try:
        with quiet():
            header = read_elements(directory)
    except Exception:  # pydicom says what it likes about rubbish
        return None
    if text(header.file_meta, "MediaStorageSOPClassUID") != _DIRECTORY_CLASS:
        return None
    names = [
        [str(part) for part in values(record, "ReferencedFileID")]
        for record in items(header, "DirectoryRecordSequence")
    ]
    return {"/".join(parts): _resolved(directory.parent, parts) for parts in names if parts}


def _resolved(folder: Path, parts: Sequence[str]) -> Path | None:
    """The file of a File ID; media that were copied may have got small letters."""
    for part in parts:
        candidate = folder / part
        if not candidate.exists() and folder.is_dir():
            alike = [one for one in folder.iterdir() if one.name.casefold() == part.casefold()]
            candidate = alike[0] if alike else candidate
        folder = candidate
    return folder if folder.is_file() else None


def scan(archive: Archive, workers: int | None = None, progress: bool = True) -> Scan:
    """Read all headers, in several processes if there are many.

    Args:
        archive: the files.
        workers: how many processes; default: as many as there are cores.
        progress: show a progress bar on a terminal.
    """
    bar = tqdm(total=len(archive.files), desc="Reading headers", unit="file", delay=1, disable=not progress or None)
    found = []
    with quiet(), _pool(len(archive.files), workers) as pool, bar:
        for one in pool.map(_read, archive.files, chunksize=_CHUNK):
            found.append(one)
            bar.update()
    return Scan(
        tuple(one for one in found if isinstance(one, Instance)),
        tuple(one for one in found if isinstance(one, Broken)),
        tuple(one for one in found if isinstance(one, Path)),
    )


def _pool(files: int, workers: int | None) -> Executor:
    if files < _MANY or workers == 1:
        return thread_pool(_THREADS)
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ProcessPoolExecutor(workers or cores, context, stay_quiet)


def _read(path: Path) -> Instance | Broken | Path | None:
    """What a file is: a path for a file of another kind, None for a DICOMDIR."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        return Broken(path, "a pipe or a device, expected a file")
    try:
        expected = _looks_like_dicom(path)
        header = read_elements(path, stop_before_pixels=True, force=True) if expected else None
    except OSError as error:
        return Broken(path, f"cannot be read: {error.strerror or type(error).__name__}")
    except Exception as error:  # pydicom says what it likes about rubbish; its words may quote the header
        return Broken(path, f"its DICOM header is damaged or cut off ({type(error).__name__})")
    if header is None:
        return path
    try:
        return _described(path, header)
    except Exception as error:  # a value of which nobody thought must not stop the scan
        return Broken(path, f"its DICOM header is unusable ({type(error).__name__})")


def _looks_like_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or start[:2] in _GROUPS or path.suffix.lower() in _SUFFIXES


def _described(path: Path, header: Dataset) -> Instance | Broken | None:
    meta = getattr(header, "file_meta", Dataset())
    if _DIRECTORY_CLASS in (text(meta, "MediaStorageSOPClassUID"), text(header, "SOPClassUID")):
        return None
    instance = instance_of(path, header)
    return instance or Broken(path, "no SOPInstanceUID: not DICOM, or its header is cut off")
