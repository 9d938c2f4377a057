"""Show what went wrong as the last line of a command's output."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["root_cause", "show_cause_last"]


def root_cause(error: BaseException) -> BaseException:
    """Return the error from which ``error`` was raised, through all layers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def show_cause_last() -> None:
    """Let an error that ends the program be followed by its cause in one line.

    MONAI raises "Failed to instantiate component ..." or "Failed to evaluate ..." from the error that a user can act
    on, which then stands far up in the traceback. To be called as the first step of a workflow.
    """
    sys.excepthook = _excepthook


def _excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, traceback)
    cause = root_cause(error)
    if cause is not error:
        print(f"\nerror: {cause}", file=sys.stderr)
