"""The data path beside a plain MONAI pipeline, and the preparation of a mammogram beside its bare decoding."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImage,
    LoadImaged,
    RandAffined,
    RandFlipd,
    RandRotated,
    RandZoomd,
    Resized,
    ScaleIntensityRangePercentilesd,
)

from bundle.data import EpochDataset, EpochSampler, read_datalist
from bundle.networks import ResnetGenerator
from bundle.reader import MammogramReader
from scripts.benchmarking.measure import Row, Timing, compare, ratio, threads
from scripts.benchmarking.samples import SYNTAXES, mammogram, write_dataset, write_dicom
from scripts.prepare.conversion import Settings
from scripts.prepare.dicom_source import DicomSource
from scripts.prepare.view import View
from scripts.prepare.workers import prepare

__all__ = ["rows"]

PART = "data"
ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("image", "label")
KEYS = (*IMAGES, "mask")
MODES = ("bilinear", "bilinear", "nearest")
BATCH = 8


def rows(size: int = 256, full_size: tuple[int, int] | None = None, budget_s: float = 12.0) -> list[Row]:
    """All figures of the data path, on one thread.

    Args:
        size: side of the images of training.
        full_size: (rows, columns) of the mammograms; default 3328 x 2560.
        budget_s: longest time for each comparison.
    """
    with tempfile.TemporaryDirectory() as folder, threads(1):
        found = _training(Path(folder) / "set", size, budget_s)
        for name in SYNTAXES:
            found += _preparation(Path(folder) / "dicom", name, full_size, budget_s)
    return found


# ---------------------------------------------------------------------------------------------------- training
@dataclass
class _Items:
    """The items of a data set one after the other, epoch after epoch."""

    data: EpochDataset | CacheDataset | Dataset

    def __post_init__(self) -> None:
        self._number = count()

    def __call__(self) -> None:
        for _ in range(len(self.data)):
            epoch, index = divmod(next(self._number), len(self.data))
            self.data[(epoch, index) if isinstance(self.data, EpochDataset) else index]


def _training(folder: Path, size: int, budget_s: float) -> list[Row]:
    write_dataset(folder, 8, (2 * size, 2 * size), masks=True)
    cases = [{**case, **{key: str(folder / case[key]) for key in KEYS}} for case in read_datalist(folder)["cases"]]
    found = [_agreement(cases, 2 * size)]
    ours, plain = _ours(cases, size, 1.0), CacheDataset(cases, _plain(size), progress=False, num_workers=1)
    timings = compare({"plain": _Items(plain), "ours": _Items(ours)}, budget_s=budget_s)
    item_ms = 1000 * timings["ours"].median / len(cases)
    note = f"{size} px, image, label and two masks; {_each(timings, len(cases))}"
    found += [
        Row(PART, "cached item, all augmentations", item_ms, "ms", "<= 2", note),
        Row(PART, "cached item against plain MONAI", ratio(timings, "plain", "ours"), "x", "", "four transforms"),
    ]
    fresh = {"plain": _Items(Dataset(cases, _plain(size))), "ours": _Items(_ours(cases, size, 0.0))}
    timings = compare(fresh, 3, budget_s)
    note = f"from {2 * size} px PNG; {_each(timings, len(cases))}"
    found.append(Row(PART, "uncached item against plain MONAI", ratio(timings, "plain", "ours"), "x", "", note))
    return [*found, _on_device(cases, size, budget_s), _starvation(ours, size, budget_s)]


def _each(timings: dict[str, Timing], items: int) -> str:
    return ", ".join(f"{name} {1000 * timing.median / items:.2f} ms" for name, timing in timings.items())


def _config(size: int, **options: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "train.json")
    parser.update({"image_size": size, "label_scaling": "minmax", **options})
    return parser


def _ours(cases: list[dict[str, Any]], size: int, cache_rate: float, **options: Any) -> EpochDataset:
    transform = _config(size, **options).get_parsed_content("train#preprocessing")
    return EpochDataset(cases, transform, seed=0, cache_rate=cache_rate, num_workers=1, progress=False)


def _plain(size: int, prob: float = 0.3) -> Compose:
    """The same in MONAI's own transforms, as its tutorials combine them."""
    return Compose(
        [
            LoadImaged(KEYS, image_only=True),
            EnsureChannelFirstd(KEYS),
            ScaleIntensityRangePercentilesd(IMAGES, 0, 100, 0.0, 1.0, clip=True),
            Resized(KEYS, (size, size), mode=MODES, anti_aliasing=(True, True, False)),
            RandFlipd(KEYS, prob, 0),
            RandRotated(KEYS, np.radians(15), prob=prob, mode=MODES, padding_mode="zeros"),
            RandZoomd(KEYS, prob, 0.9, 1.1, mode=("bilinear", "bilinear", "nearest"), padding_mode="constant"),
            RandAffined(KEYS, prob=prob, translate_range=0.1 * size, mode=MODES, padding_mode="zeros"),
        ]
    )


