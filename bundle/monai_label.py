"""Inference in MONAI Label's server: the first step of ``preprocessing`` and the last of ``postprocessing``.

The server takes these two lists from ``configs/inference.json``, and neither our data set nor our writer. Both steps
know its items by their ``image_path`` and return any other item as it is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform
from monai.utils.enums import MetaKeys

from bundle.dicom.kind import INPUT_KINDS
from bundle.image_file_error import ImageFileError
from bundle.inference.sources import Sources
from bundle.reader import file_suffix

__all__ = ["PICTURES", "VOLUMES", "LabelResultd", "LabelSourced"]

#: Formats of results that hold one 8-bit picture, and formats that hold a volume with its place in space.
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha")

_PATH, _EXTENSION, _DTYPE = "image_path", "result_extension", "result_dtype"
"""Keys of a request that MONAI Label runs through the transforms, and that its writer reads."""


class LabelSourced(MapTransform):
    """Name the one image of a request that the network may be given, or refuse the request.

    A request names a file, or the folder of a DICOM series. Images of another kind than the accepted ones, such as the
    subtracted image that a series holds beside the low-energy one, are left out.

    Args:
        keys: paths.
        accepted_kinds: see ``bundle.inference.sources.Sources``.
    """

    def __init__(self, keys: KeysCollection, accepted_kinds: Collection[str] = INPUT_KINDS) -> None:
        super().__init__(keys)
        self.accepted_kinds = tuple(accepted_kinds)

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """A copy of the item ``data`` with the path of one file under each of its ``keys``.

        Raises:
            ImageFileError: there is no such image, or there are several.
        """
        item = dict(data)
        if _PATH in item:
            for key in self.key_iterator(item):
                item[key] = str(self._the_one(Path(str(item[key]))))
        return item

    def _the_one(self, path: Path) -> Path:
        sources = Sources(path, os.devnull, self.accepted_kinds)  # where no result lies
        try:
            usable, others = sources.pending, sources.known
        except FileNotFoundError as error:
            raise ImageFileError(
                path, "no image", "Correct the name of the image, or fetch the series again"
            ) from error
        if len(usable) == 1:
            return usable[0]
        if usable:
            names = ", ".join(sources.name(file) for file in usable[:3])
            raise ImageFileError(path, f"{len(usable)} images ({names}), expected one", "Ask for each by its file")
        reasons = "; ".join(f"{row.image}: {row.reason}" for row in others[:3])
        raise ImageFileError(path, f"no low-energy image ({reasons})", "Choose a low-energy image")


class LabelResultd(MapTransform):
    """Give a prediction the shape and the number type in which MONAI Label's writer keeps the grid of the source.

    - A result in a picture format becomes (W, H) in whole numbers of 8 bits: floats in a PNG are refused by the server
      with HTTP 500, and a channel axis would be written as an axis of the picture.
    - A result in a volume format becomes (1, W, H, 1), one slice, of which the server drops the channel.
    - A result cannot be written in other formats (DICOM); ``.nii.gz`` takes their place.

    ``result_extension`` and ``result_dtype`` of the request are kept where given; a whole number type is rounded to.

    Args:
        keys: predictions, (1, W, H) in 0..255.
        image: the source, whose metadata the server compares sizes with.
    """

    def __init__(self, keys: KeysCollection, image: str = "image") -> None:
        super().__init__(keys)
        self.image = image

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """A copy of the item ``data`` with its ``keys`` ready to be written."""
        item = dict(data)
        if _PATH not in item:
            return item
        suffix = str(item.get(_EXTENSION) or file_suffix(str(item[_PATH]))).lower()
        item[_EXTENSION] = suffix if suffix in PICTURES + VOLUMES else VOLUMES[0]
        picture = item[_EXTENSION] in PICTURES
        if picture:
            item[_DTYPE] = item.get(_DTYPE) or "uint8"
        whole = item.get(_DTYPE) is not None and np.issubdtype(np.dtype(item[_DTYPE]), np.integer)
        for key in self.key_iterator(item):
            pred = item[key].round() if whole else item[key]
            item[key] = pred[0] if picture else pred[..., None]
            shape = np.asarray(item[key].shape if picture else item[key].shape[1:])
            item[self.image].meta[MetaKeys.SPATIAL_SHAPE.value] = shape
        return item
