"""Cases of a dataset folder, their folds, and a dataset whose augmentation can be repeated exactly."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from monai.data.dataset import CacheDataset
from monai.transforms.compose import Compose
from torch import distributed
from torch.utils.data import Sampler

from bundle import ranks
from bundle.preflight import check_datalist, format_table

__all__ = [
    "DATALIST",
    "EpochDataset",
    "EpochSampler",
    "checked_cases",
    "datalist_digest",
    "phantom_for",
    "read_datalist",
    "section_cases",
]

logger = logging.getLogger("cesm")

#: Name of the list of cases in a dataset folder.
DATALIST = "datalist.json"
_FILE_KEYS = ("image", "label", "mask", "label_mask")

Case = dict[str, Any]


def read_datalist(path: str | Path) -> dict[str, Any]:
    """The content of a datalist, unchecked but for its outer shape.

    Args:
        path: the dataset folder or its ``datalist.json``.

    Raises:
        ValueError: the file is missing, is not JSON, or holds no list of cases.
    """
    file = Path(path) / DATALIST if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: no readable datalist ({error}). Make one: scripts/prepare_data.py.") from error
    if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
        raise ValueError(f"{file}: expected an object holding the list `cases`. Check it: scripts/check_data.py.")  # noqa: TRY004
    return content


def datalist_digest(dataset_dir: str | Path) -> str | None:
    """The SHA-256 of the bytes of a dataset folder's datalist, in hexadecimal; None where there is no datalist."""
    file = Path(dataset_dir).expanduser() / DATALIST
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def phantom_for(dataset_dir: str | Path, bundle_root: str | Path, **arguments: Any) -> dict[str, Any] | None:
    """The arguments of the phantom for the folder in which the phantom belongs, and None for any other folder.

    Args:
        dataset_dir: the dataset folder in use, in any spelling (relative, with a slash at its end, through a link).
        bundle_root: the bundle's folder; the phantom belongs in its ``data/phantom``.
        arguments: arguments of ``make_phantom``.
    """
    folder, home = (Path(path).expanduser().resolve() for path in (dataset_dir, Path(bundle_root) / "data" / "phantom"))
    return arguments if folder == home else None


def checked_cases(dataset_dir: str | Path, phantom: Mapping[str, Any] | None = None) -> list[Case]:
    """All cases of a dataset folder, with absolute paths, once every file of it has passed the data check.

    Args:
        dataset_dir: folder holding ``datalist.json``.
        phantom: arguments of ``make_phantom``. When given, a folder that is absent or empty is filled with that
            SYNTHETIC dataset first, which is said on the standard error. A folder that holds anything is left alone.

    Returns:
        One dictionary a case, as in ``datalist.json``.

    Raises:
        SystemExit: with code 1, after all problems were printed to the standard error as one table.
    """
    folder = Path(dataset_dir).expanduser().resolve()
    if phantom is not None:
        _ensure_phantom(folder, phantom)
    if not _passes_check(folder / DATALIST):
        raise SystemExit(1)
    content = read_datalist(folder)
    if content.get("synthetic") and ranks.is_main_rank():
        logger.warning(f"{folder} is SYNTHETIC: what is trained or measured on it says nothing about patients")
    return [_absolute(case, folder) for case in content["cases"]]


def _absolute(case: Mapping[str, Any], folder: Path) -> Case:
    return {key: str(folder / value) if key in _FILE_KEYS else value for key, value in case.items()}


def _ensure_phantom(folder: Path, arguments: Mapping[str, Any]) -> None:
    """Make the phantom in a folder beside ``folder`` and rename it, so that ``folder`` is never half a dataset."""
    if folder.exists() and any(folder.iterdir()):
        return
    from bundle.phantom import make_phantom

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):  # processes started together: the others wait here
        if folder.exists() and any(folder.iterdir()):
            return
        partial = folder.parent / f".{folder.name}.partial"
        rule = "*" * 100
        print(
            f"{rule}\nNo data in {folder}: making the built-in SYNTHETIC phantom there.\n"
            "What is trained on it says nothing about patients. For your own pairs: scripts/prepare_data.py pairs\n"
            f"{rule}",
            file=sys.stderr,
            flush=True,
        )
        make_phantom(partial, **arguments)
        partial.replace(folder)


