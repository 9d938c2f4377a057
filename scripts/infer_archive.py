"""Make the virtual DES of an archive with many workers on Ray: the inference of configs/inference.json, spread.

Each worker holds the network and takes some files at a time. A worker that is lost is replaced, its files are given out
again and nothing is lost; files that are finished are skipped, also by the next run of the same command. report.csv in
the output folder is that of the single process. Any value of the config can be given, spelt as for monai.bundle, such
as --model_path FILE --image_size 512 --deterministic_uids True.
Exit code: 0 done, 1 an image failed or none could be used, 2 something is missing or does not fit, 130 interrupted.
Example: python scripts/infer_archive.py --dataset_dir /archive/LE --output_dir /archive/virtual --workers 4
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monai.bundle import ConfigParser
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from bundle.inference import Sources
from bundle.inference.report import REPORT_NAME, Report
from bundle.output_lock import OutputLock
from bundle.overrides import known_ids
from scripts.archive.driver import Crew
from scripts.archive.worker import Task, told_by
from scripts.arguments import command_parser
from scripts.config_values import overrides_of, refuse_unknown, with_overrides
from scripts.ray_cluster import ROOT, connected

_NEEDED = ("accepted_kinds", "dicom_objects", "evaluator", "handlers", "model_path", "network")


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser; overrides of the config are what it leaves over."""
    parser = command_parser(__doc__)
    parser.add_argument("--dataset_dir", required=True, type=Path, metavar="DIR", help="mammograms, at any depth")
    parser.add_argument("--output_dir", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="how many, at most (default: 2)")
    parser.add_argument("--chunk", type=int, default=16, metavar="N", help="files in a worker's hand (default: 16)")
    parser.add_argument(
        "--address", help="of a Ray cluster that shares the folders, or auto; without it Ray runs on this machine"
    )
    parser.add_argument("--cpus-per-worker", type=float, default=1, metavar="N", help="processors (default: 1)")
    parser.add_argument("--gpus-per-worker", type=float, default=0, metavar="N", help="GPUs, may be a fraction")
    parser.add_argument(
        "--config",
        nargs="+",
        type=Path,
        default=[ROOT / "configs" / "inference.json"],
        metavar="FILE",
        help="the config and overlays of it (default: configs/inference.json)",
    )
    return parser


def task_of(options: argparse.Namespace, overrides: dict[str, Any]) -> Task:
    """Read the config with its overrides.

    Raises:
        ValueError: an override has an id that the config does not know, an option is out of range, or the config is
            not one of inference.
        FileNotFoundError: there are no weights.
    """
    if min(options.workers, options.chunk) < 1:
        raise ValueError("--workers and --chunk must be at least 1")
    paths = {"bundle_root": str(ROOT), "dataset_dir": str(options.dataset_dir.absolute())}
    paths |= {"output_dir": str(options.output_dir.absolute())}
    files = [str(path) for path in options.config]
    config = ConfigParser.load_config_files(files)
    lacking = [name for name in _NEEDED if name not in config]
    if lacking:
        raise ValueError(
            f"{', '.join(files)}: no {', '.join(lacking)}; expected configs/inference.json, perhaps with overlays of it"
        )
    config = with_overrides(config, {**overrides, **paths})
    refuse_unknown(config, known_ids(ROOT / "configs", config), overrides)
    weights = Path(_value(config, "model_path"))
    if not weights.is_file():
        raise FileNotFoundError(
            f"no weights at {weights}; train first (training writes models/model.pt) or give --model_path"
        )
    config["model_path"] = str(weights.absolute())
    return Task(config, uuid.uuid4().hex)


def _value(config: dict[str, Any], name: str) -> Any:
    return ConfigParser(config=with_overrides(config, {})).get_parsed_content(name)


def infer(options: argparse.Namespace, task: Task) -> int:
    """Do all images; return the exit status."""
    sources = Sources(options.dataset_dir, options.output_dir, _value(dict(task.config), "accepted_kinds"))
    report = Report(sources.output_dir / REPORT_NAME)
    _refuse_unwritable(sources.output_dir)
    with OutputLock(sources.output_dir).held():
        if sources.pending:
            _spread(options, task, sources, report)
        else:
            _begin(report, sources)
    print(f"virtual DES: {report.summary()}; see {report.path}")
    return 1 if report.failed() else 0


def _refuse_unwritable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write in {folder}: {error.strerror}; give another --output_dir") from None


def _begin(report: Report, sources: Sources) -> None:
    """Begin the report with what is known without inference, in place of an earlier one."""
    report.start()
    report.add(sources.known)
    for row in sources.known:
        if row.status in ("refused", "failed"):
            print(f"{row.image} {row.status}: {row.reason}", file=sys.stderr)


def _spread(options: argparse.Namespace, task: Task, sources: Sources, report: Report) -> None:
    number = len(sources.pending)
    workers = min(options.workers, number)
    chunk = min(options.chunk, -(-number // workers))  # few files are shared out, too
    threads = str(max(1, int(options.cpus_per_worker)))
    variables = {"OMP_NUM_THREADS": threads, "MPLBACKEND": "Agg"}
    with connected(options.address, variables, options.gpus_per_worker) as ray:
        crew = Crew(ray, task, sources, workers, options.cpus_per_worker, options.gpus_per_worker)
        crew.start()
        _begin(report, sources)
        begun = time.monotonic()
        interval = 0.5 if sys.stderr.isatty() else 30.0
        with (
            logging_redirect_tqdm([logging.getLogger("cesm")]),
            tqdm(total=number, desc="virtual DES", unit="image", mininterval=interval, dynamic_ncols=True) as bar,
        ):
            for rows in crew.work(sources.pending, chunk):
                report.add(rows)
                for row in rows:
                    if row.status == "failed":
                        bar.write(f"{row.image} failed: {row.reason}", file=sys.stderr)
                bar.update(len(rows))
        seconds = time.monotonic() - begun
    crew_size = f"{crew.most} workers" if crew.most == workers else f"{crew.most} of {workers} workers"
    lost = f", {crew.lost} lost and replaced" if crew.lost else ""
    print(f"{number} images in {seconds:.1f} s with {crew_size}{lost}: {number / seconds:.2f} images/s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options, left_over = argument_parser().parse_known_args(arguments)
    try:
        return infer(options, task_of(options, overrides_of(left_over)))
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"infer_archive: {told_by(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("infer_archive: interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
