"""The error of a file that cannot serve as one mammogram."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ImageFileError"]


class ImageFileError(ValueError):
    """A file that cannot serve as one mammogram.

    Attributes:
        path: the file.
        problem: what was found, and what was expected.
        remedy: what to do about it.
    """

    def __init__(self, path: str | Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}.")
        self.path, self.problem, self.remedy = Path(path), problem, remedy

    def __reduce__(self) -> tuple[type[ImageFileError], tuple[str, str, str]]:
        """As its three arguments, so that it comes whole out of another process."""
        return type(self), (str(self.path), self.problem, self.remedy)