def _agreement(cases: list[dict[str, Any]], size: int) -> Row:
    """Both pipelines give the same images where nothing is resized or moved; raise where they do not."""
    ours = _ours(cases[:1], size, 0.0, augmentation_prob=0.0)[0]
    plain: Any = _plain(size, 0.0)(dict(cases[0]))
    worst = max(float((ours[key] - plain[key].as_tensor()).abs().max()) for key in IMAGES)
    if worst > 1e-5:
        raise RuntimeError(f"the plain pipeline gives images that differ by {worst:.2g}: the times do not compare")
    return Row(PART, "largest difference from plain MONAI, unmoved", worst, "", "<= 1e-5", "intensities in [0, 1]")


def _on_device(cases: list[dict[str, Any]], size: int, budget_s: float) -> Row:
    """A batch that is moved at once beside one whose items are moved one by one; without drawing and copying."""
    config = _config(size, augmentation_prob=1.0, augment_on_device=True)
    item = _ours(cases[:1], size, 0.0, augmentation_prob=0.0)[0]
    draw, move = (
        config.get_parsed_content("train#random_transforms")[-1],
        config.get_parsed_content("train#prepare_batch"),
    )
    one_by_one = _config(size, augmentation_prob=1.0).get_parsed_content("train#random_transforms")[-1]
    drawn = [draw(item) for _ in range(BATCH)]
    batch = {
        key: torch.stack([one[key] for one in drawn]) for key in drawn[0] if isinstance(drawn[0][key], torch.Tensor)
    }
    contestants: dict[str, Callable[[], Any]] = {
        "one by one": lambda: [one_by_one(item) for _ in range(BATCH)],
        "at once": lambda: move(dict(batch), "cpu"),
    }
    timings = compare(contestants, budget_s=budget_s)
    note = f"batch {BATCH}, on this CPU, but made for a GPU; {_each(timings, BATCH)} an item"
    return Row(PART, "batch moved at once against one by one", ratio(timings, "one by one", "at once"), "x", "", note)


def _starvation(data: EpochDataset, size: int, budget_s: float) -> Row:
    """Time of the loader beside one pass of the paper's generator, which is a small part of a step."""
    loader = DataLoader(data, batch_size=1, sampler=EpochSampler(data))
    network = ResnetGenerator().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(1, 1, size, size)

    def forward() -> None:
        with torch.no_grad():
            network(image)

    timings = compare({"loader": lambda: list(loader), "network": forward}, 3, budget_s)
    share = timings["loader"].median / len(data) / timings["network"].median
    item_ms = 1000 * timings["loader"].median / len(data)
    note = f"batch 1, num_workers 0: {item_ms:.2f} ms; a step makes six such passes, and their gradients"
    return Row(PART, "loader against one pass of a generator", share, "", "<= 0.1", note)


# ---------------------------------------------------------------------------------------------------- preparation
def _preparation(folder: Path, name: str, full_size: tuple[int, int] | None, budget_s: float) -> list[Row]:
    """Preparing and reading the two images of a view, each beside the bare decoding of both."""
    images = [mammogram(seed, *(full_size or ())) for seed in (1, 2)]
    kinds = ("LOW_ENERGY", "SUBTRACTION")
    paths = [
        write_dicom(folder / f"{number}.dcm", pixels, SYNTAXES[name], 100 + number, kind)
        for number, (pixels, kind) in enumerate(zip(images, kinds, strict=True))
    ]
    sources = DicomSource(paths[0], "LE"), DicomSource(paths[1], "DES")
    view = View("P1_L_CC", "P1", "L", "CC", sources[0], sources[1], same_grid=True)
    target = folder / "prepared"

    def prepared() -> None:
        shutil.rmtree(target, ignore_errors=True)
        outcome = prepare(view, Settings(target))
        if outcome.record is None:
            raise RuntimeError(f"the benchmark's own mammogram was refused: {outcome.left_out}")

    def bare() -> list[Any]:
        return [pydicom.dcmread(path).pixel_array for path in paths]

    def through(reader: Any) -> list[Any]:
        load = LoadImage(reader=reader, image_only=True)
        return [load(path) for path in paths]

    for ours, theirs, stored in zip(through(MammogramReader()), bare(), images, strict=True):
        if not (np.array_equal(theirs, stored) and np.array_equal(np.asarray(ours).T, stored)):
            raise RuntimeError(f"{name}: the decoders give different pixels")
    contestants: dict[str, Callable[[], Any]] = {
        "bare": bare,
        "prepared": prepared,
        "reader": lambda: through(MammogramReader()),
        "ITK": lambda: through("ITKReader"),
    }
    timings = compare(contestants, 3, budget_s)
    size = "x".join(map(str, images[0].shape))
    bare_ms, prepared_ms = (500 * timings[one].median for one in ("bare", "prepared"))
    note = f"an image of {size}: bare {bare_ms:.0f} ms, prepared {prepared_ms:.0f} ms"
    return [
        Row(
            PART,
            f"preparing DICOM ({name}) against bare pydicom",
            _inverse(timings, "prepared"),
            "x time",
            "<= 1.5",
            note,
        ),
        Row(PART, f"reading DICOM ({name}) against bare pydicom", _inverse(timings, "reader"), "x time"),
        Row(PART, f"reading DICOM ({name}) against MONAI's ITKReader", ratio(timings, "ITK", "reader"), "x"),
    ]


def _inverse(timings: dict[str, Timing], contestant: str) -> float:
    return timings[contestant].median / timings["bare"].median
