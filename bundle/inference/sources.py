"""Which images there are, which of them may be given to the network, and where their results go."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from functools import cached_property
from os import PathLike
from pathlib import Path

from pydicom import Dataset
from pydicom.misc import is_dicom
from tqdm import tqdm

from bundle.dicom.decoding import opened
from bundle.dicom.header import text
from bundle.dicom.kind import INPUT_KINDS, Kind, refusal
from bundle.image_file_error import ImageFileError
from bundle.image_writer import split_name
from bundle.inference.names import named_kind
from bundle.inference.report import ReportRow
from bundle.reader import SUFFIXES, file_suffix

__all__ = ["OUTPUT_SUFFIX", "Sources", "find_images"]

OUTPUT_SUFFIX = "_virtual_des"
_MANY = 200
"""From so many files on a bar shows how far the look at their headers has come."""


def find_images(dataset_dir: str | PathLike[str]) -> list[Path]:
    """List the images of a folder, at any depth, or a single file, sorted by path.

    Hidden files, DICOMDIRs and files that already are results (``*_virtual_des.*``) are left out. A file without a
    known suffix counts as an image if it is DICOM.

    Raises:
        FileNotFoundError: there is no such folder or file, or no image in it.
    """
    root = Path(dataset_dir).absolute()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"no such file or folder: {root}; set dataset_dir to your low-energy images")
    found = sorted(path for path in root.rglob("*") if _is_input(path, root))
    if not found:
        raise FileNotFoundError(
            f"no image in {root} or below; expected DICOM files, or files ending in {' '.join(filter(None, SUFFIXES))}"
        )
    return found


def _is_input(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    if hidden or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    stem, suffix = split_name(path)
    return not stem.endswith(OUTPUT_SUFFIX) and suffix.lower() in SUFFIXES and (bool(suffix) or is_dicom(path))


def _header(path: Path) -> Dataset:
    """The attributes of a DICOM file; a file that ends before those of its image is damaged, and not another object."""
    header = opened(path, pixels=False)
    if "Rows" not in header and text(header, "Modality") in ("", "MG"):
        remedy = "The file is damaged: copy it again from its source, or leave it out"
        raise ImageFileError(path, f"no attributes of an image ({path.stat().st_size} bytes)", remedy)
    return header


class Sources:
    """The images of a run, looked at when first asked for: those to be done, and those whose outcome is known.

    Args:
        dataset_dir: folder of low-energy images, or one image file.
        output_dir: folder for the results.
        accepted_kinds: kinds of image (values of ``bundle.dicom.Kind``) that may be given to the network.
        files: the images to take, in place of all that lie in ``dataset_dir``.
    """

    def __init__(
        self,
        dataset_dir: str | PathLike[str],
        output_dir: str | PathLike[str],
        accepted_kinds: Collection[str] = INPUT_KINDS,
        files: Iterable[str | PathLike[str]] | None = None,
    ) -> None:
        unknown = sorted(set(accepted_kinds) - set(Kind))
        if unknown:
            raise ValueError(f"accepted_kinds has {unknown}, expected some of {', '.join(Kind)}. Correct the config.")
        self.root = Path(dataset_dir).absolute()
        self.output_dir = Path(output_dir).absolute()
        self.accepted_kinds = tuple(accepted_kinds)
        self._files = None if files is None else [Path(file).absolute() for file in files]

    @property
    def folder(self) -> Path:
        """The folder that names in the report are relative to."""
        return self.root.parent if self.root.is_file() else self.root

    def name(self, source: Path) -> str:
        """The name of an image in the report."""
        return source.relative_to(self.folder).as_posix() if source.is_relative_to(self.folder) else str(source)

    def output_path(self, source: Path) -> Path:
        """Where the virtual DES of ``source`` is written."""
        stem, suffix = split_name(source)
        inside = source.is_relative_to(self.folder)
        folder = source.parent.relative_to(self.folder) if inside else Path()
        return self.output_dir / folder / f"{stem}{OUTPUT_SUFFIX}{suffix}"

    def output_name(self, source: Path) -> str:
        """The name of its result in the report."""
        return self.output_path(source).relative_to(self.output_dir).as_posix()

    @property
    def pending(self) -> list[Path]:
        """The images to be done.

        Raises:
            FileNotFoundError: there is no image in ``dataset_dir``.
        """
        return self._sorted[0]

    @property
    def known(self) -> list[ReportRow]:
        """The images that have a result already, are refused or cannot be read; errors as for ``pending``."""
        return self._sorted[1]

    @cached_property
    def _sorted(self) -> tuple[list[Path], list[ReportRow]]:
        files = find_images(self.root) if self._files is None else self._files
        pending, known = [], []
        quiet = len(files) < _MANY or not sys.stderr.isatty()
        for source in tqdm(files, desc="looking at headers", unit="image", leave=False, disable=quiet):
            row = self._known_outcome(source)
            if row is None:
                pending.append(source)
            else:
                known.append(row)
        return pending, known

    def _known_outcome(self, source: Path) -> ReportRow | None:
        if self.output_path(source).exists():
            return ReportRow(self.name(source), "skipped", self.output_name(source), "the result exists already")
        suffix = file_suffix(source)
        if suffix not in SUFFIXES:
            known = " ".join(filter(None, SUFFIXES))
            return ReportRow(
                self.name(source), "failed", reason=f"unknown suffix {suffix!r}; expected DICOM or {known}"
            )
        try:
            refused = self._refused(source, suffix)
        except ImageFileError as error:
            return ReportRow(self.name(source), "failed", reason=f"{error.problem}. {error.remedy}")
        return ReportRow(self.name(source), "refused", reason=refused) if refused else None

    def _refused(self, source: Path, suffix: str) -> str | None:
        """Why an image must not be given to the network; None if it may."""
        if SUFFIXES[suffix] == "pydicom":
            return refusal(_header(source), self.accepted_kinds)
        inside = source.relative_to(self.folder.parent) if source.is_relative_to(self.folder) else source
        named = named_kind(inside)
        return None if named is None or named[0] in self.accepted_kinds else f"{named[0]}: it is called {named[1]}"
