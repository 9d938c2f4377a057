"""The faults: each disturbs a workflow once or several times and leaves the rest to ``Scene.finish``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from scripts.soaking import hooks
from scripts.soaking.runs import Run, start_command
from scripts.soaking.scene import Reference, Scene

__all__ = ["FAULTS", "PAIRS", "disk_is_full", "pair_of"]

_YEAR = 365.25 * 86400
_NO_ROOM = re.compile(r"No space left on device|File too large")
_NAMED = re.compile(r"\S*/\S+ cannot be written|(No space left on device|File too large): ['\"]?/|cannot write in /")


def killed(scene: Scene) -> None:
    """``kill -9`` once or several times, at a random time or between two file operations."""
    for _ in range(scene.rng.choice((1, 1, 2, 3))):
        group = scene.rng.random() < 0.5
        if scene.rng.random() < 0.5:
            _kill_later(scene, scene.start(), group)
        else:
            _kill_at_operation(scene, group)


def _kill_later(scene: Scene, run: Run, group: bool, longest: float | None = None) -> None:
    until = time.monotonic() + (scene.moment() if longest is None else scene.rng.uniform(0, longest))
    scene.notes.append(f"kill {'all' if group else 'the first'} after a time")
    if run.wait(lambda: time.monotonic() >= until):
        run.kill(whole_group=group)
        scene.hits += 1
    scene.ended(run)


def _kill_at_operation(scene: Scene, group: bool) -> None:
    mark, number = scene.mark(), scene.operation()
    late, half = scene.rng.random() < 0.5, scene.rng.random() < 0.5
    scene.notes.append(f"kill {'all' if group else 'one'} at file operation {number}")
    action = partial(hooks.dies, mark, group)
    run = scene.start(partial(hooks.at_operation, number, late, action, half))
    run.wait()
    scene.hits += mark.exists()
    scene.ended(run)


def disk_is_full(scene: Scene, limit: int | None = None) -> None:
    """The disk fills up during the run: the error names a file, and the run goes on when there is room.

    Args:
        scene: its output folder is a small disk that was filled, or ``limit`` is given.
        limit: largest size of a file in bytes, in place of the disk.
    """
    scene.notes.append("full disk" if limit is None else f"no file above {limit} bytes")
    run = scene.start(*([] if limit is None else [partial(hooks.limited_files, limit)]))
    run.wait()
    said = run.said()
    if _NO_ROOM.search(said):
        scene.hits += 1
        whole = limit is None or len(said.encode()) < limit  # the log is a file as well, and may be cut off
        if whole and not _NAMED.search(said):
            scene.found.differences.append("the error of a full disk does not name what could not be written")
        if run.status == scene.workflow.status:
            scene.found.differences.append("a run that met a full disk ended as if it had not")
    scene.ended(run)


def unreadable(scene: Scene) -> None:
    """A file of the input is cut off, a link that leads nowhere, or on a damaged disk."""
    files = sorted(path for path in scene.place.input.rglob("*") if path.is_file())
    path = scene.rng.choice(files)
    how = scene.rng.choice(("cut off", "link", "EIO"))
    scene.notes.append(f"{path.name}: {how}")
    if how == "EIO":
        run = scene.start(partial(hooks.unreadable, path))
        run.wait()
    else:
        with _damaged(path, how):
            run = scene.start()
            run.wait()
    scene.hits += 1
    scene.ended(run)


@contextlib.contextmanager
def _damaged(path: Path, how: str) -> Iterator[None]:
    content, status = path.read_bytes(), path.stat()
    path.unlink()
    if how == "link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(content[: len(content) // 2])
    try:
        yield
    finally:
        path.unlink()
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def worker_dies(scene: Scene) -> None:
    """``kill -9`` of a process that loads, prepares or trains for the first one."""
    scene.notes.append("kill a worker")
    scene.loader_workers = True
    run = scene.start(**scene.workflow.options.get("worker", {}))
    wait = scene.rng.uniform(0, scene.reference.seconds / 3)
    if run.wait(lambda: bool(run.workers())):
        begun = time.monotonic()
        run.wait(lambda: time.monotonic() - begun > wait)
        workers = run.workers()
        if run.status is None and workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(scene.rng.choice(workers), signal.SIGKILL)
                scene.hits += 1
        run.wait()
    scene.ended(run)


def loss_is_nan(scene: Scene) -> None:
    """A loss, or what a network gives, becomes NaN: that is noticed, and what was there stays."""
    in_training = scene.workflow.name != "inference"
    call = scene.rng.randint(1, 5 if in_training else 3)
    scene.notes.append(f"NaN in call {call}")
    mark = scene.mark()
    run = scene.start(partial(hooks.non_finite, call, in_training, mark))
    run.wait()
    if mark.exists() and run.status == scene.workflow.status:
        scene.found.differences.append("NaN was not noticed")
    scene.hits += mark.exists()
    scene.ended(run)


def memory_is_short(scene: Scene) -> None:
    """Steps of a training run out of memory: it goes on with less by itself, and says so. Or the process does."""
    if scene.workflow.name != "training" or scene.rng.random() < 0.3:
        extra = int(scene.rng.random() ** 3 * (32 << 20))
        scene.notes.append(f"{extra >> 10} kB of memory more")
        in_jobs = scene.workflow.name == "cross-validation"
        run = scene.start(partial(hooks.exhausted_memory, extra, in_jobs))
        run.wait()
        scene.hits += run.status != scene.workflow.status
        scene.ended(run)
        return
    scene.notes.append("no memory for all activations")
    run = scene.start(partial(hooks.no_memory_in_step, scene.rng.randint(1, 20), None))
    run.wait()
    _went_on_by_itself(scene, run)


def memory_for_parts(scene: Scene) -> None:
    """Batches of a training do not fit: they go through the networks in parts, as if that had been asked for."""
    scene.notes.append("no memory for whole batches")
    run = scene.start(partial(hooks.no_memory_in_step, 1, 4))
    run.wait()
    _went_on_by_itself(scene, run)


def _went_on_by_itself(scene: Scene, run: Run) -> None:
    scene.hits += 1
    if run.status != scene.workflow.status or "To start so the next time" not in run.said():
        scene.found.differences.append("the training did not go on with less memory, saying so")
    scene.ended(run)


def second_process(scene: Scene) -> None:
    """The same command is started again while it runs: it refuses, and the first one is not disturbed."""
    mark, number = scene.mark(), scene.operation()
    scene.notes.append(f"a second process at file operation {number}")
    first = scene.start(partial(hooks.at_operation, number, False, partial(hooks.stops, mark)))
    if first.wait(lambda: bool(mark.exists() and mark.read_text(encoding="utf-8"))):
        held = _is_locked(scene.place.output)
        second = scene.start(name="second", **scene.workflow.options.get("second", {}))
        second.wait()
        scene.hits += 1
        refused = second.status != scene.workflow.status and scene.workflow.refusal in second.said()
        if held and not refused:
            scene.found.differences.append(f"a second process was not refused (status {second.status})")
        scene.found.lost += second.problems
        os.kill(int(mark.read_text(encoding="utf-8")), signal.SIGCONT)
        first.wait()
    if first.status != scene.workflow.status:
        scene.found.differences.append(f"the first process ended with {first.status}")
    scene.ended(first)


def _is_locked(folder: Path) -> bool:
    for name in (".lock", ".output.lock", ".prepared/.lock"):
        with contextlib.suppress(FileNotFoundError), (folder / name).open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def clock_jumps(scene: Scene) -> None:
    """The clock jumps by a year during a run that is then killed, and files are of the future or of long ago."""
    seconds = scene.rng.choice((-1, 1)) * scene.rng.uniform(0.01, 1) * _YEAR
    mark, number = scene.mark(), scene.operation()
    scene.notes.append(f"clock {seconds:+.0f} s, then killed at file operation {number}")
    jump = partial(hooks.clock_jumps, scene.rng.randint(1, 50), seconds)
    run = scene.start(jump, partial(hooks.at_operation, number, True, partial(hooks.dies, mark, True)))
    run.wait()
    scene.hits += 1
    scene.ended(run)
    moved = scene.rng.choice(([scene.place.output], [scene.place.input], [scene.place.output, scene.place.input]))
    for folder in moved:
        for path in folder.rglob("*"):
            os.utime(path, (time.time() + seconds,) * 2)


def command_is_killed(scene: Scene) -> None:
    """``kill -9`` of the command as a person starts it, with its start."""
    _kill_later(scene, start_command(scene.workflow, scene.place), scene.rng.random() < 0.5, longest=30.0)


Fault = Callable[[Scene], None]
_ALL = ("training", "preparation", "inference", "cross-validation")
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "kill -9": (killed, _ALL),
    "full disk": (disk_is_full, _ALL),
    "unreadable file": (unreadable, _ALL),
    "worker dies": (worker_dies, _ALL),
    "NaN": (loss_is_nan, ("training", "inference", "cross-validation")),
    "out of memory": (memory_is_short, _ALL),
    "out of memory, parts": (memory_for_parts, ("training",)),
    "second process": (second_process, _ALL),
    "clock jump": (clock_jumps, _ALL),
    "command killed": (command_is_killed, _ALL),
}
"""Name -> what happens, and to which workflows."""
_SELDOM = "command killed"
"""A start of a command takes so long that only every fourth round has it."""
PAIRS = [(workflow, fault) for fault, (_, workflows) in FAULTS.items() for workflow in workflows if fault != _SELDOM]


def pair_of(seed: int, index: int) -> tuple[str, str]:
    """Workflow and fault number ``index`` of a soak: each pair once a round, in a random order."""
    turn, place = divmod(index, len(PAIRS) + 1)
    order = list(PAIRS)
    random.Random(f"{seed}:{turn}").shuffle(order)  # noqa: S311 - nothing secret
    return order[place] if place < len(PAIRS) else (_ALL[turn % len(_ALL)], _SELDOM)


def reference_kind(fault: str) -> str:
    """Which undisturbed run a fault is compared with: drawn in full, in parts, or the usual one."""
    return {"command killed": "full", "out of memory, parts": "parts"}.get(fault, "")


References = dict[tuple[str, str], Reference]
