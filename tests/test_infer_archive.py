"""Inference on many workers gives what one process gives, whoever dies on the way."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bundle.dicom import Kind
from bundle.inference import ReportRow, Sources
from bundle.networks import ResnetGenerator
from scripts import infer_archive
from scripts.archive import worker as archive_worker
from scripts.archive.driver import ATTEMPTS, UNTOLD, Chunk, Crew
from scripts.archive.worker import Task
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
    small["batch_size"] = 1  # at 32 pixels the last digit depends on the batch, and that on when the worker is killed
    return {"model_path": archive / "model.pt", "dataset_dir": archive / "in", **small}


def line(archive: Path, output: Path, *more: str) -> list[str]:
    words = [part for name, value in options(archive).items() for part in (f"--{name}", str(value))]
    return [*words, "--output_dir", str(output), *more]


def task(archive: Path, output: Path, *more: str) -> Task:
    parsed, left_over = infer_archive.argument_parser().parse_known_args(line(archive, output, *more))
    return infer_archive.task_of(parsed, overrides_of(left_over))


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


def _kill_one_of(output: Path, over: threading.Event) -> Iterator[int]:
    """Wait until some results are there, and kill a worker that has files in hand; give its process number."""
    while not over.wait(0.05):
        if sum(1 for _ in output.rglob("*.dcm")) >= 4:
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    busy = (folder / "cmdline").read_bytes().startswith(b"ray::ArchiveWorker.infer")
                    if busy and _is_ours(int(folder.name)):
                        os.kill(int(folder.name), signal.SIGKILL)
                        yield int(folder.name)
                        return


def _is_ours(process: int) -> bool:
    """Whether this process started it; others on this machine may have workers of the same name."""
    while process not in (0, os.getpid()):
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process == os.getpid()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_two_workers_one_of_them_killed_give_what_one_process_gives_and_a_second_run_has_nothing_to_do(
    archive: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, killed, over = archive / "spread", list[int](), threading.Event()
    killer = threading.Thread(target=lambda: killed.extend(_kill_one_of(output, over)))
    killer.start()
    try:
        code = infer_archive.main(line(archive, output, "--workers", "2", "--chunk", "4"))
    finally:
        over.set()
        killer.join()
    printed = capsys.readouterr()
    assert len(killed) == 1
    assert "2 workers, 1 lost and replaced" in printed.out
    assert "a worker was lost with 4 images in hand; another one takes them" in printed.err
    assert "images/s" in printed.out
    assert code == 1
    assert objects_in(output) == objects_in(alone)
    assert len(objects_in(output)) == COUNT
    told = [row | {"reason": ""} if row["reason"] == UNTOLD else row for row in rows_of(output)]
    assert told == rows_of(alone)
    assert len([row for row in rows_of(output) if row["reason"] == UNTOLD]) < 4
    assert [path.name for path in output.rglob(".*")] == [".output.lock"]
    sound = shutil.copytree(archive / "in", tmp_path / "in", ignore=shutil.ignore_patterns("broken.dcm"))
    monkeypatch.setattr(infer_archive, "connected", None)  # nothing is pending, so Ray is not needed
    assert infer_archive.main(line(archive, output, "--dataset_dir", str(sound))) == 0
    assert sorted(row["status"] for row in rows_of(output)) == ["refused", *["skipped"] * COUNT]


def test_a_worker_keeps_its_network_and_reports_every_file(archive: Path, tmp_path: Path) -> None:
    one = archive_worker.ArchiveWorker(task(archive, tmp_path / "out"))
    assert one.problem() is None
    network = one._kept["network"]
    names = ["s0/00.dcm", "s1/01.dcm", "s0/broken.dcm", "rec.dcm"]
    rows, problem = one.infer([str(archive / "in" / name) for name in names])
    assert problem is None
    assert {row.image: row.status for row in rows} == dict(
        zip(names, ["done", "done", "failed", "refused"], strict=True)
    )
    assert {row.status for row in one.infer([str(archive / "in" / names[0])])[0]} == {"skipped"}
    assert one._kept["network"] is network
    assert not (tmp_path / "out" / "report.csv").exists()  # one report, and that is the driver's


def test_an_error_of_the_network_is_told_beside_what_was_done_before_it(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = archive_worker.ArchiveWorker(task(archive, tmp_path / "out"))
    assert one.problem() is None
    forward, calls = ResnetGenerator.forward, list[int]()

    def second_one_fails(network: ResnetGenerator, images: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return forward(network, images)

    monkeypatch.setattr(ResnetGenerator, "forward", second_one_fails)
    rows, problem = one.infer([str(archive / "in" / "s0" / f"{number:02d}.dcm") for number in (0, 3, 6)])
    assert [(row.image, row.status) for row in rows] == [("s0/00.dcm", "done")]
    assert problem == "RuntimeError: out of memory"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--image_size", "abc"], "expected 'native' or a multiple of 4"),
        (["--batch_size", "0"], "batch_size should be a positive integer"),
        (["--network_def#width", "8"], "model.pt does not fit the network"),
    ],
)
def test_what_does_not_fit_is_told_once_before_any_file(
    archive: Path, tmp_path: Path, change: list[str], words: str
) -> None:
    problem = archive_worker.ArchiveWorker(task(archive, tmp_path / "out", *change)).problem()
    assert problem is not None
    assert words in problem
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_of_weights_is_told_in_our_words(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no weights")
    changed = task(archive, tmp_path / "out", "--model_path", str(tmp_path / "model.pt"))
    assert "cannot be read as weights" in str(archive_worker.ArchiveWorker(changed).problem())


class FakeRay:
    """Workers in this process: room for two at a time, deadly and erroneous files, and workers that die at once."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, deadly: str = "", erroneous: str = "", stillborn: int = 0, problem: str | None = None) -> None:
        self.deadly, self.erroneous, self.stillborn, self.problem = deadly, erroneous, stillborn, problem
        self.alive: set[_Handle] = set()
        self.hired: list[_Handle] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2}

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        return lambda _class: SimpleNamespace(remote=lambda _task: _Handle(self))

    def wait(self, references: list[_Call], num_returns: int, timeout: float) -> tuple[list[_Call], list[_Call]]:
        for reference in references:
            if reference.worker in self.alive or len(self.alive) < 2:
                self.alive.add(reference.worker)
                return [reference], []
        raise AssertionError("this would wait for ever")

    def get(self, reference: _Call) -> Any:
        if reference.files is None:
            if self.stillborn:
                self.stillborn -= 1
                self.kill(reference.worker)
                raise self.exceptions.RayError
            return self.problem
        names = [Path(file).name for file in reference.files]
        if self.deadly in names:
            self.kill(reference.worker)
            raise self.exceptions.RayError
        if self.erroneous in names:
            before = names[: names.index(self.erroneous)]
            return [ReportRow(name, "done", reason="noted") for name in before], "RuntimeError: out of memory"
        return [ReportRow(name, "done") for name in names], None

    def kill(self, worker: _Handle) -> None:
        self.alive.discard(worker)


