"""Fixtures of all tests: tiny data, tiny networks, and the place of real data where there are any."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bundle.losses import DiscriminatorObjective, GeneratorObjective
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.trainer import CycleGANTrainer
from scripts.prepare.view import View
from tests.archives.pairs import write_views

Module = TypeVar("Module", bound=nn.Module)
# Tests compare sums bit for bit and fork the processes that train, neither of which a GPU allows. They are the same
# everywhere: a machine's GPUs are hidden, unless CUDA_VISIBLE_DEVICES names some. Nothing above has asked for a GPU.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# As in the processes that tests start: several threads would sum in another order, and slow each other down.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
TINY = {
    "image_size": 32,
    "network_def#width": 4,
    "network_def#blocks": 1,
    "discriminator_a_def#width": 4,
    "discriminator_a_def#layers": 1,
    "batch_size": 4,
    "learning_rate": 1e-3,
}
"""Overrides of train.json that let a whole training take seconds."""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that tests find out about their files is kept in the user's cache folder."""
    os.environ.setdefault("MPLCONFIGDIR", mpl.get_cachedir())  # its list of fonts takes long to make
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images for development; skips the test where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real images for development are not on this machine (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datalist of 18 cases of 6 patients in 3 folds: 40 x 32 pixels, 16 bit, a bright lesion in half of them."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    cases = []
    for number in range(18):
        name, left = f"{number:02d}", number % 2 == 0
        lesion = np.zeros((40, 32), dtype=bool)
        lesion[10:16, 8:14] = True
        breast = np.zeros((40, 32))
        breast[4:36, :24] = rng.uniform(0.3, 0.6, (32, 24))
        label = breast * 0.7 + 0.3 * lesion
        side = slice(None) if left else slice(None, None, -1)
        for kind, pixels in (("LE", breast), ("DES", label), ("mask", lesion.astype(float))):
            _write_png(folder / kind / f"{name}.png", pixels[:, side], 8 if kind == "mask" else 16)
        case = {"image": f"LE/{name}.png", "label": f"DES/{name}.png", "patient_id": f"P{number // 3}"}
        case |= {"laterality": "L" if left else "R", "view": "CC"}
        full: dict[str, Any] = {**case, "fold": number // 6, "label_window": [32767.5, 65535.0]}
        cases.append(full | ({"mask": f"mask/{name}.png"} if number % 2 else {}))
    content = {"name": "tiny", "synthetic": True, "num_folds": 3, "cases": cases}
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def _write_png(path: Path, pixels: np.ndarray[Any, Any], bits: int) -> None:
    path.parent.mkdir(exist_ok=True)
    top, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    Image.fromarray((pixels.clip(0, 1) * top).astype(kind)).save(path)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three pairs of 32 x 32 pixels in [0, 1], in float64, the last without a lesion."""
    generator = torch.Generator().manual_seed(1)
    image, label = torch.rand(2, 3, 1, 32, 32, generator=generator, dtype=torch.float64)
    mask = torch.zeros(3, 1, 32, 32, dtype=torch.float64)
    mask[0, 0, 4:12, 8:20] = 1
    mask[1, 0, 20:30, 2:9] = 1
    return {"image": image, "label": label, "mask": mask, "label_mask": mask.flip(2)}


def in_memory(module: Module, memory_format: torch.memory_format = torch.channels_last) -> Module:
    """The module itself, its parameters in this memory format."""
    module.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's overloads leave it out
    return module


@pytest.fixture
def make_trainer() -> Callable[..., CycleGANTrainer]:
    """Build a trainer of tiny networks; keyword arguments go to the objective, the rest is fixed."""

    def make(dtype: torch.dtype = torch.float64, learning_rate: float = 1e-3, **options: Any) -> CycleGANTrainer:
        torch.manual_seed(0)
        trainer_options = {k: options.pop(k) for k in ("pool_size", "amp", "amp_kwargs") if k in options}
        g_ab, g_ba = (in_memory(ResnetGenerator(width=4, blocks=1).to(dtype)) for _ in range(2))
        d_a, d_b = (in_memory(PatchGAN(width=4, layers=1).to(dtype)) for _ in range(2))
        of_g, of_d = (
            torch.optim.Adam([*a.parameters(), *b.parameters()], lr=learning_rate, betas=(0.5, 0.999), fused=True)
            for a, b in ((g_ab, g_ba), (d_a, d_b))
        )
        return CycleGANTrainer(
            "cpu", 1, [], g_ab, g_ba, d_a, d_b, of_g, of_d, GeneratorObjective(**options), DiscriminatorObjective(),
            **trainer_options,
        )  # fmt: skip

    return make


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    """Views of a small archive of image files, as importers hand them over."""
    return write_views(tmp_path / "archive")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A dataset folder that is not there yet."""
    return tmp_path / "data"
