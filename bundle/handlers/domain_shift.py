"""What sets the cases of an external test apart from those of the training, as a file and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from matplotlib.figure import Figure

from bundle import ranks
from bundle.domain_shift import DOMAINS, CaseSample, Reservoir, domain_shift, sample_case
from bundle.files import json_text, write_text
from bundle.handlers.cases import cases_of, gather_cases
from bundle.handlers.pictures import save
from bundle.phantom.dataset import available_cores
from bundle.predictors import image_pairs

__all__ = ["DomainShift", "draw_domain_shift"]

_TITLES = {"image": "low-energy (LE)", "label": "real DES"}


class DomainShift:
    """Compares the cases that are evaluated with those of the training, for an external test set only.

    Writes ``domain_shift.json`` (what `bundle.domain_shift.domain_shift` returns) and ``domain_shift.png``, the
    intensities inside the breast, and prints the distances. Attach it to a MONAI ``SupervisedEvaluator``. Under
    torch.distributed the cases of all ranks are joined, and rank 0 reads the training and writes.

    Args:
        output_dir: folder of the evaluation's results.
        training: training section: a data set, data loader or iterable of items with ``image`` (LE) and ``label`` (real
            DES) in [0, 1], prepared like the external cases and without augmentation.
        external_dir: the external data set; None = the cases are the training's own, and nothing is done.
        frd_cases: cases of each set, chosen at random, that the radiomics distance is taken on: each takes about two
            seconds of one core at 256 x 256 pixels.
        workers: processes for that; None = all cores of this process.
    """

    def __init__(
        self,
        output_dir: str | Path,
        training: Iterable[Mapping[str, Any]],
        external_dir: str | Path | None,
        frd_cases: int = 50,
        workers: int | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.training = training
        self.active = external_dir is not None
        self.frd_cases = frd_cases
        self.workers = workers if workers is not None else available_cores()
        self._own = Reservoir(frd_cases)

    def attach(self, engine: Engine) -> None:
        """Collect every iteration, compare and write after the epoch."""
        if not self.active:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, _: Engine) -> None:
        self._own = Reservoir(self.frd_cases)

    def _collect(self, engine: Engine) -> None:
        for case in cases_of(engine):
            sample = sample_case(case["image"], case["label"])
            if sample is not None:
                self._own.add(case["path"], sample)

    def _write(self, _: Engine) -> None:
        external = gather_cases(self._own.cases)
        if not ranks.is_main_rank() or not external:
            return
        result = domain_shift(self._training_cases(), external, self.frd_cases, self.workers)
        text = write_text(self.output_dir / "domain_shift.json", json_text(result))
        picture = save(draw_domain_shift(result), self.output_dir / "domain_shift.png")
        print("\n".join(["", *_lines(result), f"{'domain shift':<14}{text}", f"{'':<14}{picture}"]), flush=True)

    def _training_cases(self) -> list[CaseSample]:
        chosen = Reservoir(self.frd_cases)
        for images, labels in image_pairs(self.training):
            for image, label in zip(images.split(1), labels.split(1), strict=True):
                sample = sample_case(image, label)
                if sample is not None:
                    chosen.add("", sample)
        return [case for _, case in chosen.cases]


def draw_domain_shift(result: Mapping[str, Any]) -> Figure:
    """Two plots, LE and real DES: share of the breast's pixels at each intensity, training and external set."""
    figure = Figure(figsize=(10.6, 3.8), layout="constrained")
    for ax, domain in zip(figure.subplots(1, 2), DOMAINS, strict=True):
        histogram = result[domain]["histogram"]
        for name, colour in (("training", "C0"), ("external", "C1")):
            label = f"{name}, {result[name]['cases']} cases"
            ax.stairs(histogram[name], histogram["edges"], label=label, color=colour, fill=True, alpha=0.25)
            ax.stairs(histogram[name], histogram["edges"], color=colour, linewidth=1.3)
        ax.set_title(f"{_TITLES[domain]}: Wasserstein {result[domain]['wasserstein']:.3f}", fontsize=10)
        ax.set_xlabel("intensity in the breast", fontsize=8)
        ax.set_ylabel("share of the pixels", fontsize=8)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, None)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.25)
        ax.legend(fontsize=8, frameon=False)
    return figure


def _lines(result: Mapping[str, Any]) -> list[str]:
    cases = " and ".join(f"{result[name]['cases']} {name}" for name in ("training", "external"))
    lines = [f"domain shift between {cases} cases, inside the breast (0 = none; FRD: lower = nearer)"]
    lines.append(f"{'':<18}{'Wasserstein':>14}{'Jensen-Shannon':>16}{'FRD':>8}")
    for domain in DOMAINS:
        of = result[domain]
        frd = f"{of['frd']:.2f}" if math.isfinite(of["frd"]) else "-"
        lines.append(f"{_TITLES[domain]:<18}{of['wasserstein']:>14.3f}{of['jensen_shannon']:>16.3f}{frd:>8}")
    notes = {of["frd_note"] for of in map(result.__getitem__, DOMAINS) if of["frd_note"]}
    return lines + [f"no FRD: {note}" for note in sorted(notes)]
