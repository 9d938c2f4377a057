"""The commands that make the weights, one after the other; each goes on where an interrupted one stopped."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bundle.checkpoint import save_atomically
from bundle.exports import remove_exports
from bundle.saved_state import load_saved

__all__ = ["CONFIGS", "ROOT", "Recipe", "keep_in_16_bits", "run"]

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ("configs/train.json", "configs/l1.yaml", "configs/weights.yaml")
SECOND = "configs/weights_256.yaml"
EVERYBODY = "configs/weights_all.yaml"
_NAME = "512-px CDD-CESM derivative"


@dataclass(frozen=True)
class Recipe:
    """Where everything lies.

    The two trainings are done twice: without the test and validation patients, to choose the epoch and to measure the
    recipe, and then with all patients, which gives the weights.

    Args:
        source: folder with ``LE``, ``DES``, ``mask_LE``, ``mask_DES`` and ``index.csv``.
        output: folder of the data set and the trainings.
        models: folder of the weights, their TorchScript and, in ``model_card``, what is said of them.
        overrides: values of the config for all trainings, by id, to make a shorter one.
    """

    source: Path
    output: Path
    models: Path
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The data set."""
        return self.output / "data"

    @property
    def stages(self) -> tuple[Path, Path]:
        """Folders of the trainings that leave patients out, at 128 and at 256 pixels."""
        return self.output / "first", self.output / "second"

    @property
    def final_stages(self) -> tuple[Path, Path]:
        """Folders of the same trainings with all patients."""
        return self.output / "all_first", self.output / "all_second"

    @property
    def weights(self) -> Path:
        """The weights."""
        return self.models / "model.pt"

    @property
    def card(self) -> Path:
        """Folder of the model card."""
        return self.models / "model_card"

    def prepare(self) -> list[str]:
        """The command that makes folds by patient of the images, which stay where they are."""
        names = {"--image-dir": "LE", "--label-dir": "DES", "--mask-dir": "mask_LE", "--label-mask-dir": "mask_DES"}
        folders = [word for option, name in names.items() for word in (option, str(self.source / name))]
        table = ["--table", str(self.source / "index.csv"), "--laterality-column", "side"]
        table += ["--exclude-below", "breast_iou", "0.9", "--info-columns", "DES_findings"]
        return ["scripts/prepare_data.py", "pairs", *folders, *table, "--folds", "10", "--name", _NAME,
                "--output", str(self.data)]  # fmt: skip

    def train(self, stage: int, *, everybody: bool) -> list[str]:
        """The command of the first training (0) or of the second one (1), which starts from the first's networks."""
        configs = [*CONFIGS, *([SECOND] if stage else []), *([EVERYBODY] if everybody else [])]
        folders = self.final_stages if everybody else self.stages
        more = {"initial_weights": folders[0] / "best_networks.pt"} if stage else {}
        return self._bundle("training", configs, folders[stage], {**more, "resume": True})

    def evaluate(self, section: str) -> list[str]:
        """The command that scores what was trained without the ``test`` and ``validation`` patients on one of them."""
        folder = self.stages[1]
        return self._bundle("evaluating", [*CONFIGS, SECOND, "configs/evaluate.json"], folder, {"section": section})

    def export(self) -> list[str]:
        """The command that writes the TorchScript."""
        own = {name: value for name, value in self.overrides.items() if name.startswith("network_def")}
        options = [word for name, value in own.items() for word in (f"--{name}", value)]
        return ["scripts/export.py", "--model-path", str(self.weights), *options]

    def _bundle(self, what: str, configs: Sequence[str], folder: Path, more: Mapping[str, Any]) -> list[str]:
        place = {"bundle_root": ROOT, "dataset_dir": self.data, "output_dir": folder}
        options = {**place, **more, **self.overrides}
        files = str([str(ROOT / name) for name in configs])
        line = ["-m", "monai.bundle", "run", what, "--config_file", files]
        return [*line, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def run(command: Sequence[str], accepted: Sequence[int] = (0,)) -> None:
    """Show a command and run it in the bundle's folder.

    Raises:
        RuntimeError: it has failed; what it printed says why.
    """
    print(f"\n$ python {shlex.join(command)}", flush=True)
    if (code := _executed(command)) not in accepted:
        raise RuntimeError(f"the command above ended with {code}; the same make_weights command goes on from there")


def _executed(command: Sequence[str]) -> int:
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode  # noqa: S603 (our own commands)


def keep_in_16_bits(trained: Path, kept: Path) -> None:
    """Write weights as 16-bit floats, half as large: rounding errors of 0.05 % at most.

    Raises:
        ValueError: a weight is too large for that.
    """
    state: dict[str, torch.Tensor] = load_saved(trained)
    halves = {name: tensor.half() for name, tensor in state.items()}
    large = [name for name, tensor in halves.items() if not bool(tensor.isfinite().all())]
    if large:
        raise ValueError(f"{trained}: {', '.join(large)} has no place in 16 bits; train with a lower learning rate")
    kept.parent.mkdir(parents=True, exist_ok=True)
    remove_exports(kept)
    save_atomically(halves, kept)
