"""What a DICOM file tells about its image, under these keys of the image's metadata (``MetaTensor.meta``).

The reader writes them where it is asked to read images as displayed; ``ScaleMammogramd`` and ``TurnUprightd`` read
them. Images of other formats lack them: they are taken as they are.
"""

from __future__ import annotations

__all__ = ["LATERALITY", "MIRRORED", "UPSIDE_DOWN", "WINDOW"]

WINDOW = "window"
"""Display window [centre, width] in the units of the pixel values, exactly [centre - width / 2, centre + width / 2]."""
LATERALITY = "laterality"
"""``L`` or ``R``."""
MIRRORED = "mirrored"
"""1 if left and right must be exchanged to have the chest wall of a left breast at the left edge, else 0."""
UPSIDE_DOWN = "upside_down"
"""1 if top and bottom must be exchanged, else 0."""
