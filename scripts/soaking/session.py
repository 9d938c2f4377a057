"""A soak: faults one after the other in several processes, until there were enough or the time is over."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.soaking.disk import small_disk
from scripts.soaking.faults import FAULTS, References, disk_is_full, pair_of, reference_kind
from scripts.soaking.material import Place, make_material
from scripts.soaking.scene import Scene, make_reference
from scripts.soaking.workflows import WORKFLOWS

__all__ = ["Outcome", "Session", "table"]

RESULTS = "faults.jsonl"


@dataclass(frozen=True)
class Outcome:
    """What became of one fault of a soak."""

    index: int
    workflow: str
    fault: str
    hits: int
    lost: list[str]
    differences: list[str]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether anything is lost or differs."""
        return bool(self.lost or self.differences)


@dataclass
class Session:
    """Where a soak works, and how.

    Args:
        folder: for everything; what belongs to faults without failures is removed.
        seed: of what happens.
        mounts: whether a full disk is a small file system, else a limit on the size of files.
        workflows: those to disturb.
        faults: those to inject.
    """

    folder: Path
    seed: int = 0
    mounts: bool = False
    workflows: tuple[str, ...] = tuple(WORKFLOWS)
    faults: tuple[str, ...] = tuple(FAULTS)
    references: References = field(default_factory=dict)

    def prepare(self) -> None:
        """Make the data, and run every workflow undisturbed."""
        material = self.folder / "material"
        make_material(material)
        for name in self.workflows:
            self._refer(name, "", material)
        if "training" in self.workflows and "out of memory, parts" in self.faults:
            self._refer("training", "parts", material)
        if "command killed" in self.faults:
            for name in self.workflows:
                self._refer(name, "full", material)

    def _refer(self, name: str, kind: str, material: Path) -> None:
        workflow = WORKFLOWS[name]
        folder = self.folder / "undisturbed" / f"{name} {kind}".strip()
        options = workflow.options.get(kind, {})
        self.references[name, kind] = make_reference(workflow, folder, material, plain=kind != "full", **options)

    def indices(self) -> Iterator[int]:
        """The numbers of the faults to inject, without end."""
        index = 0
        while True:
            workflow, fault = pair_of(self.seed, index)
            if workflow in self.workflows and fault in self.faults:
                yield index
            index += 1

    def inject(self, index: int) -> Outcome:
        """Inject one fault and see what becomes of it."""
        name, fault = pair_of(self.seed, index)
        begun = time.monotonic()
        kind = reference_kind(fault)
        place = Place(self.folder / "disturbed" / f"{index:04d}")
        shutil.rmtree(place.root, ignore_errors=True)
        place.root.mkdir(parents=True)
        rng = random.Random(f"{self.seed}:{index}")  # noqa: S311 - nothing secret
        scene = Scene(WORKFLOWS[name], place, self.references[name, kind], rng, plain=kind != "full")
        try:
            self._play(scene, fault)
        except Exception:  # a fault of the soak itself, which must not pass for a success
            scene.found.lost.append(f"the soak failed: {traceback.format_exc(limit=-3)}")
        found = scene.found
        outcome = Outcome(index, name, fault, scene.hits, found.lost, found.differences, scene.notes,
                          round(time.monotonic() - begun, 1))  # fmt: skip
        if not outcome.failed:
            shutil.rmtree(place.root, ignore_errors=True)
        return outcome

    def _play(self, scene: Scene, fault: str) -> None:
        material, name = self.folder / "material", scene.workflow.name
        if fault != "full disk" or not self.mounts:
            scene.place.fill(material, name)
            if fault == "full disk":
                sizes = sorted(scene.reference.sizes)
                disk_is_full(scene, scene.rng.randint(100, sizes[-1]))
            else:
                FAULTS[fault][0](scene)
            scene.finish()
            return
        scene.place.output.mkdir()
        used = sum(scene.reference.sizes)
        with small_disk(scene.place.output, 3 * used + (4 << 20)) as disk:
            self._fill(scene.place, material, name)
            disk.leave(int(scene.rng.uniform(0.02, 1.0) * used))
            disk_is_full(scene)
            disk.make_room()
            scene.finish()

    @staticmethod
    def _fill(place: Place, material: Path, name: str) -> None:
        """As ``Place.fill``, where the output folder is there already."""
        filled = Place(place.root / "filled")
        filled.root.mkdir()
        filled.fill(material, name)
        for path in (*filled.root.iterdir(), *filled.output.iterdir()):
            target = place.root / path.relative_to(filled.root)
            if path != filled.output:
                shutil.move(path, target)
        shutil.rmtree(filled.root)

    def run(self, faults: int, minutes: float, processes: int) -> Iterator[Outcome]:
        """Inject faults until there were ``faults`` that took effect or the time is over; outcomes as they come."""
        results = self.folder / RESULTS
        results.unlink(missing_ok=True)
        results.touch()
        context = multiprocessing.get_context("fork")
        hits = context.Value("i", 0)
        deadline = time.monotonic() + 60 * minutes
        runners = [
            context.Process(target=self._soak, args=(number, processes, hits, faults, deadline, results))
            for number in range(processes)
        ]
        for runner in runners:
            runner.start()
        try:
            with results.open(encoding="utf-8") as file:
                while True:
                    alive = any(runner.is_alive() for runner in runners)
                    for line in file:
                        yield Outcome(**json.loads(line))
                    if not alive:
                        break
                    time.sleep(0.2)
        finally:
            for runner in runners:
                runner.terminate()
                runner.join()
        broken = [runner.exitcode for runner in runners if runner.exitcode]
        if broken:
            raise RuntimeError(f"a process of the soak itself ended with {broken[0]}")

    def _soak(self, number: int, processes: int, hits: Any, faults: int, deadline: float, results: Path) -> None:
        for turn, index in enumerate(self.indices()):
            if hits.value >= faults or time.monotonic() > deadline:
                return
            if turn % processes != number:
                continue
            outcome = self.inject(index)
            with hits.get_lock():
                hits.value += outcome.hits
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")

    def clean(self) -> None:
        """Remove what is of no more use."""
        for name in ("material", "undisturbed"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.folder / "disturbed").rmdir()


def table(outcomes: Iterable[Outcome]) -> str:
    """Fault, workflow, times, lost, differences, as text."""
    rows: dict[tuple[str, str], list[int]] = {}
    for one in outcomes:
        row = rows.setdefault((one.fault, one.workflow), [0, 0, 0])
        for place, count in enumerate((one.hits, len(one.lost), len(one.differences))):
            row[place] += count
    order = {name: place for place, name in enumerate((*FAULTS, *WORKFLOWS))}
    lines = [f"{'fault':<22}{'workflow':<18}{'times':>7}{'lost':>7}{'differences':>13}"]
    for fault, workflow in sorted(rows, key=lambda pair: (order[pair[0]], order[pair[1]])):
        lines.append(_line(fault, workflow, rows[fault, workflow]))
    totals = [sum(column) for column in zip(*rows.values(), strict=True)] if rows else [0, 0, 0]
    return "\n".join([*lines, _line("all", "", totals)])


def _line(fault: str, workflow: str, counts: list[int]) -> str:
    return f"{fault:<22}{workflow:<18}{counts[0]:>7}{counts[1]:>7}{counts[2]:>13}"
