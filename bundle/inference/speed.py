"""How long each part of a run took, and how many images there were a second."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["Speed"]


@dataclass
class Speed:
    """Seconds of the parts of a run, which overlap.

    Attributes:
        images: how many were read.
        decoding: from the file to what the network takes, in a thread or in several processes.
        model: the network and the way back onto the grid of the source.
        encoding: from the prediction to the finished file.
    """

    images: int = 0
    decoding: float = 0.0
    model: float = 0.0
    encoding: float = 0.0
    _begun: float = field(default_factory=time.perf_counter, init=False)

    def summary(self) -> str:
        """Images a second, and the share of each part in the work, in words; empty where there was no image."""
        passed = time.perf_counter() - self._begun
        work = self.decoding + self.model + self.encoding
        if not self.images or work <= 0:
            return ""
        parts = ", ".join(f"{name} {getattr(self, name) / work:.0%}" for name in ("decoding", "model", "encoding"))
        return (
            f"{self.images} images in {passed:.1f} s, {self.images / passed:.2f} images/s; "
            f"of {work:.1f} s of work {parts}"
        )
