"""Lesion masks of a DICOM archive: segmentation objects, and image files that are named after an image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from bundle.dicom.decoding import require_bounded
from bundle.dicom.header import first_item, items, number, text
from bundle.dicom.reading import read_elements
from bundle.reader import SUFFIXES, ImageFileError, file_suffix
from scripts.prepare.dicom_source import nameless
from scripts.prepare.quiet_dicom import quiet
from scripts.prepare.sources import FileMask

__all__ = ["Drawing", "LesionMask", "MaskFiles", "lesion_segments", "too_large"]

_MASK_NAME = re.compile(r"(?P<stem>.+?)[ _-]mask", re.IGNORECASE)
_ANATOMY = re.compile(
    r"\b(breast|skin|muscle|pectoral\w*|nipple|areola|fat|adipose|gland|(fibro)?glandular|parenchyma|background|air)\b",
    re.IGNORECASE,
)
"""Segments called so are the breast or a part of it, unless they are called a lesion too ("breast mass")."""
_LESION = re.compile(
    r"lesion|mass|tumou?r|cancer|carcinoma|malign|benign|finding|calcif|nodul|cyst|enhanc|distort|asymmetr|"
    r"suspicio|bi.?rads|metasta|dcis|fibroadenoma|abnormal",
    re.IGNORECASE,
)
_LARGEST = 0.5
"""No lesion has more of the image."""
_JPEG = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.7")
"""All kinds of plain JPEG: at some damaged streams gdcm, which decodes them, ends the process."""
_SIZE = "Export the segmentation on the grid of its image"


@dataclass(frozen=True)
class Drawing:
    """One file with lesions.

    Attributes:
        path: the file.
        report_name: how reports name it.
        segments: numbers of the segments that count, of a DICOM segmentation; empty for an image file.
    """

    path: Path
    report_name: str
    segments: tuple[int, ...] = ()


@dataclass(frozen=True)
class LesionMask:
    """All lesions that were drawn on one image; what several files or segments show is united.

    Attributes:
        drawings: the files.
        uid: SOPInstanceUID of the image.
    """

    drawings: tuple[Drawing, ...]
    uid: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(drawing.path for drawing in self.drawings)

    @property
    def report_name(self) -> str:
        """How reports name the files."""
        return ", ".join(drawing.report_name for drawing in self.drawings)

    def read(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The lesions on the grid of the image, (H, W).

        Raises:
            ImageFileError: a file is damaged, of another size, or no mask.
        """
        mask = np.zeros(shape, dtype=np.bool_)
        with quiet():
            for drawing in self.drawings:
                mask |= nameless(lambda one=drawing: self._drawn(one, shape), drawing.path, drawing.report_name)  # type: ignore[misc]
        return mask

    def _drawn(self, drawing: Drawing, shape: tuple[int, int]) -> NDArray[np.bool_]:
        if not drawing.segments:
            return FileMask(drawing.path).read(shape)
        mask = _segmented(drawing.path, self.uid, drawing.segments)
        if mask.shape != shape:
            sizes = [f"{width}x{height}" for height, width in (mask.shape, shape)]
            raise ImageFileError(drawing.path, f"a segmentation of {sizes[0]} pixels, its image has {sizes[1]}", _SIZE)
        return mask


def lesion_segments(segments: Mapping[int, str], pattern: re.Pattern[str] | None) -> tuple[int, ...]:
    """Numbers of the segments that count as lesion: those whose label or description matches.

    Without a pattern all but those that are called by a part of the breast, such as skin or pectoral muscle.
    """
    return tuple(sorted(one for one, label in segments.items() if _counts(label, pattern)))


def _counts(label: str, pattern: re.Pattern[str] | None) -> bool:
    if pattern is not None:
        return pattern.search(label) is not None
    return _ANATOMY.search(label) is None or _LESION.search(label) is not None


def too_large(path: Path, uid: str, segments: Sequence[int]) -> dict[int, float]:
    """Those of the segments that cover more of the image than any lesion does, and their shares of it.

    None where the segmentation cannot be read: what is wrong is told where its mask is.
    """
    shares: dict[int, float] = {}
    with quiet(), suppress(Exception):
        shares = {one: float(_segmented(path, uid, [one]).mean()) for one in segments}
    return {one: share for one, share in shares.items() if share > _LARGEST}


def _segmented(path: Path, uid: str, segments: Sequence[int]) -> NDArray[np.bool_]:
    """The union of segments of a DICOM segmentation on one image, (H, W).

    highdicom reads what keeps to the standard; for the others the frames are put together here.
    """
    header = read_elements(path, force=True)
    require_bounded(header, path)
    if text(header.file_meta, "TransferSyntaxUID").startswith(_JPEG):
        raise ImageFileError(path, "a segmentation in JPEG, expected one without loss and as it is, or RLE", _SIZE)
    try:
        return _with_highdicom(header, uid, segments)
    except Exception:  # highdicom refuses objects for many reasons, most of which do not touch the pixels
        return _by_frames(header, path, uid, segments)


