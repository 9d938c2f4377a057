"""What is left out: views whose names serve for no file, and the report on everything that became no case."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scripts.prepare.conversion import Settings
from scripts.prepare.datalist import path_in
from scripts.prepare.safeguards import EXCLUDED
from scripts.prepare.sources import report_name
from scripts.prepare.view import LeftOut, View

__all__ = ["printable", "report_left_out", "well_named"]

_ON_SCREEN = 20


def well_named(views: Sequence[View], settings: Settings, excluded: list[LeftOut]) -> list[View]:
    """The views whose names are unique and can name a file; the others are added to ``excluded``."""
    known: dict[str, View] = {}
    for view in views:
        file = report_name(view.image)
        if not all(_is_utf8(text) for text in (view.name, view.patient_id, view.view)):
            reason = f"its name is not UTF-8: {view.name!a}"
            excluded.append(LeftOut(view.name, file, reason, "Rename the file in UTF-8"))
        elif not view.name or Path(view.name).name != view.name or view.name.startswith("."):
            excluded.append(LeftOut(view.name, file, "its name cannot be that of a file", "Rename it"))
        elif settings.in_place and (path := _not_utf8(view, settings.folder)) is not None:
            reason = f"its path is not UTF-8: {path!a}"
            remedy = "Rename its folders and file in UTF-8, or give --size: images are then written"
            excluded.append(LeftOut(view.name, file, reason, remedy))
        elif view.name in known:
            reason = f"a second view of this name, the first is {report_name(known[view.name].image)}"
            excluded.append(LeftOut(view.name, file, reason, "Remove or rename one of the two"))
        else:
            known[view.name] = view
    return list(known.values())


def _not_utf8(view: View, folder: Path) -> str | None:
    """The first path that a datalist could not hold."""
    masks = [path for mask in (view.mask, view.label_mask) if mask is not None for path in mask.paths]
    texts = (path_in(folder, path) for path in (view.image.path, view.label.path, *masks))
    return next((text for text in texts if not _is_utf8(text)), None)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(one: LeftOut) -> LeftOut:
    """The same in texts that every file and screen takes: bytes that are not UTF-8 are shown as escapes."""
    texts = {key: getattr(one, key) for key in ("name", "file", "reason", "remedy")}
    return replace(one, **{key: text.encode("utf-8", "backslashreplace").decode() for key, text in texts.items()})


def report_left_out(excluded: Sequence[LeftOut]) -> None:
    """Everything left out, by what to do about it, on the standard error."""
    groups: dict[str, list[LeftOut]] = defaultdict(list)
    for one in excluded:
        if one.needed:
            groups[one.remedy].append(one)
    for remedy, members in groups.items():
        print(f"left out, {len(members)}: {remedy or 'nothing to do'}", file=sys.stderr)
        for one in members[:_ON_SCREEN]:
            print(f"  {one.name}  {one.file}: {one.reason}", file=sys.stderr)
        if len(members) > _ON_SCREEN:
            print(f"  and {len(members) - _ON_SCREEN} more, see {EXCLUDED}", file=sys.stderr)
    for reason, count in Counter(one.reason for one in excluded if not one.needed).items():
        print(f"not needed, {count}: {reason}")
