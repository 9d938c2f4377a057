"""Jobs of a study: trained and evaluated once, gone on with after any interruption, equal on every backend."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from scripts import cross_validate, sweep_gamma
from scripts.evidence import command
from scripts.evidence.arms import gamma_arm
from scripts.evidence.backends import run_on_ray, run_one_by_one
from scripts.evidence.jobs import Job, finished_sections, refuse_other_settings, run_job
from scripts.evidence.study import Study
from tests.conftest import ROOT, TINY
from tests.workflow import equal_networks

OVERRIDES = {**TINY, "max_epochs": 2, "warmup_epochs": 0, "device": "cpu", "panel_interval": 100}


def study(dataset: Path, folder: Path, *gammas: float, folds: tuple[int, ...] = (0,), **options: object) -> Study:
    arms = tuple(gamma_arm(gamma) for gamma in gammas)
    configs = (str(ROOT / "configs" / "train.json"),)
    return Study(folder, dataset, arms, folds, (0,), configs, {**OVERRIDES, **options})


@pytest.fixture(scope="module")
def finished(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that was run in this process."""
    job = study(tiny_dataset, tmp_path_factory.mktemp("study"), 35).jobs()[0]
    assert run_job(job) is None
    return job


def contents(folder: str) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.suffix != ".lock"}


def test_a_job_trains_and_evaluates(finished: Job) -> None:
    folder = Path(finished.folder)
    rows = pd.read_csv(folder / "cases.csv")
    assert finished_sections(finished) == ("test",)
    assert json.loads((folder / "run.json").read_text())["status"] == "completed"
    assert len(rows) == 4 * 6
    assert (folder / rows["picture"].dropna().iloc[0]).is_file()


def test_a_finished_job_is_not_repeated(finished: Job) -> None:
    before = contents(finished.folder)
    assert run_job(finished) is None
    assert contents(finished.folder) == before


def test_another_section_is_evaluated_without_training_again(finished: Job) -> None:
    weights = (Path(finished.folder) / "model.pt").stat().st_mtime_ns
    test_cases = (Path(finished.folder) / "cases.csv").read_bytes()
    assert run_job(replace(finished, sections=("test", "validation"))) is None
    validation = pd.read_csv(Path(finished.folder) / "validation" / "cases.csv", dtype={"source": str})
    assert set(validation["source"]) == {f"{number:02d}" for number in range(6, 12)}
    assert (Path(finished.folder) / "model.pt").stat().st_mtime_ns == weights
    assert (Path(finished.folder) / "cases.csv").read_bytes() == test_cases


def test_other_settings_in_the_same_folder_are_refused_by_name(finished: Job) -> None:
    with pytest.raises(ValueError, match=r"other settings \(max_epochs was 2 and is 3\). Give another --output"):
        refuse_other_settings(replace(finished, overrides={**finished.overrides, "max_epochs": 3}))
    refuse_other_settings(finished)


def test_comments_in_configs_do_not_make_another_job(finished: Job, tmp_path: Path) -> None:
    commented = tmp_path / "train.json"
    content = json.loads(Path(finished.configs[0]).read_text()) | {"_desc_": "something else"}
    commented.write_text(json.dumps(content))
    refuse_other_settings(replace(finished, configs=(str(commented),)))
    commented.write_text(json.dumps(content | {"gamma": 1}))
    with pytest.raises(ValueError, match="configs was"):
        refuse_other_settings(replace(finished, configs=(str(commented),)))


def test_a_job_that_fails_says_why_and_is_not_finished(tiny_dataset: Path, tmp_path: Path) -> None:
    job = study(tiny_dataset, tmp_path, 35, image_size=30).jobs()[0]
    problem = run_job(job)
    assert problem is not None
    assert "multiple of 4" in problem
    assert finished_sections(job) == ()


def in_this_process(jobs: list[Job]) -> Callable[..., object]:
    """Stands for a backend: quick, and counts what it is given."""

    def run(todo: list[Job]) -> object:
        jobs.extend(todo)
        return ((job, run_job(job)) for job in todo)

    return run


