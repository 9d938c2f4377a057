"""Calls of readers, of which an error that helps the user counts as refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = ["Attempts", "Readers"]

_Result = TypeVar("_Result")


class Attempts:
    """Calls of readers with one input; an error that helps the user counts as refusal, any other one goes on.

    Args:
        folder: of the input.
        clear: kinds of errors that may help: those whose text names a file of the folder do.
    """

    def __init__(self, folder: Path, clear: tuple[type[BaseException], ...]) -> None:
        self.folder, self.clear = folder, clear
        self.refusals: list[BaseException] = []
        self.used = False

    def __call__(
        self, call: Callable[[], _Result], *others: type[BaseException], counts: bool = True
    ) -> _Result | None:
        """The result of a call, or None where it refused the input.

        Args:
            call: of a reader.
            others: further kinds of errors that are clear, whether or not they name a file.
            counts: whether the input is accepted if this reader takes it.
        """
        try:
            result = call()
        except self.clear + others as error:
            if not isinstance(error, others) and not self._names_a_file(error):
                raise
            self.refusals.append(error)
            return None
        self.used |= counts
        return result

    def _names_a_file(self, error: BaseException) -> bool:
        text = str(error)
        return any(path.name in text for path in (self.folder, *self.folder.rglob("*")))


@dataclass(frozen=True)
class Readers:
    """The readers of one target.

    Attributes:
        read: gives a folder of files to the readers, each through the attempts it gets.
        clear: kinds of errors that may count as refusal.
    """

    read: Callable[[Path, Attempts], object]
    clear: tuple[type[BaseException], ...]
