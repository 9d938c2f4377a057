"""Write a phantom dataset: images, masks and, last of all, datalist.json."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.files import atomic_path, write_text
from bundle.phantom.acquisition import LABEL_WINDOW
from bundle.phantom.beams import site_named
from bundle.phantom.patient import LESION_KINDS, Patient, draw_patient
from bundle.phantom.render import MIN_SIZE, render_view
from bundle.threads import thread_pool

MIN_PATIENTS = 3
FOLD_STREAM = 2**31
"""Stands where a patient's number stands in the other streams."""
FOLDERS = ("LE", "DES", "mask")
FILE_NAME = re.compile(r"\.?P\d{4,}_[LR]_(CC|MLO)(\.\d+)?\.png")
"""Our images, and the temporary names that an interruption may leave."""
NOTICE_NAME = "SYNTHETIC.txt"
NOTICE = """These images are SYNTHETIC: made by bundle.phantom, no patient data.
The dataset is complete when datalist.json is here. Making a phantom in this folder again replaces it.
"""


@dataclass(frozen=True)
class ViewTask:
    """One view to render and write."""

    root: Path
    seed: int
    patient: int
    laterality: str
    view: str
    size: int
    site: str
    fold: int
    masks: bool

    @property
    def name(self) -> str:
        """File name without suffix, unique in the dataset."""
        return f"P{self.patient + 1:04d}_{self.laterality}_{self.view}"


