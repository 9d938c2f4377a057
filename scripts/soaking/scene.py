"""One fault: a workflow in folders of its own, what happens to it, and whether it ends as if nothing had happened."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from scripts.soaking.comparison import Found, compare
from scripts.soaking.hooks import count_operations, import_noted, note_imports, plain_pictures
from scripts.soaking.material import Place
from scripts.soaking.runs import Hook, Run, start, undisturbed
from scripts.soaking.workflows import Workflow

__all__ = ["Reference", "Scene", "make_reference"]

ATTEMPTS = 3
"""So often a command may be run again after a fault; the first time has to suffice but for what waits for a lock."""


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its folders, how long it took, its file operations, its bytes on the disk."""

    place: Place
    seconds: float
    operations: int

    @property
    def sizes(self) -> list[int]:
        """Of its files, in blocks of the disk."""
        return [-(-path.stat().st_size // 4096) * 4096 for path in self.place.output.rglob("*") if path.is_file()]


def make_reference(workflow: Workflow, folder: Path, material: Path, plain: bool = True, **options: Any) -> Reference:
    """Run a workflow undisturbed.

    Raises:
        RuntimeError: it fails.
    """
    place = Place(folder)
    folder.mkdir(parents=True)
    place.fill(material, workflow.name)
    record, modules = folder / "operations", folder / "modules"
    record.touch()
    modules.touch()
    begun = time.monotonic()
    hooks: list[Hook] = [partial(count_operations, record), partial(note_imports, modules)]
    hooks += [plain_pictures] if plain else []
    run = undisturbed(workflow, place, hooks, **options)
    if run.status != workflow.status or run.problems:
        raise RuntimeError(f"{workflow.name} fails undisturbed: {run.problems}\n{run.said()[-2000:]}")
    import_noted(modules)
    return Reference(place, time.monotonic() - begun, record.stat().st_size)


@dataclass
class Scene:
    """What a fault has to work with.

    Attributes:
        workflow: which is disturbed.
        place: its folders, filled.
        reference: the undisturbed run.
        rng: of this scene; equal for equal seed and number.
        plain: whether pictures are drawn plain.
        found: what was wrong so far.
        hits: faults that took effect.
        notes: what was done, for a person.
        loader_workers: whether processes load data in the disturbed run.
    """

    workflow: Workflow
    place: Place
    reference: Reference
    rng: random.Random
    plain: bool = True
    found: Found = field(default_factory=Found)
    hits: int = 0
    notes: list[str] = field(default_factory=list)
    loader_workers: bool = False

    def start(self, *hooks: Hook, name: str = "disturbed", **options: Any) -> Run:
        """Start the workflow with hooks."""
        return start(self.workflow, self.place, [*self._pictures(), *hooks], name, **options)

    def ended(self, run: Run) -> None:
        """Look at what a disturbed run has left."""
        self.found.lost += run.problems
        self.found.add(compare(self.place, self.reference.place, finished=False))

    def moment(self) -> float:
        """A random time in seconds after the start, at which an undisturbed run is under way."""
        return self.rng.uniform(0, self.reference.seconds)

    def operation(self) -> int:
        """A random file operation of a process of an undisturbed run; a study has two, its own and the job's."""
        processes = 2 if self.workflow.name == "cross-validation" else 1
        return self.rng.randint(1, max(1, self.reference.operations // processes))

    def mark(self) -> Path:
        """A file by which a hook says that it has acted."""
        return self.place.root / f"acted.{len(self.notes)}"

    def finish(self) -> None:
        """Run the same command again, undisturbed, and compare."""
        run = None
        for _ in range(ATTEMPTS):
            run = undisturbed(self.workflow, self.place, self._pictures())
            self.found.lost += run.problems
            if run.status == self.workflow.status:
                break
            self.notes.append(f"ended with {run.status} once more")
        else:
            said = run.said().strip().splitlines()[-1:] if run is not None else []
            self.found.lost.append(f"does not finish any more: {' '.join(said)[:300]}")
            return
        self.found.add(compare(self.place, self.reference.place, loader_workers=self.loader_workers))

    def _pictures(self) -> Sequence[Hook]:
        return [plain_pictures] if self.plain else []
