"""An archive in the layout of CDD-CESM with its peculiarities, made from the phantom, and what it must give back."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from tests.archives.phantom import PhantomPair, phantom_pairs

LE_FOLDER, DES_FOLDER = "Low energy images of CDD-CESM", "Subtracted images of CDD-CESM"
CSV, XLSX = "Radiology_hand_drawn_segmentations_v2.csv", "Radiology-manual-annotations.xlsx"
REGION = ("region_count", "region_id", "region_shape_attributes", "region_attributes")
HEAD = ("#filename", "file_size", "file_attributes", *REGION)
REPEATS = {"P1_R_CC_2": "_2", "P2_R_MLO_2": "2"}
"""Second views, and how their names end in the archive."""


@dataclass(frozen=True)
class Archive:
    """The folder, and the phantom views in it by the name their case must get."""

    root: Path
    images: Path
    pairs: dict[str, PhantomPair]

    def image(self, case: str, kind: str = "DM") -> Path:
        """The file of a view; ``kind`` is DM (low-energy) or CM (subtracted)."""
        return self.images / (LE_FOLDER if kind == "DM" else DES_FOLDER) / f"{official(case, kind)}.jpg"

    def add_regions(self, case: str, kind: str, *shapes: Any) -> None:
        """Append rows to the csv."""
        rows = [region_row(f"{official(case, kind)}.jpg", shapes, number) for number in range(len(shapes))]
        with (self.root / CSV).open("a", newline="") as file:
            csv.writer(file).writerows(rows)


def write_archive(root: Path, folder: str = "PKG - CDD-CESM/CDD-CESM", xlsx: str = XLSX, size: int = 64) -> Archive:
    """Four patients of four views and two second views, complete, in the images' folder of this name."""
    made = phantom_pairs(5, size)
    pairs = {f"P{pair.patient + 1}_{pair.laterality}_{pair.view}": pair for pair in made if pair.patient < 4}
    pairs |= dict(zip(REPEATS, made[18:], strict=True))
    archive = Archive(root, root / folder, pairs)
    rows, table = [], []
    for number, (case, pair) in enumerate(pairs.items()):
        for kind, values in (("DM", pair.image), ("CM", pair.label)):
            write_jpeg(archive.image(case, kind), grey(values))
            shapes = outlines(pair.mask)
            name = official(case, kind) + (" .jpg" if number == 3 else ".jpg")
            rows += [region_row(name, shapes, region) for region in range(len(shapes))]
            table.append(table_row(case, kind, pair))
    rows.append([*rows[-1][:4], "1", *rows[-1][5:]])  # an exact duplicate, counted like the others
    rows[-1][3] = rows[-2][3] = "2"
    rows.append(["P1_L_CM_CC.jpg", "1", "{}", "0", "0", "{}", "{}"])  # an image that was looked at, without a region
    with (root / CSV).open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *rows])
    write_table(root / xlsx, table)
    archive.image("P2_L_CC").rename(archive.image("P2_L_CC").with_name("P2_L_DM_CC .jpg"))
    for leftover in (".DS_Store", "._P2_L_DM_CC.jpg", "Thumbs.db"):
        (archive.images / LE_FOLDER / leftover).write_bytes(b"left by a system")
    (root / f"~${xlsx}").write_bytes(b"left by a spreadsheet")
    return archive


def official(case: str, kind: str) -> str:
    """Name of an image in the archive, in the spelling of its view."""
    if case in REPEATS:
        return official(case.removesuffix("_2"), kind) + REPEATS[case]
    patient, side, view = case.split("_")
    return f"{patient}_{side}_{kind}_{view}"


def grey(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The 8 bits of an image that the archive holds: the breast brighter than the air up to its skin."""
    return np.asarray(np.where(values > 0, np.rint(30 + values * (225.0 / values.max())), 0), dtype=np.uint8)


def write_jpeg(path: Path, values: NDArray[np.uint8]) -> None:
    """Grey as three channels, as in the download, at the quality at which JPEG only rounds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).convert("RGB").save(path, quality=100, subsampling=0)


def region_row(name: str, shapes: Sequence[Any], number: int) -> list[str]:
    """One row of the csv: region ``number`` of an image."""
    return [name, "1", "{}", str(len(shapes)), str(number), json.dumps(shapes[number]), "{}"]


def outlines(mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """One polygon along the outermost pixels of a mask whose rows are each without gap; none for an empty mask."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return []
    left: list[tuple[int, int]] = []
    right: list[tuple[int, int]] = []
    for y in rows.tolist():
        x = np.flatnonzero(mask[y]).tolist()
        assert len(x) == x[-1] - x[0] + 1
        if left:  # from row to row along a side of pixels that both rows have
            left += [(max(left[-1][0], x[0]), y - 1), (max(left[-1][0], x[0]), y)]
            right += [(min(right[-1][0], x[-1]), y - 1), (min(right[-1][0], x[-1]), y)]
        left.append((x[0], y))
        right.append((x[-1], y))
    xs, ys = zip(*left, *reversed(right), strict=True)
    return [{"name": "polygon", "all_points_x": list(xs), "all_points_y": list(ys)}]


def table_row(case: str, kind: str, pair: PhantomPair) -> dict[str, Any]:
    """What the table says of one image: with a lesion malignant on the LE, of the DES of P2_L_CC benign."""
    lesion, low = bool(pair.mask.any()), kind == "DM"
    patient, side, view = case.split("_")[:3]
    label = "Malignant" if lesion else "Normal"
    return {
        "Image_name": official(case, kind) + ("  " if case == "P3_L_CC" else ""),
        "Patient_ID": int(patient[1:]),
        "Side": side,
        "Type": "DM" if low else "CESM",
        "Age": 40 + int(patient[1:]),
        "Breast density (ACR)": "ABCD"[int(patient[1:]) - 1] if low else "_",
        "BIRADS": ("3$2" if low else 5) if lesion else 1,
        "Findings": "Mass  with calcification$IMLN " if lesion else "Normal",
        "View": f"{view} " if case == "P3_R_CC" else view,
        "Tags": "malignant mass, spiculated " if lesion else "normal",
        "Machine": 2 if patient == "P4" else 1,
        "Pathology Classification/ Follow up": "Benign" if case == "P2_L_CC" and not low else label,
    }


def write_table(path: Path, rows: Sequence[dict[str, Any]], sheet: str = "all") -> None:
    """Write the xlsx, with a second sheet as the download has."""
    with pd.ExcelWriter(path, engine="openpyxl") as book:
        pd.DataFrame(rows).to_excel(book, sheet_name=sheet, index=False)
        pd.DataFrame(rows[:1]).to_excel(book, sheet_name="mass_description", index=False)
