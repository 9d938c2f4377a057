"""The parser of a command, and kinds of arguments that several commands take."""

from __future__ import annotations

import argparse

__all__ = ["command_parser", "count"]


def command_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose ``--help`` shows the description, a module's docstring, as it stands; options are spelt out."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def count(text: str) -> int:
    """A whole number from 1, as ``type`` of an argument.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)
