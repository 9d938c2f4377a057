"""A data set in which an unreadable image does not stop the run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import Dataset
from PIL import Image

from bundle.inference.report import reason_of

__all__ = ["FAILURE_KEY", "SECONDS_KEY", "SOURCE_KEY", "TolerantDataset"]

SOURCE_KEY = "source"
FAILURE_KEY = "failure"
SECONDS_KEY = "seconds"


class TolerantDataset(Dataset):
    """A MONAI dataset in which an unreadable image does not stop the run.

    Every item gets two more strings: ``source``, the path of its image, and ``failure``, empty or the reason why the
    image could not be prepared; and ``seconds``, how long that took. In place of such an image a small grey ramp goes
    through the same transforms, so that batching, the network and the inverse transforms work as for any other item;
    the writer reports the reason.

    Args:
        data: items with the path of an image under ``image``.
        transform: the preprocessing; its first transform loads the image.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__(data=data, transform=transform)

    def _transform(self, index: int) -> dict[str, Any]:
        item = self.data[index]
        source, failure, begun = str(item["image"]), "", time.perf_counter()
        try:
            prepared = self.transform(dict(item))
        except Exception as error:  # a reader may raise anything at all on a damaged file
            failure = reason_of(error)
            with tempfile.TemporaryDirectory() as folder:
                stand_in = Path(folder, "ramp.png")
                Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stand_in)
                prepared = self.transform({**item, "image": str(stand_in)})
        seconds = time.perf_counter() - begun
        return {**prepared, SOURCE_KEY: source, FAILURE_KEY: failure, SECONDS_KEY: seconds}