def make_phantom(
    output_dir: str | os.PathLike[str],
    patients: int = 100,
    size: int = 256,
    site: str = "W",
    seed: int = 0,
    num_folds: int = 10,
    masks: bool = True,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a SYNTHETIC dataset of LE/DES pairs and return the path of its datalist.json.

    Files: ``LE/NAME.png`` and ``DES/NAME.png`` (16 bit), ``mask/NAME.png`` (8 bit, 0 or 255, only with a lesion) and
    ``datalist.json``, which is written last: as long as it is absent the dataset is incomplete; call again to finish.

    Args:
        output_dir: folder to write to; made if absent. An earlier phantom in it is replaced, other data are refused.
        patients: number of patients (at least 3), each with one to four views.
        size: pixels per side (at least 32).
        site: ``"W"`` or ``"Rh"``; the sites share no patients.
        seed: non-negative; the same seed gives the same bytes, with any number of workers.
        num_folds: folds of the cross-validation, by patient; with fewer patients there is one fold per patient.
        masks: False leaves the lesion masks out, as in a pre-training set.
        workers: threads (NumPy, SciPy and zlib release the interpreter's lock); None takes all cores.
        progress: whether to show a bar.

    Raises:
        ValueError: for arguments out of range.
        FileExistsError: if the folder holds data that this function did not make.
    """
    check_arguments(patients, size, site, seed, num_folds, workers)
    root = Path(output_dir)
    prepare_folder(root)
    num_folds = min(num_folds, patients)
    tasks = list_views(root, patients, size, site, seed, num_folds, masks)
    cases = list(show_progress(render_all(tasks, workers or available_cores()), len(tasks), progress))
    datalist = {
        "name": f"cesm_phantom_{site}",
        "description": f"SYNTHETIC: physics-based CESM phantom (site {site}, seed {seed}, {size} px). No patient data.",
        "synthetic": True,
        "num_folds": num_folds,
        "cases": cases,
    }
    return write_text(root / "datalist.json", json.dumps(datalist, indent=1) + "\n")


def list_views(
    root: Path, patients: int, size: int, site: str, seed: int, num_folds: int, masks: bool
) -> list[ViewTask]:
    """Return every view of a dataset, with the fold of its patient. Arguments as in :func:`make_phantom`."""
    people = [draw_patient(seed, site_named(site).index, number) for number in range(patients)]
    folds = assign_folds(people, num_folds, seed)
    return [
        ViewTask(root, seed, number, laterality, view, size, site, folds[number], masks)
        for number, person in enumerate(people)
        for laterality, view in person.views
    ]


def check_arguments(patients: int, size: int, site: str, seed: int, num_folds: int, workers: int | None) -> None:
    """Raise ValueError for the first argument that is out of range."""
    site_named(site)
    for name, value, least in (
        ("patients", patients, MIN_PATIENTS),
        ("size", size, MIN_SIZE),
        ("seed", seed, 0),
        ("num_folds", num_folds, 3),
        ("workers", 1 if workers is None else workers, 1),
    ):
        if value < least:
            raise ValueError(f"{name}={value} is too small: expected at least {least}.")


def prepare_folder(root: Path) -> None:
    """Make the folder and empty it of an earlier phantom, finished or not; refuse anybody else's data."""
    datalist, notice = root / "datalist.json", root / NOTICE_NAME
    pictures = [path for folder in FOLDERS for path in (root / folder).glob("*")]
    if not (notice.exists() or is_synthetic(datalist)) and (pictures or datalist.exists()):
        found = datalist if datalist.exists() else pictures[0]
        raise FileExistsError(
            f"{found} was not made by the phantom: choose another output folder, nothing was changed."
        )
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    datalist.unlink(missing_ok=True)
    write_text(notice, NOTICE)
    for path in pictures:
        if FILE_NAME.fullmatch(path.name):
            path.unlink()


def is_synthetic(datalist: Path) -> bool:
    """Return whether a datalist is there and says that its data are synthetic."""
    try:
        content = json.loads(datalist.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("synthetic") is True


def assign_folds(people: list[Patient], num_folds: int, seed: int) -> list[int]:
    """Return a fold per patient such that the folds hold alike numbers of patients, views and lesion kinds."""
    shuffled = np.random.default_rng([seed, FOLD_STREAM]).permutation(len(people))

    def stratum(number: int) -> tuple[int, ...]:
        person = people[number]
        kinds = [LESION_KINDS.index(lesion.kind) for lesion in person.lesions if lesion is not None]
        return (len(person.views), min(kinds, default=len(LESION_KINDS)), person.density)

    folds = [0] * len(people)
    for place, number in enumerate(sorted(shuffled.tolist(), key=stratum)):
        folds[number] = place % num_folds
    return folds


def render_all(tasks: list[ViewTask], workers: int) -> Iterator[dict[str, object]]:
    """Yield the datalist entries of the tasks in order."""
    with thread_pool(workers) as pool:
        yield from pool.map(write_view, tasks)


def write_view(task: ViewTask) -> dict[str, object]:
    """Render and write one view; return its datalist entry."""
    view = render_view(task.seed, task.patient, task.view, task.laterality, task.size, task.site)
    write_png(task.root / "LE" / f"{task.name}.png", view.image)
    write_png(task.root / "DES" / f"{task.name}.png", view.label)
    entry: dict[str, object] = {"image": f"LE/{task.name}.png", "label": f"DES/{task.name}.png"}
    if task.masks and view.mask.any():
        write_png(task.root / "mask" / f"{task.name}.png", view.mask.astype(np.uint8) * 255)
        entry["mask"] = f"mask/{task.name}.png"
    entry |= {"patient_id": f"P{task.patient + 1:04d}", "laterality": task.laterality, "view": task.view}
    entry |= {"fold": task.fold, "label_window": list(LABEL_WINDOW), "info": view.info}
    return entry


def write_png(path: Path, pixels: NDArray[np.generic]) -> None:
    """Write a uint8 or uint16 array as PNG, through a temporary name."""
    from PIL import Image

    with atomic_path(path) as unfinished:
        Image.fromarray(pixels).save(unfinished, format="PNG", compress_level=4)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show_progress(entries: Iterable[dict[str, object]], total: int, visible: bool) -> Iterable[dict[str, object]]:
    """Wrap ``entries`` in a progress bar."""
    if not visible:
        return entries
    from tqdm import tqdm

    return tqdm(entries, total=total, desc="phantom", unit="view")
