"""Inference on many workers gives what one process gives, whoever dies on the way."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.dicom import Kind
from bundle.inference import ReportRow, Sources
from bundle.networks import ResnetGenerator
from scripts import infer_archive
from scripts.archive import worker as archive_worker
from scripts.archive.driver import ATTEMPTS, Chunk, Crew
from scripts.config_values import overrides_of
from tests.archives.dicom_files import write_dicom
from tests.archives.phantom import phantom_pairs
from tests.conftest import ROOT
from tests.workflow import command, environment

COUNT = 24


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 low-energy images, one that is cut off and a recombined one, with tiny weights beside them."""
    root = tmp_path_factory.mktemp("archive")
    pair = phantom_pairs(1, 64)[0]
    for number in range(COUNT):
        write_dicom(root / "in" / f"s{number % 3}" / f"{number:02d}.dcm", pair.image, patient_id=f"P{number}")
    write_dicom(root / "in" / "rec.dcm", pair.label, kind=Kind.SUBTRACTED)
    broken = root / "in" / "s0" / "broken.dcm"
    write_dicom(broken, pair.image)
    broken.write_bytes(broken.read_bytes()[:-4000])
    torch.manual_seed(0)
    torch.save(ResnetGenerator(width=4, blocks=1).state_dict(), root / "model.pt")
    return root


def options(archive: Path) -> dict[str, Any]:
    small = {"network_def#width": 4, "network_def#blocks": 1, "image_size": 32, "deterministic_uids": True}
    return {"model_path": archive / "model.pt", "dataset_dir": archive / "in", **small}


def line(archive: Path, output: Path, *more: str) -> list[str]:
    words = [part for name, value in options(archive).items() for part in (f"--{name}", str(value))]
    return [*words, "--output_dir", str(output), *more]


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "report.csv").open(newline="", encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=lambda row: row["image"])


def objects_in(output: Path) -> dict[str, bytes]:
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*.dcm")}


@pytest.fixture(scope="module")
def alone(archive: Path) -> Path:
    """What `python -m monai.bundle run` makes of the archive."""
    output = archive / "alone"
    words = command("", "inference.json", **options(archive), output_dir=output)
    words.remove("")
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr  # one image is cut off
    return output


def _kill_one_of(output: Path) -> Iterator[int]:
    """Wait until some results are there, and kill a worker; give its process number."""
    for _ in range(1200):
        if sum(1 for _ in output.rglob("*.dcm")) >= 4:
            break
        time.sleep(0.05)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                named = (folder / "cmdline").read_bytes().startswith(b"ray::ArchiveWorker")
            except OSError:
                continue
            if named:
                os.kill(int(folder.name), signal.SIGKILL)
                yield int(folder.name)
                return


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_two_workers_one_of_them_killed_give_what_one_process_gives_and_a_second_run_has_nothing_to_do(
    archive: Path, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, killed = archive / "spread", list[int]()
    killer = threading.Thread(target=lambda: killed.extend(_kill_one_of(output)))
    killer.start()
    code = infer_archive.main(line(archive, output, "--workers", "2", "--chunk", "2"))
    killer.join()
    printed = capsys.readouterr()
    assert len(killed) == 1
    assert "1 workers lost and replaced" in printed.out
    assert "images/s" in printed.out
    assert code == 1
    assert objects_in(output) == objects_in(alone)
    assert len(objects_in(output)) == COUNT
    assert rows_of(output) == rows_of(alone)
    assert list(output.rglob(".*")) == []
    assert infer_archive.main(line(archive, output)) == 1  # the cut-off image is tried again
    statuses = [row["status"] for row in rows_of(output)]
    assert {status: statuses.count(status) for status in set(statuses)} == {
        "skipped": COUNT, "failed": 1, "refused": 1,
    }  # fmt: skip


def test_a_worker_keeps_its_network_and_reports_every_file(archive: Path, tmp_path: Path) -> None:
    parsed = infer_archive.argument_parser().parse_known_args(line(archive, tmp_path / "out"))
    task = infer_archive.task_of(parsed[0], overrides_of(parsed[1]))
    one = archive_worker.ArchiveWorker(task)
    assert one.problem() is None
    network = one._kept["network"]
    names = ["s0/00.dcm", "s1/01.dcm", "s0/broken.dcm", "rec.dcm"]
    rows = one.infer([str(archive / "in" / name) for name in names])
    assert {row.image: row.status for row in rows} == dict(
        zip(names, ["done", "done", "failed", "refused"], strict=True)
    )
    assert {row.status for row in one.infer([str(archive / "in" / names[0])])} == {"skipped"}
    assert one._kept["network"] is network
    assert not (tmp_path / "out" / "report.csv").exists()  # one report, and that is the driver's


class FakeRay:
    """Workers in this process; those given a deadly file are lost."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            cause: Exception | None = None

    def __init__(self, deadly: str) -> None:
        self.deadly = deadly
        self.given: list[list[str]] = []

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        return lambda _class: self

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Any) -> Any:
        if any(Path(file).name == self.deadly for file in reference):
            raise self.exceptions.RayError
        return [ReportRow(Path(file).name, "done") for file in reference]


class _Handle:
    def __init__(self, ray: FakeRay) -> None:
        self.ray = ray
        self.infer, self.problem = self, self

    def remote(self, files: Any = None) -> tuple[str, ...]:
        if files is not None:
            self.ray.given.append([Path(file).name for file in files])
        return tuple(files or ())


def test_the_file_that_kills_its_workers_is_named_and_all_others_are_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = FakeRay("c")
    monkeypatch.setattr(Crew, "_new_worker", lambda _: _Handle(ray))
    sources = Sources(tmp_path, tmp_path / "out")
    crew = Crew(ray, Any, sources, 2, _idle=[_Handle(ray), _Handle(ray)])  # type: ignore[arg-type]
    rows = [row for some in crew.work([tmp_path / name for name in "abcdef"], 3) for row in some]
    assert {row.image: row.status for row in rows} == {**dict.fromkeys("abdef", "done"), "c": "failed"}
    assert len(rows) == 6
    assert crew.lost == ATTEMPTS
    assert f"{ATTEMPTS} workers died with it in hand" in next(row.reason for row in rows if row.image == "c")


def test_work_is_given_again_whole_once_and_then_file_by_file() -> None:
    files = (Path("a"), Path("b"))
    assert Chunk(files).again() == [Chunk(files, 1)]
    assert Chunk(files, 1).again() == [Chunk((Path("a"),), 2), Chunk((Path("b"),), 2)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--model_path", "nowhere.pt"], "no weights at .*nowhere.pt; train first"),
        (["--imagesize", "64"], "did you mean --image_size"),
        (["--deterministic_uids", "true"], "write True"),
        (["--dataset_dir", "nowhere"], "no such file or folder.*set dataset_dir"),
        (["--workers", "0"], "at least 1"),
    ],
)
def test_what_is_wrong_is_said_before_ray_starts(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    assert infer_archive.main(line(archive, tmp_path / "out", *change)) == 2
    assert re.search(words, capsys.readouterr().err)
