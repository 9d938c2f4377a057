"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from markupsafe import Markup

from scripts.evidence import report_charts, report_tables
from scripts.evidence.report_cases import browser
from scripts.evidence.report_explanations import explanations
from scripts.evidence.report_load import Evidence, External, Job
from scripts.evidence.report_metrics import metric_of
from scripts.evidence.report_pictures import data_uri
from scripts.evidence.report_tables import Cell, Table, number

__all__ = ["page"]

_HERE = Path(__file__).parent
_STYLE = "report.css"
_SCRIPTS = ("report_stage.js", "report_browser.js")
_MOST_VALUES = 8


def page(results: Sequence[Evidence], cases: int) -> str:
    """The page about these results, each with at most ``cases`` cases as pictures.

    Raises:
        ValueError: a picture cannot be read, or a file of results holds something else than this bundle writes.
    """
    try:
        return _page(results, cases)
    except ValueError as error:
        if any(str(evidence.folder) in str(error) for evidence in results):
            raise
        raise ValueError(_UNSHOWN.format(_folders(results), error)) from error
    except (ArithmeticError, AttributeError, LookupError, TemplateError, TypeError) as error:
        raise ValueError(_UNSHOWN.format(_folders(results), f"{type(error).__name__}: {error}")) from error


_UNSHOWN = "{}: the results are not as this bundle writes them ({}). Evaluate the run again (docs/how-to-train.md)."


def _folders(results: Sequence[Evidence]) -> str:
    return ", ".join(str(evidence.folder) for evidence in results)


