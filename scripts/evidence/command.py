"""What `cross_validate.py` and `sweep_gamma.py` share: options, running the jobs, exit codes."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from monai.bundle import ConfigParser
from tqdm import tqdm

from bundle.data import read_datalist
from bundle.files import remove_unfinished_in
from bundle.metrics.intervals import Resampling
from bundle.overrides import known_ids, unknown_ids
from scripts.config_values import override_of
from scripts.evidence.arms import Arm
from scripts.evidence.backends import Outcome, run_on_ray, run_one_by_one
from scripts.evidence.jobs import LOG, ROOT, Job, finished_sections, refuse_other_settings
from scripts.evidence.results import collect, print_study, read_cases
from scripts.evidence.study import Study, described, write_study

__all__ = ["add_options", "exit_status", "run_study", "study_of"]

CONFIGS = ROOT / "configs"
_OF_THE_STUDY = ("dataset_dir", "output_dir", "model_path", "fold", "seed", "resume", "section")
"""Values that each job has of its own."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every study."""
    parser.add_argument(
        "--config", nargs="+", default=[str(CONFIGS / "train.json")], metavar="FILE", help="configs that all arms share"
    )
    parser.add_argument("--dataset_dir", required=True, type=Path, metavar="DIR", help="folder with datalist.json")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the study")
    parser.add_argument("--folds", type=int, metavar="N", help="use the first N folds; default: all of the datalist")
    parser.add_argument("--only-folds", type=int, nargs="+", metavar="K", help="use these folds instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="train each with each seed")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="values of the config for all arms"
    )
    parser.add_argument("--backend", choices=["sequential", "ray"], default="sequential", help="where the jobs run")
    parser.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster; auto: the one this machine belongs to")
    parser.add_argument("--cpus-per-job", type=int, default=1, metavar="N", help="processors, and threads, of a job")
    parser.add_argument("--gpus-per-job", type=float, default=0, metavar="N", help="GPUs of a job on Ray; 0: none")
    parser.add_argument("--resamples", type=int, default=2000, metavar="N", help="bootstrap samples of patients")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def exit_status(command: str, action: Callable[[], int]) -> int:
    """The status of an action; 2 with a line on the standard error where it cannot be done, 130 where interrupted."""
    try:
        return action()
    except (ValueError, ImportError, OSError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{command}: interrupted; the same command goes on", file=sys.stderr)
        return 130


def study_of(options: argparse.Namespace, arms: Sequence[Arm], title: str, sections: Sequence[str]) -> Study:
    """The study that the options ask for.

    Raises:
        ValueError: an option cannot be used, saying what to give.
    """
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise ValueError(f"an arm is given twice ({', '.join(names)})")
    missing = [name for name in options.config if not Path(name).is_file()]
    if missing:
        raise ValueError(f"no config {missing[0]}; give files, such as configs/train.json configs/quickstart.yaml")
    if options.cpus_per_job < 1 or options.gpus_per_job < 0 or options.resamples < 100:
        raise ValueError("--cpus-per-job must be at least 1, --gpus-per-job at least 0, --resamples at least 100")
    study = Study(
        folder=options.output.resolve(),
        dataset_dir=options.dataset_dir.resolve(),
        arms=tuple(arms),
        folds=_folds(options),
        seeds=tuple(dict.fromkeys(options.seeds)),
        configs=tuple(str(Path(name).resolve()) for name in options.config),
        overrides=dict(_override(text) for text in options.set),
        sections=tuple(sections),
        threads=options.cpus_per_job,
        title=title,
    )
    _refuse_unknown(study)
    return study


def _folds(options: argparse.Namespace) -> tuple[int, ...]:
    count = read_datalist(options.dataset_dir).get("num_folds")
    if not isinstance(count, int):
        raise ValueError(f"{options.dataset_dir} has no folds: make it with scripts/prepare_data.py --folds N")  # noqa: TRY004
    if options.only_folds is None:
        wanted = tuple(range(options.folds if options.folds is not None else count))
    else:
        wanted = tuple(dict.fromkeys(options.only_folds))
    if not wanted or min(wanted) < 0 or max(wanted) >= count:
        raise ValueError(f"folds {', '.join(map(str, wanted)) or '(none)'}: the datalist has {count}, 0 to {count - 1}")
    return wanted


def _override(text: str) -> tuple[str, Any]:
    name, value = override_of(text)
    if name in _OF_THE_STUDY:
        raise ValueError(f"--set {name}: each job has its own; see the options of this command")
    return name, value


def _refuse_unknown(study: Study) -> None:
    """Before hours of training rather than after the first start-up."""
    content = ConfigParser.load_config_files(list(study.configs))
    known = known_ids(CONFIGS, content)
    parser = ConfigParser(content)
    for name, value in study.overrides.items():
        parser[name] = value
    unknown = unknown_ids(parser.get(), known)
    if unknown:
        raise ValueError(f"--set {unknown[0]}: no such value in the config; see configs/train.json for what can be set")


def run_study(study: Study, options: argparse.Namespace) -> int:
    """Run what is not finished, then put the results together and print them.

    Returns:
        The exit code: 0, or 1 if a job failed.

    Raises:
        ValueError: the study cannot be run as asked.
    """
    study.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(study.folder / ".lock", timeout=0):
            remove_unfinished_in(study.folder, "*.json", "*.csv")
            write_study(study)
            failed = _run_jobs(study, options)
            if failed:
                return 1
            cases = read_cases(study.jobs())
            print_study(study, collect(study, cases, Resampling(options.resamples)))
            return 0
    except Timeout as error:
        raise ValueError(f"another command works on {study.folder}; wait for it or give another --output") from error


def _run_jobs(study: Study, options: argparse.Namespace) -> bool:
    jobs = study.jobs()
    for job in jobs:
        refuse_other_settings(job)
    todo = [job for job in jobs if set(job.sections) - set(finished_sections(job))]
    print(f"{len(jobs)} jobs, {len(jobs) - len(todo)} of them finished before", file=sys.stderr)
    failed = []
    outcomes = _outcomes(todo, options) if todo else iter(())
    for job, problem in _with_progress(outcomes, todo, not options.quiet):
        if problem is not None:
            failed.append(f"{job.name}: {problem}\n  see {Path(job.folder) / LOG}")
    if failed:
        print("\n".join(["", *failed]), file=sys.stderr)
        print(f"{len(failed)} of {len(jobs)} jobs failed; the same command runs them again, and only them",
              file=sys.stderr)  # fmt: skip
    return bool(failed)


def _outcomes(todo: Sequence[Job], options: argparse.Namespace) -> Iterator[Outcome]:
    if options.backend == "ray":
        return run_on_ray(todo, options.address, options.cpus_per_job, options.gpus_per_job)
    return run_one_by_one(todo)


def _with_progress(outcomes: Iterator[Outcome], todo: Sequence[Job], visible: bool) -> Iterator[Outcome]:
    """Show how many jobs are done, and the epochs of those under way."""
    stop = threading.Event()
    waiting = list(todo)
    interval = 0.5 if sys.stderr.isatty() else 60.0
    with tqdm(total=len(todo), unit="job", disable=not visible or not todo, smoothing=0, mininterval=interval) as bar:

        def show() -> None:
            while not stop.wait(2 * interval + 4):
                bar.set_postfix_str(", ".join(filter(None, map(described, list(waiting))))[:90])

        watcher = threading.Thread(target=show, daemon=True)
        if not bar.disable:
            watcher.start()
        try:
            for job, problem in outcomes:
                waiting.remove(job)
                bar.update()
                yield job, problem
        finally:
            stop.set()
