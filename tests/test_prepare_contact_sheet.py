"""The contact sheet of the data card: which pairs it shows, in which grey values, with which outlines."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scripts.prepare import contact_sheet


def chosen(overlap: Sequence[float], lesion: Sequence[bool]) -> dict[str, list[int]]:
    return contact_sheet.chosen_cases(pd.DataFrame({"overlap_after": overlap, "lesion": lesion}))


def test_the_sheet_shows_the_lowest_overlap_the_lesions_and_some_of_everything() -> None:
    overlap = np.random.default_rng(0).permutation(1000) / 1000
    lowest, lesions, rest = chosen(overlap.tolist(), [n % 5 == 0 for n in range(1000)]).values()
    assert lowest == np.argsort(overlap)[:12].tolist()
    assert len(lesions) == 36
    assert all(n % 5 == 0 for n in lesions)
    assert len(rest) == 12
    assert max(np.diff(rest)) < 120
    assert len({*lowest, *lesions, *rest}) == 60


@pytest.mark.parametrize("count", [1, 3, 59, 60])
def test_a_small_data_set_is_shown_whole(count: int) -> None:
    groups = chosen([np.nan] * count, [n % 2 == 0 for n in range(count)])
    assert sorted(place for group in groups.values() for place in group) == list(range(count))


def picture(folder: Path, case: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    made = contact_sheet.pair_picture(folder, case)
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(made.uri.split(",")[1]))))
    assert pixels.shape == (made.height, made.width, 3)
    return pixels.astype(int)


def coloured(pixels: np.ndarray[Any, Any], key: str) -> np.ndarray[Any, Any]:
    """Pixels near the colour of an outline."""
    return np.asarray(np.abs(pixels - contact_sheet.COLOURS[key]).max(axis=-1) < 60)


def test_a_mask_is_outlined_around_the_lesion_and_dashed_on_the_other_image(tmp_path: Path) -> None:
    grey, mask = np.full((40, 30), 128, np.uint8), np.zeros((40, 30), np.uint8)
    mask[10:20, 5:15] = 255
    for name, values in (("LE", grey), ("DES", grey), ("mask", mask)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    case = {"image": "LE.png", "label": "DES.png", "mask": "mask.png"}
    both = picture(tmp_path, case | {"label_mask": "mask.png"})
    scale, middle = contact_sheet.HEIGHT / 40, both.shape[1] // 2
    rows, columns = np.nonzero(coloured(both, "mask"))
    ends = [rows.min(), rows.max(), columns.min(), columns.max()]
    np.testing.assert_allclose(ends, np.array([10, 20, 5, 15]) * scale, atol=4)
    assert not coloured(both, "mask")[:, middle:].any()
    assert not coloured(both, "label_mask")[:, :middle].any()
    inside = both[int(11 * scale) : int(19 * scale), int(6 * scale) : int(14 * scale)]
    assert np.ptp(inside) < 20, "the lesion itself stays as it is"
    borrowed = coloured(picture(tmp_path, case), "mask")
    assert 0.2 < borrowed[:, middle:].sum() / borrowed[:, :middle].sum() < 0.8


def test_pictures_are_shown_in_their_windows(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4000, 30).astype(np.uint16)[None].repeat(40, axis=0)
    for part in ("LE", "DES"):
        (tmp_path / part).mkdir()
        Image.fromarray(ramp).save(tmp_path / part / "a.png")
    pixels = picture(tmp_path, {"image": "LE/a.png", "label": "DES/a.png", "label_window": [3000.0, 1000.0]})
    image, label = pixels[150, :225, 0], pixels[150, -225:, 0]
    assert abs(image[112] - 128) < 8
    assert label[:130].max() < 8
    assert label[-25:].min() > 247
    assert abs(label[round(225 * 0.75)] - 128) < 16


def test_a_lesion_of_one_pixel_is_outlined(tmp_path: Path) -> None:
    mask = np.zeros((1600, 1200), dtype=np.uint8)
    mask[801, 603] = 255
    grey = np.full((1600, 1200), 90, np.uint8)
    for name, values in (("LE", grey), ("DES", grey), ("mask", mask)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    pixels = picture(tmp_path, {"image": "LE.png", "label": "DES.png", "mask": "mask.png"})
    rows, columns = np.nonzero(coloured(pixels[:, : pixels.shape[1] // 2], "mask"))
    assert abs(rows.mean() - 801 * 300 / 1600) < 2
    assert abs(columns.mean() - 603 * 300 / 1600) < 2


def test_real_lesions_are_outlined_in_both_images(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "cdd-cesm-512"
    rows = pd.read_csv(root / "index.csv", dtype=str).head(3)
    cases = [
        {"image": str(root / f"LE/{row['name']}.jpg"), "label": str(root / f"DES/{row['name']}.jpg")}
        | {"mask": str(root / f"mask_LE/{row['name']}.png"), "label_mask": str(root / f"mask_DES/{row['name']}.png")}
        for _, row in rows.iterrows()
    ]
    for case in cases:
        pixels = picture(tmp_path, case)
        assert coloured(pixels, "mask").sum() > 50
        assert coloured(pixels, "label_mask").sum() > 50