def line(dataset: Path, folder: Path, *more: str) -> list[str]:
    values = [f"{name}={value}" for name, value in OVERRIDES.items()]
    return ["--dataset_dir", str(dataset), "--output", str(folder), "--set", *values, "--quiet", *more]


def test_a_sweep_writes_the_curve_and_shares_what_is_finished(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(command, "run_one_by_one", in_this_process(jobs))
    common = line(tiny_dataset, tmp_path, "--folds", "1", "--resamples", "100")
    assert cross_validate.main(["--arms", "seg35", *common]) == 0
    assert sweep_gamma.main(["--values", "0", "35", *common]) == 0
    assert [job.name for job in jobs] == ["seg35, fold 0, seed 0", "seg0, fold 0, seed 0", "seg35, fold 0, seed 0"]
    written = json.loads((tmp_path / "gamma.json").read_text())
    assert written["chosen"] in (0, 35)
    assert [entry["gamma"] for entry in written["metrics"]["psnr"]] == [0, 35]
    assert (tmp_path / "gamma.png").is_file()
    assert json.loads((tmp_path / "study.json").read_text())["synthetic"] is True
    printed = capsys.readouterr()
    assert "NOTE: data set 'tiny' is SYNTHETIC" in printed.out
    jobs.clear()
    assert cross_validate.main(["--arms", "seg35", *common]) == 0
    assert jobs == []
    assert "1 of them finished before" in capsys.readouterr().err


def test_a_failed_job_does_not_keep_the_others_from_running(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(todo: list[Job]) -> object:
        return ((job, None if job.arm == "seg35" else "ValueError: bad") for job in todo)

    monkeypatch.setattr(command, "run_one_by_one", run)
    assert cross_validate.main(["--arms", "seg0,seg35", *line(tiny_dataset, tmp_path, "--folds", "1")]) == 1
    said = capsys.readouterr().err
    assert "seg0, fold 0, seed 0: ValueError: bad" in said
    assert "1 of 2 jobs failed; the same command runs them again" in said
    assert not (tmp_path / "summary.json").exists()


def kill_training(folders: list[Path], killed: list[int]) -> None:
    """Kill, once, the process that has written a checkpoint into one of these folders."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not killed:
        for folder in folders:
            if (folder / "checkpoint.pt").is_file() and not (folder / "cases.csv").is_file():
                owners = [int(pid.name) for pid in Path("/proc").iterdir() if pid.name.isdigit() and uses(pid, folder)]
                for pid in owners:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
        time.sleep(0.02)


def uses(process: Path, folder: Path) -> bool:
    try:
        return any(str(link.readlink()).startswith(f"{folder}/") for link in (process / "fd").iterdir())
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds the worker through /proc, which Linux has")
def test_a_killed_worker_is_replaced_and_ray_gives_what_a_sequential_run_gives(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    # Long enough to be killed in the middle; pictures of every validation take their time.
    jobs = study(tiny_dataset, tmp_path / "ray", 35, 0, max_epochs=6, panel_interval=1).jobs()
    killed: list[int] = []
    watcher = threading.Thread(target=kill_training, args=([Path(job.folder) for job in jobs], killed))
    watcher.start()
    outcomes = {job.name: problem for job, problem in run_on_ray(jobs, None, cpus=1, gpus=0)}
    watcher.join()
    assert killed
    assert outcomes == dict.fromkeys([job.name for job in jobs])
    logs = [(Path(job.folder) / "log.txt").read_text() for job in jobs]
    assert all("breast_psnr" in log for log in logs)
    assert any("resumed from" in log for log in logs)
    alone = study(tiny_dataset, tmp_path / "alone", 35, max_epochs=6, panel_interval=1).jobs()
    assert [problem for _, problem in run_one_by_one(alone)] == [None]
    assert equal_networks(Path(jobs[0].folder), Path(alone[0].folder))
    one, other = (pd.read_csv(Path(job.folder) / "cases.csv") for job in (jobs[0], alone[0]))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
