"""Give hostile files to every reader of foreign input, and keep what makes one crash, hang, take too much or escape.

Each input is read by a worker process that is watched. A reader may use an input or refuse it with an error that names
the file; anything else is a finding, kept in OUTPUT/findings as a file that --replay takes.
Exit code: 0 without findings, 1 with some, 2 when an option is wrong.
Example: python scripts/fuzz.py --minutes 10 --targets dicom checkpoint
"""

from __future__ import annotations

import argparse
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the bundle's root is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.arguments import command_parser, count
from scripts.fuzzing.engine import FINDINGS, Tally, fuzz
from scripts.fuzzing.guided import search
from scripts.fuzzing.supervisor import Supervisor
from scripts.fuzzing.targets import TARGETS
from scripts.fuzzing.tried import load


def argument_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = command_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together (default: 10)")
    text = "for each target at most this many, the same each time; with hypothesis alone (default: no limit)"
    parser.add_argument("--inputs", type=count, default=sys.maxsize, metavar="COUNT", help=text)
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same inputs (default: 0)")
    names = "; ".join(f"{name}: {what}" for name, what in TARGETS.items())
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=list(TARGETS),
        default=list(TARGETS),
        metavar="NAME",
        help=f"default: all. {names}",
    )
    text = "hypothesis (default), or atheris, which has to be installed: the DICOM reader alone, led by coverage"
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis", help=text)
    parser.add_argument("--output", type=Path, default=Path("runs/fuzz"), metavar="DIR", help="default: runs/fuzz")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give one finding to its target again")
    return parser


def table(tallies: Sequence[Tally]) -> str:
    """The result of a run as text."""
    head = (
        "target",
        "inputs",
        "accepted",
        "refused",
        "errors",
        "crashes",
        "hangs",
        "memory",
        "escapes",
        "peak MiB",
        "slowest s",
    )
    kinds = ("accepted", "refused", "error", "crash", "hang", "memory", "escape")
    rows: list[tuple[str, ...]] = [head]
    for one in tallies:
        counts = [one.kinds[kind] for kind in kinds]
        rows.append((one.target, *map(str, (sum(counts), *counts)), f"{one.grown / 2**20:.0f}", f"{one.seconds:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def replay(file: Path, output: Path) -> int:
    """Give one kept input to its readers, tell what becomes of it, and return the exit status."""
    name, tried = load(file)
    with Supervisor([name], output / "work") as supervisor:
        outcome = supervisor.run(name, tried)
    print(f"{name}: {outcome.kind} {outcome.name}\n{outcome.text}\n{outcome.details}".rstrip())
    print(f"{outcome.grown / 2**20:.0f} MiB, {outcome.seconds:.1f} s")
    return int(outcome.finding)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = argument_parser().parse_args(arguments)
    try:
        if options.replay is not None:
            return replay(options.replay, options.output)
        warnings.simplefilter("ignore")  # of the libraries that write the inputs
        shutil.rmtree(options.output / FINDINGS, ignore_errors=True)
        if options.engine == "atheris":
            return _guided(options)
    except ValueError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    tallies = []
    with Supervisor(options.targets, options.output / "work") as supervisor:
        for name in options.targets:
            print(f"{name}: {TARGETS[name]}", file=sys.stderr, flush=True)
            seconds = 60 * options.minutes / len(options.targets)
            tallies.append(fuzz(name, seconds, options.inputs, options.seed, options.output, supervisor))
    print(table(tallies))
    for one in tallies:
        for key, path in one.files.items():
            print(f"\n{one.target}: {key}\n  {one.found[key].text[:300]}\n  {path}")
    return int(any(one.found for one in tallies))


def _guided(options: argparse.Namespace) -> int:
    if options.targets not in (list(TARGETS), ["dicom"]):
        raise ValueError("--engine atheris is for the target dicom alone")
    found = search(60 * options.minutes, options.seed, options.output)
    print("\n".join(map(str, found)) or "no finding")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
