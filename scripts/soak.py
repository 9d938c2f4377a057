"""Soak: training, preparation, inference and cross-validation under faults, each ending as if nothing had happened.

Faults: kill -9 at random moments, a full disk, unreadable files, a worker that dies, a NaN loss, want of memory, a
second process in the same output folder, jumps of the clock. After each the same command is run again, and what it
leaves is compared with an undisturbed run: weights bit for bit, JSON and CSV but for times, DICOM and pictures byte for
byte. At no time may a file of weights be unloadable, and nothing unfinished may stay.

The data are a phantom and the networks tiny. Since the start of a command takes far longer than such a run, runs are
forked from this process, which has imported everything, and call what the commands call; processes that a command would
start anew are forked as well, and panels and curves are drawn plain. One fault in thirty is a kill of the real command
line, compared with pictures in full. A full disk is a small file system where one may be mounted, else a limit on the
size of files.

Writes OUTPUT/faults.jsonl (a line for each fault) and OUTPUT/table.txt; folders of faults that failed stay.
Exit code: 0 nothing was lost and nothing differs, 1 something was or does, 2 a wrong command, 130 interrupted.
Example: python scripts/soak.py --minutes 30 --faults 200 --output runs/soak
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from bundle.files import write_text
from scripts.arguments import command_parser
from scripts.soaking.disk import can_mount
from scripts.soaking.faults import FAULTS
from scripts.soaking.session import RESULTS, Outcome, Session, table
from scripts.soaking.workflows import WORKFLOWS

_OURS = ("disturbed", "material", "table.txt", "undisturbed", RESULTS)


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after so long (default: 30)")
    parser.add_argument("--faults", type=int, default=200, help="stop after so many (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when (default: 0)")
    parser.add_argument("--output", type=Path, default=Path("runs/soak"), help="folder (default: runs/soak)")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="disturb N runs at a time (default: 2)")
    parser.add_argument("--workflow", nargs="+", choices=list(WORKFLOWS), default=list(WORKFLOWS), help="these alone")
    parser.add_argument("--fault", nargs="+", choices=list(FAULTS), default=list(FAULTS), help="these alone")
    parser.add_argument("--replay", metavar="SEED:INDEX", help="inject one fault of an earlier soak again")
    parser.add_argument(
        "--disk", choices=["auto", "mount", "limit"], default="auto", help="what a full disk is (default: auto)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _session(options: argparse.Namespace) -> Session:
    """Make the folder ready.

    Raises:
        ValueError: an option cannot be used, or the folder holds files of others.
    """
    if options.minutes <= 0 or options.faults < 1 or options.processes < 1:
        raise ValueError("--minutes, --faults and --processes must be above 0")
    folder = options.output.resolve()
    foreign = [path.name for path in folder.iterdir() if path.name not in _OURS] if folder.is_dir() else []
    if foreign:
        raise ValueError(f"{folder} holds {foreign[0]}, which is not of a soak; give another --output")
    for name in _OURS[:4]:
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    mounts = can_mount() if options.disk == "auto" else options.disk == "mount"
    return Session(folder, options.seed, mounts, tuple(options.workflow), tuple(options.fault))


def soak(options: argparse.Namespace) -> int:
    """Inject faults; print and return what became of them.

    Raises:
        ValueError: an option cannot be used.
    """
    session = _session(options)
    if options.replay is not None:
        outcomes = [_replayed(session, options.replay)]
    else:
        print(
            "a full disk is " + ("a small one" if session.mounts else "a limit on the size of files"), file=sys.stderr
        )
        session.prepare()
        outcomes = _injected(session, options)
    text = table(outcomes)
    print(text)
    write_text(session.folder / "table.txt", text + "\n")
    failed = [one for one in outcomes if one.failed]
    for one in failed:
        _print_failure(one, session)
    if not failed:
        session.clean()
    return 1 if failed else 0


def _replayed(session: Session, text: str) -> Outcome:
    try:
        seed, index = (int(part) for part in text.split(":"))
    except ValueError:
        raise ValueError(f"--replay {text!r} is not SEED:INDEX, such as 0:17") from None
    session.seed = seed
    session.prepare()
    outcome = session.inject(index)
    print(f"{outcome.fault} of {outcome.workflow}: {'; '.join(outcome.notes)}", file=sys.stderr)
    return outcome


def _injected(session: Session, options: argparse.Namespace) -> list[Outcome]:
    outcomes = []
    interval = 0.5 if sys.stderr.isatty() else 60.0
    with tqdm(total=options.faults, unit="fault", disable=options.quiet, mininterval=interval, smoothing=0) as bar:
        for outcome in session.run(options.faults, options.minutes, options.processes):
            outcomes.append(outcome)
            bar.update(outcome.hits)
            bar.set_postfix(failed=sum(one.failed for one in outcomes), refresh=False)
            if outcome.failed:
                bar.clear()
                _print_failure(outcome, session)
    return outcomes


def _print_failure(outcome: Outcome, session: Session) -> None:
    print(f"{outcome.fault} of {outcome.workflow}: {'; '.join(outcome.notes)}", file=sys.stderr)
    for kind in ("lost", "differences"):
        for problem in getattr(outcome, kind):
            print(f"  {kind}: {problem}", file=sys.stderr)
    place = session.folder / "disturbed" / f"{outcome.index:04d}"
    print(f"  see {place}; again: python scripts/soak.py --replay {session.seed}:{outcome.index}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        return soak(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("soak: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.exit(main())