def _passes_check(datalist: Path) -> bool:
    """Check on the first process and tell the others: every file is decoded once, the table is printed once."""
    verdict = [False]
    if ranks.is_main_rank():
        problems = check_datalist(datalist)
        if problems:
            print(format_table(problems), file=sys.stderr, flush=True)
        verdict = [all(problem.level != "ERROR" for problem in problems)]
    if ranks.world_size() > 1:
        distributed.broadcast_object_list(verdict)
    return verdict[0]


def section_cases(cases: Sequence[Case], fold: int, section: str, num_folds: int | None = None) -> list[Case]:
    """The cases of one section of one cross-validation fold: ``test`` is fold k, ``validation`` k + 1, rest training.

    Args:
        cases: cases that carry ``fold``.
        fold: k, from 0 to ``num_folds - 1``.
        section: ``training``, ``validation`` or ``test``.
        num_folds: number of folds; by default the largest fold of the cases plus one.

    Raises:
        ValueError: unknown section, fold out of range, or a section without a case.
    """
    count = num_folds or 1 + max((int(case["fold"]) for case in cases), default=0)
    if section not in ("training", "validation", "test"):
        raise ValueError(f"section is {section!r}, expected training, validation or test. Correct it in the config.")
    if not 0 <= fold < count:
        raise ValueError(f"fold is {fold}, expected 0 to {count - 1} (the data have {count} folds). Set --fold.")
    test, validation = fold, (fold + 1) % count
    wanted = {"test": {test}, "validation": {validation}, "training": set(range(count)) - {test, validation}}[section]
    chosen = [case for case in cases if case["fold"] in wanted]
    if not chosen:
        raise ValueError(
            f"no case in the {section} section of fold {fold} ({len(cases)} cases in {count} folds). "
            "Make the datalist with at least 3 folds and at least as many patients."
        )
    return chosen


class EpochDataset(CacheDataset):
    """A MONAI CacheDataset whose random transforms depend on (seed, epoch, index) and on nothing else.

    ``dataset[(epoch, index)]`` seeds the transforms, then gives item ``index``: the same with any number of worker
    processes, in any order, and after a resume. ``dataset[index]`` is epoch 0. The results of the transforms before
    the first random one are kept in memory (see ``CacheDataset`` for ``cache_rate`` and the other arguments).

    Args:
        data: the cases.
        transform: a ``Compose`` or a sequence of transforms.
        seed: seed of the augmentation.
        kwargs: arguments of ``CacheDataset``.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable[..., Any]] | Callable[..., Any] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.seed = int(seed)
        super().__init__(data=data, transform=transform, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        """Item ``index`` of epoch 0, or item ``(epoch, index)``; a slice or a list gives a ``Subset``."""
        if isinstance(index, (int, np.integer)):
            index = (0, index)
        if not isinstance(index, tuple):
            return super().__getitem__(index)
        epoch, position = (int(number) for number in index)
        position = range(len(self))[position]  # counts negative positions from the end
        if isinstance(self.transform, Compose):
            stream = np.random.SeedSequence([self.seed, epoch, position])
            self.transform.set_random_state(seed=int(stream.generate_state(1)[0]))
        return self._transform(position)


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields ``(epoch, index)`` for an ``EpochDataset``, in an order that depends on (seed, epoch) only.

    When ``torch.distributed`` is initialised each process takes every n-th index; the list is filled up from its
    start so that all processes have equally many. Call ``set_epoch`` before each epoch.

    Args:
        data: what is sampled; only its length is used.
        seed: seed of the order.
        shuffle: False keeps the order of the data.
        num_replicas: number of processes; None asks ``torch.distributed`` each time.
        rank: number of this process; None asks ``torch.distributed`` each time.
    """

    def __init__(
        self,
        data: Sized,
        seed: int = 0,
        shuffle: bool = True,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        self.data, self.seed, self.shuffle = data, int(seed), shuffle
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration over this sampler."""
        self.epoch = int(epoch)

    def _shares(self) -> int:
        return self.num_replicas or ranks.world_size()

    def __len__(self) -> int:
        """Number of items of this process in one epoch."""
        return math.ceil(len(self.data) / self._shares())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The (epoch, index) pairs of this process; the epoch is fixed when the iteration begins."""
        order = np.arange(len(self.data))
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        shares, rank = self._shares(), ranks.rank() if self.rank is None else self.rank
        filled = np.resize(order, len(self) * shares) if len(order) else order
        return iter([(self.epoch, int(index)) for index in filled[rank::shares]])