def _page(results: Sequence[Evidence], cases: int) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = [_section(number, evidence, cases) for number, evidence in enumerate(results, 1)]
    script = "\n".join(_text(name) for name in _SCRIPTS) if any(one["browser"] for one in sections) else ""
    return environment.get_template("report.html.j2").render(
        title=results[0].title if len(results) == 1 else "Evidence",
        policy=_policy(script),
        style=Markup(_text(_STYLE)),  # noqa: S704 (a file of the bundle)
        script=Markup(script),  # noqa: S704 (files of the bundle)
        synthetic=[_data_name(evidence) for evidence in results if evidence.synthetic],
        sections=sections,
    )


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """A content security policy: pictures in the page, its own style, this one script, and nothing from outside."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'" if script else "script-src 'none'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {allowed}; base-uri 'none'; form-action 'none'"
    )


def _data_name(evidence: Evidence) -> str:
    return str(evidence.study.get("dataset") or evidence.title)


def _section(place: int, evidence: Evidence, cases: int) -> dict[str, Any]:
    shown = {
        "browser": browser(evidence, cases),
        "headline": report_tables.headline_table(evidence),
        "comparisons": report_tables.comparison_tables(evidence),
        "folds": report_charts.fold_chart(evidence),
        "strata": _strata(evidence),
        "gamma": _gamma(evidence.gamma),
        "training": report_charts.training_chart(evidence),
        "external": _external(evidence),
        "explanations": explanations(evidence),
    }
    sections = (
        ("results", "Results", True),
        ("comparisons", "Comparisons", shown["comparisons"]),
        ("folds", "By fold", shown["folds"]),
        ("strata", "By kind of case", shown["strata"]),
        ("gamma", "Gamma", shown["gamma"]),
        ("training", "Training", shown["training"]),
        ("external", "Other data", shown["external"]),
        ("explanations", "Explanation and uncertainty", shown["explanations"]),
        ("examples", "Worst to best", shown["browser"]),
        ("cases", "Cases", shown["browser"]),
        ("provenance", "Provenance", True),
    )
    return shown | {
        "number": place,
        "title": evidence.title,
        "words": _words(evidence),
        "caveats": evidence.caveats,
        "arms": [(name, words) for name, words in evidence.arms.items() if words],
        "interval_note": _interval_note(evidence),
        "fold_table": _fold_table(evidence),
        "command": _command(evidence.study.get("command")),
        "provenance": _provenance(evidence.jobs),
        "contents": [(anchor, name) for anchor, name, there in sections if there],
    }


def _words(evidence: Evidence) -> str:
    """What was measured, in one line."""
    study = evidence.study
    if not study:
        return f"One evaluated run, {evidence.jobs[0].name}."
    counts = [
        _counted(len(evidence.arms), "arms"),
        *(_counted(len(study[key]), key) for key in ("folds", "seeds") if isinstance(study.get(key), list)),
    ]
    data = f"Data: {study['dataset']}. " if study.get("dataset") else ""
    return f"{data}{', '.join(counts)}."


def _counted(count: int, things: str) -> str:
    return f"{count} {things if count != 1 else things.removesuffix('s')}"


def _interval_note(evidence: Evidence) -> str:
    missing = not evidence.intervals
    return (
        "No intervals were computed." if missing else "An interval says how far the mean may move with other patients."
    )


def _strata(evidence: Evidence) -> list[tuple[Any, Table]]:
    names = dict.fromkeys(name for one in evidence.predictors.values() for name in one.get("strata") or {})
    found = []
    for name in names:
        table = report_tables.stratum_table(evidence, name, report_charts.STRATUM_METRICS)
        if table.rows:
            found.append((report_charts.stratum_chart(evidence, name), table))
    return found


def _fold_table(evidence: Evidence) -> Table | None:
    folds = evidence.folds
    if folds is None:
        return None
    metrics = [metric_of(name) for name in report_charts.FOLD_METRICS if name in folds]
    counts = [name for name in ("cases", "patients") if name in folds]
    texts = [name for name in ("arm", "seed", "fold") if name in folds]
    rows = [
        [
            *(Cell(report_tables.name_of(str(row[name]))) for name in texts),
            *(Cell(number(row[name])) for name in counts),
            *(Cell(number(row[metric.name], metric.digits)) for metric in metrics),
        ]
        for _, row in folds.iterrows()
    ]
    return Table("Means of each fold", [*texts, *counts, *(metric.label for metric in metrics)], rows)


def _gamma(gamma: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if gamma is None:
        return None
    return {"rule": gamma.get("rule"), "chosen": gamma.get("chosen"), "chart": report_charts.gamma_chart(gamma)}


def _external(evidence: Evidence) -> list[dict[str, Any]]:
    """The external tests, by the data set they were made on."""
    tests: dict[str, list[tuple[Job, External]]] = {}
    for job in evidence.jobs:
        for one in job.externals:
            tests.setdefault(one.name, []).append((job, one))
    own = evidence.predictors.get("model", {}) if not evidence.study else {}
    return [_external_test(name, found, own) for name, found in tests.items()]


def _external_test(name: str, found: Sequence[tuple[Job, External]], own: Mapping[str, Any]) -> dict[str, Any]:
    shifts = [(job.name, one.shift) for job, one in found if one.shift]
    distances = report_tables.shift_table(shifts)
    return {
        "name": name,
        "table": report_tables.external_table(name, [(job.name, own, one) for job, one in found]),
        "caveats": list(dict.fromkeys(caveat for _, one in found for caveat in one.caveats)),
        "pictures": [(data_uri(one.picture.read_bytes(), "png"), job.name) for job, one in found if one.picture][:1],
        "distances": distances,
        "shifts": [] if distances else [(run, list(_flat(shift))) for run, shift in shifts],
    }


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of every figure of a JSON content, however deep."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(one, f"{name}, {key}" if name else str(key))
    elif isinstance(value, list):
        some = "" if len(value) <= _MOST_VALUES else f" and {len(value) - _MOST_VALUES} more"
        yield name, ", ".join(map(_short, value[:_MOST_VALUES])) + some
    else:
        yield name, _short(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def _command(command: Any) -> str:
    return shlex.join(map(str, command)) if isinstance(command, list) else str(command or "")


def _provenance(jobs: Sequence[Job]) -> list[tuple[str, dict[str, str]]]:
    """Title -> lines: what all runs share once, then what each has of its own."""
    records = [(job.name or job.folder.name, dict(_record(job))) for job in jobs]
    known = [record for _, record in records if record]
    if len(known) < 2:
        return records
    common = {key: value for key, value in known[0].items() if all(one.get(key) == value for one in known)}
    own = [(name, {k: v for k, v in record.items() if k not in common}) for name, record in records]
    return [(f"The same in all {len(known)} runs with a record", common), *own]


def _record(job: Job) -> Iterator[tuple[str, str]]:
    """What ``run.json`` says of a run, line by line."""
    if job.record is None:
        return
    record = dict(job.record)
    for name in ("status", "error", "started", "updated", "resumed_after_epoch"):
        if record.get(name) is not None:
            yield name.replace("_", " "), str(record[name])
    if record.get("epoch") is not None:
        yield "epochs", f"{record['epoch']} of {record.get('max_epochs')}"
    for name in ("best", "bundle", "versions", "machine", "data"):
        if isinstance(record.get(name), Mapping):
            yield name, ", ".join(f"{key} {_short(one)}" for key, one in record[name].items() if one not in (None, []))
    if record.get("seed") is not None:
        yield "seed", str(record["seed"])
    for key, value in (record.get("settings") or {}).items():
        yield f"setting: {key}", _short(value)
    if record.get("command"):
        yield "command", _command(record["command"])
