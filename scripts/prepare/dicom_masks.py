"""Which lesion masks belong to which image of a DICOM archive."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.dicom import Kind
from scripts.prepare.dicom_instance import Instance
from scripts.prepare.dicom_report import Report
from scripts.prepare.dicom_scan import Scan
from scripts.prepare.segmentation import Drawing, LesionMask, MaskFiles, lesion_segments, too_large

__all__ = ["MaskFinder"]

_SOURCE = "Add the image it was drawn on, or leave it out"
_NAME = "Call it after the file of its image, or after its SOPInstanceUID"
_CHOOSE = "Choose what counts as lesion with --segment-label"
_LONGEST_LABEL = 40
_DAMAGED = "Export the segmentation again"


@dataclass(frozen=True)
class MaskFinder:
    """Finds masks for images, and reports those that belong to none.

    Attributes:
        report: where they are reported.
        pattern: which segments of a segmentation count as lesion, by label or description; None: all.
    """

    report: Report
    pattern: re.Pattern[str] | None = None

    def masks(
        self, instances: Sequence[Instance], others: Sequence[Path], apart: Scan | None, paired: Collection[str]
    ) -> dict[str, LesionMask]:
        """SOPInstanceUID -> mask of every paired image on which something was drawn.

        Args:
            instances: the objects of the archive.
            others: its other files.
            apart: the folder of masks.
            paired: SOPInstanceUIDs of images that are part of a pair.
        """
        drawings: dict[str, list[Drawing]] = defaultdict(list)
        images = [one for one in instances if one.kind is not Kind.SEGMENTATION]
        known = {one.uid for one in images}
        for one in self._segmentations(instances, apart):
            for uid, drawing in self._drawn_on(one, known, paired):
                drawings[uid].append(drawing)
        files = MaskFiles(self._relative(others), self._relative(() if apart is None else apart.others))
        owned, lost = files.of({one.uid: self.report.relative(one.path) for one in images})
        for path, reason in lost.items():
            self.report.add("-", path, reason, _NAME)
        for uid, paths in owned.items():
            for path in paths:
                if uid in paired:
                    drawings[uid].append(Drawing(path, self.report.label(path)))
                else:
                    self.report.add("-", path, "a mask of an image that is in no pair", needed=False)
        return {uid: LesionMask(tuple(found), uid) for uid, found in sorted(drawings.items())}

    def _segmentations(self, instances: Iterable[Instance], apart: Scan | None) -> list[Instance]:
        found = {one.uid: one for one in instances if one.kind is Kind.SEGMENTATION}
        for broken in () if apart is None else apart.broken:
            self.report.add("-", broken.path, broken.problem, _DAMAGED)
        for one in () if apart is None else apart.instances:
            if one.kind is Kind.SEGMENTATION:
                found.setdefault(one.uid, one)
            else:
                self.report.add("-", one.path, f"{one.kind} in the folder of masks", needed=False)
        return list(found.values())

    def _drawn_on(
        self, segmentation: Instance, known: Collection[str], paired: Collection[str]
    ) -> list[tuple[str, Drawing]]:
        path, sources = segmentation.path, segmentation.exposure.references
        segments = lesion_segments(segmentation.segments, self.pattern)
        if not segmentation.segments:
            self.report.add("-", path, "a segmentation without description of its segments", _DAMAGED)
        elif not segments:
            reason = "of normal anatomy alone" if self.pattern is None else "without segment that --segment-label takes"
            self.report.add("-", path, f"a segmentation {reason}", needed=False)
        elif not sources & set(known):
            self.report.add("-", path, "a segmentation of an image that is not in the archive", _SOURCE)
        elif not sources & set(paired):
            self.report.add("-", path, "a segmentation of an image that is in no pair", needed=False)
        else:
            self._note_anatomy(segmentation, segments)
            return self._drawings(segmentation, segments, sorted(sources & set(paired)))
        return []

    def _drawings(
        self, segmentation: Instance, segments: Sequence[int], uids: Iterable[str]
    ) -> list[tuple[str, Drawing]]:
        found = []
        path = segmentation.path
        for uid in uids:
            large = too_large(path, uid, segments)
            for number, share in large.items():
                self.report.add("-", path, f"segment {number} covers {share:.0%} of the image: no lesion", _CHOOSE)
            if small := tuple(one for one in segments if one not in large):
                found.append((uid, Drawing(path, self.report.label(path), small)))
                self.report.segments.update(segmentation.segments[one].strip()[:_LONGEST_LABEL] for one in small)
        return found

    def _note_anatomy(self, segmentation: Instance, segments: Sequence[int]) -> None:
        if self.pattern is None and (others := len(segmentation.segments) - len(segments)):
            self.report.add("-", segmentation.path, f"{others} segments of normal anatomy", _CHOOSE, needed=False)

    def _relative(self, paths: Iterable[Path]) -> dict[Path, str]:
        return {path: self.report.relative(path) for path in paths}
