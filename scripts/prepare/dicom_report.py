"""What of a DICOM archive did not become a case, told without paths and names; and the key to these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from bundle.dicom import Kind
from scripts.prepare.dicom_instance import Instance
from scripts.prepare.dicom_scan import Archive, Scan
from scripts.prepare.pseudonyms import KeyRow, Pseudonyms
from scripts.prepare.view import LeftOut

__all__ = ["Report"]

_COPY = "Copy it again from its source, or leave it out"
_UNCLEAR = "Look at the image and correct its ImageType, or leave it out"
_ONE_UID = "Give each image a SOPInstanceUID of its own, or export the study again"
_PART_OF_PAIRS = (Kind.LOW_ENERGY, Kind.SUBTRACTED, Kind.SEGMENTATION)


class Report:
    """Collects what is left out, and what the names of files and patients stand for.

    Args:
        names: pseudonyms.
        archive: where the files lie.
        masks: where the files of a folder of masks lie.
    """

    nameless_studies: set[str]
    """StudyInstanceUIDs of studies that count as patients."""
    segments: Counter[str]
    """How often segments of each label were taken as lesions."""

    def __init__(self, names: Pseudonyms, archive: Archive, masks: Archive | None = None) -> None:
        self._names, self._archive, self._masks = names, archive, masks
        self._in_masks = frozenset(() if masks is None else masks.files)
        self.nameless_studies, self.segments = set(), Counter()
        self._left_out: list[LeftOut] = []
        self._rows: set[KeyRow] = set()
        for place in (archive, *([] if masks is None else [masks])):
            for relative in place.missing:
                self._add("-", self._named(relative), "named in the DICOMDIR, but not there", _COPY)
            for relative in place.unread:
                self._add("-", self._named(relative), "a folder that cannot be read", "Allow reading it")

    @property
    def left_out(self) -> list[LeftOut]:
        """What is left out, what a pair would have needed first; not in the order of the paths."""
        return sorted(self._left_out, key=lambda one: (not one.needed, one.name, one.file, one.reason))

    @property
    def key_rows(self) -> list[KeyRow]:
        """What every name that was given stands for."""
        return sorted(self._rows)

    def label(self, path: Path) -> str:
        """How reports name a file of the archive or of the folder of masks."""
        return self._named(self.relative(path))

    def relative(self, path: Path) -> str:
        """The path of a file from the archive, or from the folder of masks if it lies there."""
        place = self._masks if self._masks is not None and path in self._in_masks else self._archive
        return place.relative(path)

    def patient(self, pseudonym: str, identifier: str) -> None:
        """Note whom a pseudonym stands for."""
        self._rows.add(KeyRow(pseudonym, "patient", identifier))

    def add(self, name: str, path: Path, reason: str, remedy: str = "", needed: bool = True) -> None:
        """Note that a file is left out."""
        self._add(name, self.label(path), reason, remedy, needed)

    def scanned(self, found: Scan) -> None:
        """Note broken files, and count those that are not DICOM."""
        for one in found.broken:
            self.add("-", one.path, one.problem, _COPY)
        if found.others:
            self._add("-", f"{len(found.others)} files", "not DICOM", needed=False)

    def kinds(self, instances: Iterable[Instance]) -> None:
        """Note the objects that are no part of any pair, and why."""
        for one in instances:
            if one.kind not in _PART_OF_PAIRS:
                reason = f"{one.kind}: {one.reason}"
                self.add("-", one.path, reason, _UNCLEAR if one.doubtful else "", needed=one.doubtful)

    def copies(self, instances: Sequence[Instance]) -> None:
        """Note further files of an object that is used."""
        for one in instances:
            self.add("-", one.path, f"a copy of another file ({one.kind}, the same SOPInstanceUID)", needed=False)

    def same_uid(self, instances: Sequence[Instance]) -> None:
        """Note different images with one SOPInstanceUID."""
        for one in instances:
            reason = f"{one.kind}: {len(instances)} different images have its SOPInstanceUID"
            self.add("-", one.path, reason, _ONE_UID, needed=one.kind in _PART_OF_PAIRS)

    def _named(self, relative: str) -> str:
        name = self._names.file(relative)
        self._rows.add(KeyRow(name, "file", relative))
        return name

    def _add(self, name: str, file: str, reason: str, remedy: str = "", needed: bool = True) -> None:
        self._left_out.append(LeftOut(name, file, reason, remedy, needed))
