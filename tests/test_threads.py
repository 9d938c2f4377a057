"""Threads begin only where there is memory for them."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.threads import thread_pool

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import resource
from bundle.threads import thread_pool
kept = [bytearray(1 << 20) for _ in range(200)]  # what malloc has left over is none for a thread
kept[:] = kept[-1:]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), -1))
try:
    with thread_pool(2) as pool:
        print(list(pool.map(abs, [-1])))
except MemoryError as error:
    print(error)
"""


def test_a_pool_does_what_it_is_given() -> None:
    with thread_pool(2) as pool:
        assert list(pool.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="this system sets no limit to a process's memory")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a process uses is read from Linux's /proc")
def test_where_memory_has_ended_no_thread_is_started_and_waited_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "no memory for 2 threads" in done.stdout
