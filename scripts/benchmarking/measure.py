"""Fair timing: the contestants take turns in one process, and what other processes disturbed is not counted."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional

__all__ = [
    "Row",
    "Timing",
    "compare",
    "convolution_peak",
    "exponent",
    "machine",
    "peak_memory",
    "processor_flags",
    "ratio",
    "sample",
]

FOREIGN_SHARE = 0.10
"""Share of one core that other processes may use during a sample that counts."""
PROC_STAT = Path("/proc/stat")
_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure and, where there is one, its target such as ``>= 1.25`` or ``<= 2``."""

    part: str
    what: str
    value: float | None
    unit: str = ""
    target: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a value."""
        if self.value is None or not self.target:
            return None
        sign, number = self.target.split()
        return self.value >= float(number) if sign == ">=" else self.value <= float(number)


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant: the samples that count, and how many were dropped."""

    seconds: tuple[float, ...]
    dropped: int
    disturbed: bool
    """No sample was clean: these are the least disturbed ones."""

    @property
    def median(self) -> float:
        """Of the samples that count."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the range of the samples that count, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median

    def __str__(self) -> str:
        """The median with spread and number of samples, for a note."""
        clean = "DISTURBED, " if self.disturbed else ""
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        return f"{_seconds(self.median)} +- {100 * self.spread:.0f} % ({clean}n = {len(self.seconds)}{dropped})"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def compare(
    contestants: Mapping[str, Callable[[], Any]], rounds: int = 7, budget_s: float = 60.0, warm_up: int = 1
) -> dict[str, Timing]:
    """Time the contestants in turn, each round in another order of start.

    A sample during which other processes used more than a tenth of a core is dropped. Rounds go on until each
    contestant has ``rounds`` clean samples or ``budget_s`` seconds are over (three rounds at least); one that has no
    clean sample then keeps its three least disturbed ones and says so.
    """
    names = list(contestants)
    for _ in range(warm_up):
        for run in contestants.values():
            run()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    end, turn = time.monotonic() + budget_s, 0
    while turn < 3 or (time.monotonic() < end and min(map(_clean, taken.values())) < rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name].append(sample(contestants[name]))
        turn += 1
    return {name: _timing(samples) for name, samples in taken.items()}


def sample(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of one call, and the share of a core that other processes used meanwhile."""
    busy, own, start = _busy_seconds(), _own_seconds(), time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    foreign = (_busy_seconds() - busy) - (_own_seconds() - own)
    # The kernel counts in hundredths of a second: two of them are no finding.
    return seconds, max(0.0, foreign - 0.02) / seconds


def _clean(samples: list[tuple[float, float]]) -> int:
    return sum(foreign <= FOREIGN_SHARE for _, foreign in samples)


def _timing(samples: list[tuple[float, float]]) -> Timing:
    clean = [seconds for seconds, foreign in samples if foreign <= FOREIGN_SHARE]
    disturbed = not clean
    kept = clean or [seconds for seconds, _ in sorted(samples, key=lambda one: one[1])[:3]]
    return Timing(tuple(kept), len(samples) - len(kept), disturbed)


def _busy_seconds() -> float:
    """Seconds that all cores have worked, or were taken by another machine on the same host; 0 where unknown."""
    if not PROC_STAT.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, PROC_STAT.read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Processor seconds of this process and of its children, living ones included."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system + _living_children()


def _living_children() -> float:
    ticks = 0.0
    for child in multiprocessing.active_children():
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def ratio(timings: Mapping[str, Timing], reference: str, contestant: str) -> float:
    """How many times quicker the contestant is than the reference, by medians."""
    return timings[reference].median / timings[contestant].median


def exponent(sizes: list[float], costs: list[float]) -> float:
    """Slope of log cost against log size by least squares: 1 is linear growth."""
    x, y = torch.tensor(sizes, dtype=torch.float64).log(), torch.tensor(costs, dtype=torch.float64).log()
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


def peak_memory(function: Callable[..., object], *arguments: Any) -> float:
    """Most resident memory, in bytes, of a fresh process that calls ``function``, less that of its imports.

    The process gives freed maps back at once (glibc's MALLOC_MMAP_THRESHOLD_), so this is what is needed, not what the
    allocator keeps.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_measured, args=(results, torch.get_num_threads(), function, arguments))
    before = os.environ.get(_THRESHOLD)
    os.environ[_THRESHOLD] = str(1 << 20)
    try:
        process.start()
    finally:
        os.environ.pop(_THRESHOLD)
        if before is not None:
            os.environ[_THRESHOLD] = before
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the process that measures memory ended with {process.exitcode}")
    return float(results.get())


def _measured(results: Any, threads: int, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    functional.conv2d(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3))  # the library starts
    before = _resident_now()
    function(*arguments)
    results.put(_resident_peak() - before)


def _resident_now() -> int:
    return _resident("VmRSS")


def _resident_peak() -> int:
    return _resident("VmHWM")


def _resident(field: str) -> int:
    """Bytes, from the kernel; ``getrusage`` would count the memory of the process that started this one, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def convolution_peak(dtype: torch.dtype = torch.float32) -> float:
    """Most FLOP/s that any of some well-shaped convolutions of the library reaches here."""
    best = 0.0
    with torch.no_grad():
        for channels, size in ((64, 128), (128, 64), (256, 64), (512, 32)):
            for memory_format in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(1, channels, size, size, dtype=dtype).contiguous(memory_format=memory_format)
                weight = torch.randn(channels, channels, 3, 3, dtype=dtype).contiguous(memory_format=memory_format)
                flop = 2 * 9 * channels**2 * size**2
                timing = compare({"conv": lambda x=x, w=weight: functional.conv2d(x, w, padding=1)}, 5, 5.0)["conv"]  # type: ignore[misc]
                best = max(best, flop / min(timing.seconds))
    return best


def processor_flags() -> set[str]:
    """What the kernel says the processor can do, such as ``avx2``; nothing where it cannot be asked."""
    known = _processor()
    return set(known.get("flags", known.get("Features", "")).split())


def _processor() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def machine() -> str:
    """The machine in one line: processor, cores, vector units, versions."""
    known = _processor()
    model = known.get("model name", platform.processor() or platform.machine())
    flags = " ".join(flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in processor_flags())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {cores} cores ({flags}), {device}, torch {torch.__version__}, Python {platform.python_version()}"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads inside the ``with``."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