def _with_highdicom(header: Dataset, uid: str, segments: Sequence[int]) -> NDArray[np.bool_]:
    import highdicom

    pixels = highdicom.seg.Segmentation.from_dataset(header).get_pixels_by_source_instance(
        [uid],
        segment_numbers=list(segments),
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
        rescale_fractional=True,
    )
    return np.asarray((pixels[0] >= 0.5).any(axis=-1), dtype=np.bool_)


def _by_frames(header: Dataset, path: Path, uid: str, segments: Sequence[int]) -> NDArray[np.bool_]:
    frames = header.pixel_array.reshape(-1, int(header.Rows), int(header.Columns))
    kind = text(header, "SegmentationType")
    mask = np.zeros(frames.shape[1:], dtype=np.bool_)
    groups = list(items(header, "PerFrameFunctionalGroupsSequence")) or [Dataset()] * len(frames)
    if len(groups) != len(frames):
        found = f"{len(frames)} frames and {len(groups)} descriptions of frames"
        raise ImageFileError(path, found, "Export the segmentation again")
    for frame, group in zip(frames, groups, strict=True):
        own, shared = group, first_item(header, "SharedFunctionalGroupsSequence") or Dataset()
        if uid in (_sources(own) or _sources(shared) or {uid}):
            mask |= _lesion(frame, kind, _segment(own) or _segment(shared), header, segments)
    return mask


def _lesion(
    frame: NDArray[Any], kind: str, segment: int | None, header: Dataset, segments: Sequence[int]
) -> NDArray[np.bool_]:
    if kind == "LABELMAP":
        return np.isin(frame, segments)
    if segment not in (None, *segments):
        return np.zeros(frame.shape, dtype=np.bool_)
    half = (number(header, "MaximumFractionalValue") or 255) / 2 if kind == "FRACTIONAL" else 0.5
    return frame >= half


def _segment(group: Dataset) -> int | None:
    item = first_item(group, "SegmentIdentificationSequence")
    value = None if item is None else number(item, "ReferencedSegmentNumber")
    return None if value is None else int(value)


def _sources(group: Dataset) -> set[str]:
    return {
        str(source.get("ReferencedSOPInstanceUID", ""))
        for derivation in items(group, "DerivationImageSequence")
        for source in items(derivation, "SourceImageSequence")
    }


@dataclass(frozen=True)
class _Named:
    path: Path
    folder: str
    stem: str
    flat: bool


class MaskFiles:
    """Image files that may be masks, to be found by the name of their DICOM file or its SOPInstanceUID.

    Args:
        beside: files of the archive that are not DICOM, and their paths relative to it. Masks are those called
            ``NAME_mask`` beside the DICOM file ``NAME``, or after a SOPInstanceUID, with or without ``_mask``.
        apart: files of the folder of masks, and their paths relative to that: all are masks, ``_mask`` may be absent,
            and they may all lie in one folder if the names are clear.
    """

    def __init__(self, beside: Mapping[Path, str], apart: Mapping[Path, str]) -> None:
        self._files: list[_Named] = []
        for flat, files in ((False, beside), (True, apart)):
            for path, relative in files.items():
                stem = _image_stem(relative) or (_stem(relative) if flat else None)
                if file_suffix(path) in SUFFIXES and stem is not None:
                    self._files.append(_Named(path, str(PurePosixPath(relative).parent), stem, flat))

    def of(self, images: Mapping[str, str]) -> tuple[dict[str, list[Path]], dict[Path, str]]:
        """Which masks belong to which image.

        Args:
            images: SOPInstanceUID -> path of the DICOM file relative to the archive.

        Returns:
            SOPInstanceUID -> masks, and mask -> why it belongs to none.
        """
        by_place: dict[tuple[str, str], list[str]] = defaultdict(list)
        by_stem: dict[str, list[str]] = defaultdict(list)
        for uid, relative in images.items():
            by_place[str(PurePosixPath(relative).parent), _stem(relative)].append(uid)
            by_stem[_stem(relative)].append(uid)
        owned: dict[str, list[Path]] = defaultdict(list)
        lost: dict[Path, str] = {}
        for mask in self._files:
            found = [mask.stem] if mask.stem in images else by_place.get((mask.folder, mask.stem), [])
            found = found or (by_stem.get(mask.stem, []) if mask.flat else [])
            if len(found) == 1:
                owned[found[0]].append(mask.path)
            else:
                lost[mask.path] = f"a mask whose name fits {len(found)} DICOM files, expected 1"
        return dict(owned), lost


def _stem(relative: str) -> str:
    """The file name without a suffix that is one; ``1.2.840.1`` has none."""
    name = PurePosixPath(relative).name
    suffix = next((one for one in SUFFIXES if one and name.lower().endswith(one)), "")
    return name[: -len(suffix)] if suffix else name


def _image_stem(relative: str) -> str | None:
    """The name of the image that a mask is named after; None for a file that is not named like a mask."""
    stem = _stem(relative)
    match = _MASK_NAME.fullmatch(stem)
    if match is not None:
        return match["stem"]
    return stem if re.fullmatch(r"\d+(\.\d+){3,}", stem) else None