class _Handle:
    """A worker; it stands for its two methods as well."""

    def __init__(self, ray: FakeRay) -> None:
        self.infer, self.problem = self, self
        ray.hired.append(self)

    def remote(self, files: list[str] | None = None) -> _Call:
        return _Call(self, None if files is None else tuple(files))


@dataclass(frozen=True)
class _Call:
    worker: _Handle
    files: tuple[str, ...] | None


def crew_of(ray: FakeRay, folder: Path, size: int = 2) -> Crew:
    return Crew(ray, Task({}, "run"), Sources(folder, folder / "out"), size)


def work_of(crew: Crew, folder: Path, chunk: int = 3) -> list[ReportRow]:
    crew.start()
    rows = [row for some in crew.work([folder / name for name in "abcdef"], chunk) for row in some]
    assert sorted(row.image for row in rows) == list("abcdef")
    return rows


def test_more_workers_than_ray_has_room_for_are_no_reason_to_wait(tmp_path: Path) -> None:
    crew = crew_of(FakeRay(), tmp_path, size=5)
    assert {row.status for row in work_of(crew, tmp_path, 1)} == {"done"}
    assert crew.most == 2


def test_the_file_that_kills_its_workers_is_named_and_all_others_are_done(tmp_path: Path) -> None:
    crew = crew_of(FakeRay(deadly="c"), tmp_path)
    rows = work_of(crew, tmp_path)
    assert {row.image: row.status for row in rows} == {**dict.fromkeys("abdef", "done"), "c": "failed"}
    assert crew.lost == ATTEMPTS
    assert f"{ATTEMPTS} workers were lost with it in hand" in next(row.reason for row in rows if row.image == "c")


@pytest.mark.parametrize("chunk", [1, 3, 6])
def test_an_error_costs_the_file_that_meets_it_and_no_other(tmp_path: Path, chunk: int) -> None:
    ray = FakeRay(erroneous="c")
    rows = work_of(crew_of(ray, tmp_path), tmp_path, chunk)
    assert {row.image: row.status for row in rows} == {**dict.fromkeys("abdef", "done"), "c": "failed"}
    assert next(row.reason for row in rows if row.image == "c") == "RuntimeError: out of memory"
    assert len(ray.hired) == 2 + (1 if chunk == 1 else 2)  # a new one after each error
    if chunk > 1:
        assert next(row.reason for row in rows if row.image == "a") == "noted"


def test_a_worker_that_dies_while_it_starts_is_replaced(tmp_path: Path) -> None:
    assert {row.status for row in work_of(crew_of(FakeRay(stillborn=2), tmp_path), tmp_path)} == {"done"}


def test_workers_that_all_die_while_they_start_are_an_error_with_the_likely_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"workers died while they started \(is there memory for them\?\)"):
        crew_of(FakeRay(stillborn=99), tmp_path).start()


def test_what_the_first_worker_says_of_the_config_ends_the_command(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        crew_of(FakeRay(problem="does not fit"), tmp_path).start()


def test_without_ray_the_command_says_how_to_install_it_and_leaves_an_earlier_report_alone(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.csv").write_text("earlier")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert infer_archive.main(line(archive, tmp_path)) == 2
    assert "Ray is not installed: pip install" in capsys.readouterr().err
    assert (tmp_path / "report.csv").read_text() == "earlier"


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
        (["--config", "configs/metadata.json"], "no .*evaluator.*expected configs/inference.json"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--output_dir", str(ROOT / "LICENSE" / "out")], "cannot write in .*; give another --output_dir"),
    ],
)
def test_what_is_wrong_is_said_before_ray_starts(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    assert infer_archive.main(line(archive, tmp_path / "out", *change)) == 2
    assert re.search(words, capsys.readouterr().err)
