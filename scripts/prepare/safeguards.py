"""What must hold before a dataset folder is filled: no other command fills it, no file of others is in the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bundle.data import DATALIST
from scripts.prepare import records
from scripts.prepare.conversion import FOLDERS, Settings
from scripts.prepare.view import View

__all__ = ["CARD", "EXCLUDED", "TABLE", "locked", "require_safe", "withdraw", "writing"]

CARD, TABLE, EXCLUDED = "data_card.html", "cases.csv", "excluded.csv"
_FEW = 5


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands from filling the folder; the lock ends with the process, however that ends.

    Raises:
        ValueError: another command fills it.
    """
    file = folder / records.RECORDS / ".lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"another prepare_data is filling {folder}; wait for it.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file that cannot be written, because the disk is full or for another reason.

    Raises:
        OSError: as the body, saying what to do.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{path} cannot be written: {reason}. Remedy that; the same command goes on from here."
        raise OSError(message) from error


def withdraw(folder: Path) -> None:
    """Remove the datalist of an earlier run and what describes it: their images are about to change."""
    for name in (DATALIST, CARD, TABLE):
        (folder / name).unlink(missing_ok=True)


def require_safe(views: Sequence[View], settings: Settings) -> None:
    """Refuse to write where sources lie, or where files of others would be overwritten or removed.

    Raises:
        ValueError: naming them.
    """
    _require_other_sources(views, settings)
    _require_own(views, settings)


def _require_other_sources(views: Sequence[View], settings: Settings) -> None:
    """No source lies in a folder of images that this command writes or has written: those are replaced and removed."""
    recorded = {Path(file).parent.as_posix() for file in records.all_recorded_files(settings.folder)}
    parts = recorded if settings.in_place else {*recorded, *FOLDERS.values()}
    taken = {(settings.folder / part).resolve(): part for part in parts}
    met: dict[Path, str] = {}
    for path in dict.fromkeys(path for view in views for path in _sources(view)):
        for place in (path.parent.resolve() / path.name, path.resolve()):  # a link, and what it leads to
            if place.parent in taken:
                met.setdefault(path, f"{taken[place.parent]}/{place.name}")
    if met:
        what = "are images that this command itself wrote" if settings.in_place else "lie where it would write"
        raise ValueError(
            f"{settings.folder} holds sources that {what}, so that they could be replaced or removed: "
            f"{_listed(list(met.values()))}. Give an empty or new folder as --output."
        )


def _sources(view: View) -> list[Path]:
    masks = [mask.paths for mask in (view.mask, view.label_mask) if mask is not None]
    return [view.image.path, view.label.path, *(path for paths in masks for path in paths)]


def _require_own(views: Sequence[View], settings: Settings) -> None:
    folder = settings.folder
    foreign = []
    if not (folder / records.RECORDS).is_dir():
        foreign = [name for name in (DATALIST, CARD, TABLE, EXCLUDED) if (folder / name).exists()]
    for view in [] if settings.in_place else views:
        if records.is_damaged(folder, view.name):
            continue  # the record says nothing, but it was one
        own = records.recorded_files(folder, view.name)
        foreign += [name for name in records.possible_files(view.name) if name not in own and (folder / name).exists()]
    if foreign:
        raise ValueError(
            f"{folder} holds files that this command did not write and would overwrite: "
            f"{_listed(foreign)}. Give an empty or new folder as --output."
        )


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - _FEW} more" if len(files) > _FEW else ""
    return f"{', '.join(files[:_FEW])}{more}"
