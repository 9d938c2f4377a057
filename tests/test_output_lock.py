"""Two processes do not write one output folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bundle import ranks
from bundle.files import UnwritableError
from bundle.output_lock import FolderInUseError, OutputLock
from tests.conftest import ROOT

HOLD = """
import sys, time
from bundle.output_lock import OutputLock
lock = OutputLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One that holds the folder."""
    line = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_that_another_process_writes_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        with pytest.raises(FolderInUseError, match=rf"another process is writing {tmp_path}.* another --output_dir"):
            OutputLock(tmp_path, patience=0).acquire()
        process.send_signal(signal.SIGKILL)
        process.wait()
        OutputLock(tmp_path, patience=0).acquire()


def test_it_is_waited_for_a_moment(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        threading.Timer(0.5, process.kill).start()
        OutputLock(tmp_path, patience=60).acquire()


def test_parts_of_one_process_share_the_lock_and_its_end_frees_the_folder(tmp_path: Path) -> None:
    first = OutputLock(tmp_path / "new")
    first.acquire()
    with OutputLock(tmp_path / "new", patience=0).held():
        first.acquire()
    line = [sys.executable, "-c", HOLD.replace("time.sleep(600)", ""), str(tmp_path / "new")]
    assert subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "held\n"


def test_only_the_first_process_of_a_distributed_training_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    OutputLock(tmp_path / "new").acquire()
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_reported_with_the_name_of_the_folder(tmp_path: Path) -> None:
    said = rf"{tmp_path} cannot be written: No space left .* Make room"
    with pytest.raises(UnwritableError, match=said), OutputLock(tmp_path).held():
        raise OSError(28, "No space left on device")


def test_a_file_system_without_locks_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with OutputLock(tmp_path).held():
        assert "without locks" in caplog.text
