"""CESM studies as they come from a PACS: a folder of DICOM files, or a DICOMDIR, becomes a dataset without names."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from bundle.dicom import Kind
from bundle.reader import ImageFileError
from scripts.prepare.dicom_instance import Instance
from scripts.prepare.dicom_masks import MaskFinder
from scripts.prepare.dicom_pairing import MINUTES, ExposurePair, pair_exposures
from scripts.prepare.dicom_patients import Identity, identities
from scripts.prepare.dicom_report import Report
from scripts.prepare.dicom_scan import Scan, archive_at, scan
from scripts.prepare.dicom_source import DicomSource
from scripts.prepare.options import add_options
from scripts.prepare.pipeline import import_views
from scripts.prepare.pseudonyms import KEY_FILE, Pseudonyms, normalised, open_private, write_key
from scripts.prepare.quiet_dicom import quiet
from scripts.prepare.segmentation import LesionMask
from scripts.prepare.view import View

SUMMARY = "a folder or DICOMDIR of contrast mammography studies; patients get pseudonyms"
EXAMPLE = r"""  python scripts/prepare_data.py dicom /archive/studies --output data/clinic --private /safe/clinic"""
UNKNOWN_VIEW = "UNKNOWN"
_PARTNER = "Export the whole study: both images of a view are needed"
_TOO_FAR = "If the images were computed later, give a larger --minutes; else export the whole study"
_ONE_BREAST = "Cut it into one image for each breast"
_NO_PATIENT = "Write a PatientID into its header: without, the images of a patient cannot be kept together"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source to its subcommand."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "archive", type=Path, metavar="ARCHIVE", help="folder of DICOM files at any depth, or a DICOMDIR"
    )
    files.add_argument("--masks", type=Path, metavar="DIR", help="folder of lesion masks: DICOM SEG, or image files")
    files.add_argument(
        "--segment-label",
        metavar="REGEX",
        help="segments that count as lesion, by label or description; default: all but those of normal anatomy",
    )
    files.add_argument(
        "--private",
        type=Path,
        metavar="DIR",
        help=f"folder of the salt and of {KEY_FILE}, which resolves the pseudonyms; default: DATASET_DIR.private",
    )
    files.add_argument(
        "--minutes",
        type=_minutes,
        default=MINUTES,
        help=f"longest time between the two images of a view; default: {MINUTES:g}",
    )
    add_options(parser)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return minutes


def run(options: argparse.Namespace) -> int:
    """Make the dataset the options describe; return the exit status."""
    pattern = _compiled(options.segment_label)
    output = options.output.resolve()
    _require_apart(options)
    private: Path = options.private or output.with_name(f"{output.name}.private")
    apart = [output, private] + ([] if options.masks is None else [options.masks])
    archive = archive_at(options.archive, apart)
    mask_archive = None if options.masks is None else archive_at(options.masks, [output, private])
    with quiet():
        names = open_private(private, output)
        found = scan(archive, options.workers, not options.quiet)
        masks = None if mask_archive is None else scan(mask_archive, options.workers, not options.quiet)
        report = Report(names, archive, mask_archive)
        views = _Import(names, report, options.minutes).views(found, masks, pattern)
    write_key(private, report.key_rows)
    _print_found(found, views, report, private, pattern is not None)
    with quiet():
        return import_views(views, report.left_out, options)


def _require_apart(options: argparse.Namespace) -> None:
    """Refuse one folder for two things: all in a folder of masks is a mask, and nothing in the output is a source."""
    folders = {"ARCHIVE": options.archive, "--output": options.output, "--masks": options.masks}
    given = [(name, folder.resolve()) for name, folder in folders.items() if folder is not None]
    for place, (name, folder) in enumerate(given):
        for other, same in given[:place]:
            if folder == same:
                advice = " Masks that lie in the archive are found without --masks." if name == "--masks" else ""
                raise ValueError(f"{other} and {name} are the same folder, {folder}. Give two folders.{advice}")


def _compiled(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"--segment-label {text!r} is not a regular expression: {error}.") from error


def _print_found(found: Scan, views: Sequence[View], report: Report, private: Path, chosen: bool) -> None:
    kinds = Counter(str(one.kind) for one in found.instances)
    counts = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(kinds.items()))
    print(f"{len(found.instances)} DICOM objects{f': {counts}' if counts else ''}")
    print(f"patients and files are named by pseudonyms; {private / KEY_FILE} resolves them")
    if report.segments and not chosen:
        used = ", ".join(f"{label} ({count})" for label, count in sorted(report.segments.items()))
        print(f"segments taken as lesions: {used}; --segment-label chooses among them")
    if report.nameless_studies:
        print(
            f"WARNING: {len(report.nameless_studies)} studies have no PatientID: each counts as a patient of its own. "
            "Make sure that no patient has two of them, or she may be in training and in test.",
            file=sys.stderr,
        )
    if views:
        return
    for one in report.left_out[:20]:
        print(f"  {one.file}: {one.reason}", file=sys.stderr)
    needed = f"{kinds[Kind.LOW_ENERGY]} low-energy and {kinds[Kind.SUBTRACTED]} subtracted images"
    print(f"Nothing to pair: {needed} were found, expected at least one of each of a view.", file=sys.stderr)


@dataclass(frozen=True)
class _Found:
    """A pair before its case has a name."""

    image: Instance
    label: Instance
    patient: str
    side: Literal["L", "R"]
    view: str
    notes: tuple[str, ...]

    @property
    def place(self) -> tuple[str, str, str]:
        return self.patient, self.side, self.view


@dataclass(frozen=True)
class _Import:
    names: Pseudonyms
    report: Report
    minutes: float

    def views(self, found: Scan, masks: Scan | None, pattern: re.Pattern[str] | None) -> list[View]:
        """All cases of an archive; the report gets what is none."""
        self.report.scanned(found)
        unique = self._unique(found.instances)
        self.report.kinds(unique)
        patients = identities(unique)
        pairs = self._pairs(unique, patients)
        finder = MaskFinder(self.report, pattern)
        paired = {one.uid for pair in pairs for one in (pair.image, pair.label)}
        lesions = finder.masks(unique, found.others, masks, paired)
        studies = _study_numbers(unique, {uid: self.names.patient(one.identifier) for uid, one in patients.items()})
        return self._named(pairs, lesions, studies)

    def _unique(self, instances: Sequence[Instance]) -> list[Instance]:
        """One object for each SOPInstanceUID: the largest file, for copies may be cut off, and the others for need."""
        by_uid: dict[str, list[Instance]] = defaultdict(list)
        for one in instances:
            by_uid[one.uid].append(one)
        kept = []
        for files in by_uid.values():
            copies = [one for one in files if one.whole and one.kind is not Kind.OTHER] or files
            if len({_shown(one) for one in copies}) > 1:
                self.report.same_uid(files)
                continue
            best, *others = sorted(copies, key=lambda one: -one.size)
            kept.append(replace(best, copies=tuple(one.path for one in others)))
            self.report.copies([one for one in files if one is not best])
        return kept

    def _pairs(self, instances: Sequence[Instance], patients: Mapping[str, Identity]) -> list[_Found]:
        wanted = [one for one in instances if one.kind in (Kind.LOW_ENERGY, Kind.SUBTRACTED)]
        for one in wanted:
            if one.both:
                self.report.add("-", one.path, f"{one.kind}: shows both breasts", _ONE_BREAST)
        wanted = [one for one in wanted if not one.both]
        known = {one.uid: one for one in wanted if one.uid in patients}
        for one in wanted:
            if one.uid not in known:
                self.report.add("-", one.path, f"{one.kind} of an unknown patient", _NO_PATIENT)
        for uid, one in known.items():
            patient = self.names.patient(patients[uid].identifier)
            self.report.patient(patient, patients[uid].identifier)
            if patients[uid].by_study:
                self.report.nameless_studies.add(one.study)
            known[uid] = replace(one, exposure=replace(one.exposure, study=f"{patient} {one.study}"))
        images, labels = (
            [one.exposure for one in known.values() if one.kind is kind] for kind in (Kind.LOW_ENERGY, Kind.SUBTRACTED)
        )
        pairs, unpaired = pair_exposures(images, labels, self.minutes)
        for alone in unpaired:
            one, patient = known[alone.exposure.uid], self.names.patient(patients[alone.exposure.uid].identifier)
            name = f"{patient}_{alone.exposure.laterality or '?'}_{alone.exposure.view or '?'}"
            self.report.add(name, one.path, f"{one.kind}: {alone.reason}", _TOO_FAR if alone.too_far else _PARTNER)
        found = (self._found(pair, known, patients[pair.image.uid]) for pair in pairs)
        return [one for one in found if one is not None]

    def _found(self, pair: ExposurePair, known: Mapping[str, Instance], identity: Identity) -> _Found | None:
        image, label = known[pair.image.uid], known[pair.label.uid]
        notes = [*pair.notes, *(f"{one.kind}: {one.reason}" for one in (image, label) if "although" in one.reason)]
        side = pair.laterality
        patient = self.names.patient(identity.identifier)
        if side is None:
            try:
                side = DicomSource(image.path, self.report.label(image.path), copies=image.copies).decoded().laterality
            except ImageFileError as error:
                self.report.add(patient, image.path, f"{image.kind}: {error.problem}", error.remedy)
                return None
            notes.append("side from the pixels")
        if identity.by_study:
            notes.append("no PatientID: the study counts as a patient")
        if identity.by_name:
            notes.append("no PatientID: the patient by name and date of birth")
        if pair.view is None:
            notes.append("no view in either header")
        right: Literal["L", "R"] = "R" if side == "R" else "L"
        return _Found(image, label, patient, right, pair.view or UNKNOWN_VIEW, tuple(notes))

    def _named(
        self, pairs: Iterable[_Found], lesions: Mapping[str, LesionMask], studies: Mapping[str, int]
    ) -> list[View]:
        """Views in a fixed order, those of one side and view of a patient numbered in the order of time."""
        counts: Counter[tuple[str, str, str]] = Counter()
        views = []
        for pair in sorted(pairs, key=lambda one: (one.place, one.image.taken, one.image.uid)):
            counts[pair.place] += 1
            image = self._source(pair.image, pair.side)
            number = f"_{counts[pair.place]}" if counts[pair.place] > 1 else ""
            views.append(
                View(
                    name="_".join(pair.place) + number,
                    patient_id=pair.patient,
                    laterality=pair.side,
                    view=pair.view,
                    image=image,
                    label=self._source(pair.label, pair.side, image),
                    mask=lesions.get(pair.image.uid),
                    label_mask=lesions.get(pair.label.uid),
                    info=_info(pair, studies),
                    same_grid=True,
                )
            )
        return views

    def _source(self, one: Instance, side: str, partner: DicomSource | None = None) -> DicomSource:
        return DicomSource(one.path, self.report.label(one.path), side, one.copies, partner)


def _shown(one: Instance) -> tuple[object, ...]:
    """What all copies of an object have in common."""
    exposure = one.exposure
    return one.kind, one.study, exposure.laterality, exposure.view, exposure.acquired, normalised(one.patient)


def _info(pair: _Found, studies: Mapping[str, int]) -> dict[str, Any]:
    info = pair.label.info | pair.image.info | {"study": studies[pair.image.uid]}
    return info | ({"notes": list(pair.notes)} if pair.notes else {})


def _study_numbers(instances: Iterable[Instance], patients: Mapping[str, str]) -> dict[str, int]:
    """SOPInstanceUID -> 1, 2, ... for the studies of a patient, by date."""
    known = [one for one in instances if one.uid in patients]
    start: dict[tuple[str, str], datetime] = {}
    for one in known:
        key = patients[one.uid], one.study
        start[key] = min(start.get(key, one.taken), one.taken)
    ordered: dict[str, list[str]] = defaultdict(list)
    for patient, study in sorted(start, key=lambda key: (start[key], key)):
        ordered[patient].append(study)
    return {one.uid: 1 + ordered[patients[one.uid]].index(one.study) for one in known}
