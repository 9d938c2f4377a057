"""The data card: counts against pandas, csv that round-trips, a page that is whole, safe and always the same."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scripts.prepare.card import write_card
from scripts.prepare.card_frames import case_frame
from scripts.prepare.view import LeftOut

VOID = {"meta", "img", "br", "link", "input", "hr"}
LABELS, DENSITIES, VENDORS = ("normal", "benign", "malignant"), ("A", "B", "C", ""), ("one", "two")
LEFT_OUT = [
    LeftOut("P9_L_CC", "P9_L_CC.dcm", "the breasts overlap by 0.71, expected 0.9", "Look at the pair"),
    LeftOut("P8_L_CC", "P8_L_CC.dcm", "the breasts overlap by 0.83, expected 0.9", "Look at the pair"),
    LeftOut("-", "odd.jpg", "the name does not match", "Rename it"),
    *(LeftOut(f"P{number}", f"P{number}/HE.dcm", "a high-energy image", needed=False) for number in range(5)),
]
HOSTILE = '<script>alert("1")</script> & $x_{$ _'


def _picture(random: np.random.Generator, lesion: bool) -> Mapping[str, np.ndarray[Any, Any]]:
    image, label = random.integers(100, 4000, (2, 40, 30)).astype(np.uint16)
    mask = np.zeros((40, 30), dtype=np.uint8)
    mask[10:20, 5:15] = 255
    return {"LE": image, "DES": label} | ({"mask": mask, "label_mask": mask} if lesion else {})


def make(folder: Path, patients: int = 8, folds: int | None = 4) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A datalist and its facts; every second patient has lesions, every third of these on one image only."""
    random = np.random.default_rng(0)
    cases, facts = [], []
    for number in range(4 * patients):
        patient, laterality, view = number // 4, "LR"[number // 2 % 2], ("CC", "MLO")[number % 2]
        name = f"P{patient}_{laterality}_{view}"
        pixels = _picture(random, lesion=patient % 2 == 1)
        for part, values in pixels.items():
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / part / f"{name}.png")
        masks = [key for key in ("mask", "label_mask") if key in pixels and not (key == "mask" and number % 3 == 0)]
        case = {"image": f"LE/{name}.png", "label": f"DES/{name}.png"} | {key: f"{key}/{name}.png" for key in masks}
        case |= {"patient_id": f"P{patient}", "laterality": laterality, "view": view}
        cases.append(case | ({} if folds is None else {"fold": patient % folds}) | {"label_window": [2000.0, 4000.0]})
        facts.append(_facts(random, name, cases[-1], number) | _mask_facts(masks))
    top = {"name": "made", "synthetic": False} | ({} if folds is None else {"num_folds": folds})
    return {**top, "cases": cases}, facts


def _facts(random: np.random.Generator, name: str, case: Mapping[str, Any], number: int) -> dict[str, Any]:
    patient = number // 4
    overlap = round(float(random.uniform(0.9, 1.0)), 4)
    return {
        "name": name,
        "patient_id": case["patient_id"],
        "laterality": case["laterality"],
        "view": case["view"],
        "label": LABELS[patient % 3],
        "density": DENSITIES[patient % 4],
        "vendor": VENDORS[patient % 2],
        "image_width": 300,
        "image_height": 400,
        "label_width": 310 + number,
        "label_height": 400,
        "width": 30,
        "height": 40,
        "pixel_mm": 0.5,
        "registered": number % 3 > 0,
        "scale": 1 / 3,
        "shift_x": -1.25,
        "shift_y": float(number),
        "overlap_before": overlap - 0.05,
        "overlap_after": overlap,
        "image_window": None,
        "label_window": [2000.0, 4000.0],
        "image_histogram": [int(count) for count in random.integers(0, 50, 64)],
        "label_histogram": [int(count) for count in random.integers(0, 50, 64)],
        "image_digest": f"{number:032x}",
        "label_digest": f"{number + 1000:032x}",
    }


def _mask_facts(masks: Sequence[str]) -> dict[str, Any]:
    return {
        f"{key}_{what}": value if key in masks else 0
        for key in ("mask", "label_mask")
        for what, value in (("pixels", 100), ("regions", 1), ("percent", 12.5))
    }


@dataclass
class Page(HTMLParser):
    """A page as its tags and its tables: caption -> rows of cells, and how many are no heads. Its tags must match."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    bodies: dict[str, int] = field(default_factory=dict)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._caption = ""
        self.feed(self.text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "caption":
            self._caption = ""
        elif tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
            self.bodies[self._caption] = self.bodies.get(self._caption, 0) + ("tbody" in self._open)
        elif tag in ("td", "th"):
            self.tables[self._caption][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside != "style":
            self.words += data
        if inside == "caption":
            self._caption += data
        elif inside in ("td", "th"):
            self.tables[self._caption][-1][-1] += data

    def sources(self) -> Iterator[str]:
        for _, attributes in self.tags:
            yield from (
                str(attributes[key]) for key in ("src", "href", "srcset", "action", "data") if key in attributes
            )


def page_of(folder: Path, content: Mapping[str, Any], facts: Any, left_out: Sequence[LeftOut] = ()) -> Page:
    return Page(write_card(folder, content, facts, left_out).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Written:
    folder: Path
    content: dict[str, Any]
    facts: list[dict[str, Any]]
    page: Page

    @property
    def frame(self) -> pd.DataFrame:
        """The facts, for counting apart from the card."""
        frame = pd.DataFrame(self.facts)
        frame["fold"] = [case.get("fold") for case in self.content["cases"]]
        frame["lesion"] = frame["mask_pixels"] + frame["label_mask_pixels"] > 0
        return frame


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("card")
    content, facts = make(folder)
    return Written(folder, content, facts, page_of(folder, content, facts, LEFT_OUT))


def test_the_same_input_gives_the_same_bytes_whatever_the_folder_and_the_style(
    written: Written, tmp_path: Path
) -> None:
    content, facts = make(tmp_path)
    with mpl.rc_context({"font.size": 20, "svg.hashsalt": None}):
        write_card(tmp_path, content, facts, LEFT_OUT[::-1])
    for name in ("data_card.html", "cases.csv", "excluded.csv"):
        assert (tmp_path / name).read_bytes() == (written.folder / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "cases.csv",
        "data_card.html",
        "excluded.csv",
    ]


def test_the_csv_gives_back_every_fact_but_the_histograms(written: Written) -> None:
    read = pd.read_csv(written.folder / "cases.csv", keep_default_na=False, na_values={"image_window_centre": [""]})
    expected = written.frame.drop(columns=["lesion", "image_histogram", "label_histogram", "image_window"])
    windows = expected.pop("label_window")
    assert read["label_window_centre"].tolist() == [window[0] for window in windows]
    assert read["label_window_width"].tolist() == [window[1] for window in windows]
    assert read["image_window_centre"].isna().all()
    for name in expected:
        assert read[name].astype(expected[name].dtype).tolist() == expected[name].tolist(), name
    assert list(read.columns[:8]) == ["name", "patient_id", "laterality", "view", "fold", "label", "density", "vendor"]
    assert not [name for name in read if "histogram" in str(name)]


def test_what_was_left_out_is_in_a_csv_with_needed_files_first(written: Written) -> None:
    read = pd.read_csv(written.folder / "excluded.csv", keep_default_na=False)
    rows = [LeftOut(*row) for row in read.itertuples(index=False)]
    assert rows == sorted(LEFT_OUT, key=lambda one: (not one.needed, one.name, one.file, one.reason))


def test_the_counts_are_those_of_pandas(written: Written) -> None:
    for attribute in ("view", "laterality", "label", "density", "vendor"):
        frame = written.frame.replace({attribute: {"": "not given"}})
        groups = frame.groupby(attribute)
        expected = pd.DataFrame(
            {"patients": groups["patient_id"].nunique(), "pairs": groups.size(), "lesions": groups["lesion"].sum()}
        )
        heads, *rows = written.page.tables[f"By {attribute}"]
        assert heads[:4] == [attribute, "patients", "pairs", "with lesion"]
        assert {row[0]: [int(cell) for cell in row[1:4]] for row in rows} == {
            str(value): counts.tolist() for value, counts in expected.iterrows()
        }
        assert [row[4] for row in rows] == [f"{100 * int(row[2]) / len(frame):.0f}\N{NO-BREAK SPACE}%" for row in rows]


def test_the_folds_are_counted_by_every_attribute(written: Written) -> None:
    frame = written.frame.replace({"density": {"": "not given"}})
    (caption,) = [caption for caption in written.page.tables if caption.startswith("Pairs by fold and")]
    groups, heads, *rows = written.page.tables[caption]
    assert groups == ["", "view", "laterality", "label", "density", "vendor"]
    columns = ["fold", "patients", "pairs", "lesion", "share"]
    columns += [f"view {value}" for value in ("CC", "MLO")] + [f"laterality {value}" for value in "LR"]
    columns += [f"label {value}" for value in LABELS] + [f"density {value}" for value in ("A", "B", "C", "not given")]
    columns += [f"vendor {value}" for value in VENDORS]
    assert heads[5:] == [column.split(" ", 1)[1] for column in columns[5:]]
    for row in rows:
        part = frame if row[0] == "all" else frame[frame["fold"] == int(row[0])]
        expected = [part["patient_id"].nunique(), len(part), part["lesion"].sum()]
        expected += [int((part[name] == value).sum()) for name, value in (c.split(" ", 1) for c in columns[5:])]
        assert [int(cell) for cell in (*row[1:4], *row[5:])] == expected
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "all"]


def test_sizes_overlaps_and_masks_are_those_of_pandas(written: Written) -> None:
    tables, frame = written.page.tables, written.frame
    assert (
        tables["Width and height in pixels"][2]
        == ["LE, source", "1", "300 \N{MULTIPLICATION SIGN} 400 (32)"] + ["300"] * 3 + ["400"] * 3
    )
    source, label = tables["Width and height in pixels"][2:4]
    assert source[:2] == ["LE, source", "1"]
    assert source[2].encode("ascii", "replace") == b"300 ? 400 (32)"
    assert source[3:] == ["300"] * 3 + ["400"] * 3
    assert label[:2] + label[3:6] == ["DES, source", "32", "310", "326", "341"]
    fit = {row[0]: row[1:] for row in tables["Overlap and fit"][1:]}
    after = frame["overlap_after"]
    assert fit["overlap after"] == ["32", *(f"{x:.3f}" for x in (after.min(), after.median(), after.max()))]
    assert fit["shift right, pixels of LE"] == [str(frame["registered"].sum()), *["\N{MINUS SIGN}1.2"] * 3]
    lowest = frame.sort_values("overlap_after").head(10)
    assert [row[0] for row in tables["Lowest overlap"][1:]] == lowest["name"].tolist()
    masks = {row[0]: row[1:] for row in tables["Size of the lesions of a pair"][2:]}
    drawn = frame[frame["mask_pixels"] > 0]
    assert masks["drawn on LE"] == [str(len(drawn))] * 2 + ["25"] * 3 + ["12.50"] * 3
    assert masks["drawn on DES"][0] == str((frame["label_mask_pixels"] > 0).sum())


def test_the_large_numbers_on_top_are_those_of_pandas(written: Written) -> None:
    numbers = dict(re.findall(r"<li><b>(\d+)</b>(.*?)</li>", written.page.text))
    assert {words: int(count) for count, words in re.findall(r"<li><b>(\d+)</b>(.*?)</li>", written.page.text)} == {
        "patients": 8,
        "breasts": 16,
        "pairs of LE and DES": 32,
        "pairs with a lesion": written.frame["lesion"].sum(),
        "lesion regions": 16,
        "left out": 3,
    }, numbers


def test_what_was_left_out_is_grouped_by_reason_and_listed(written: Written) -> None:
    tables = written.page.tables
    assert tables["Cases and files left out, by reason"][1:] == [
        ["the breasts overlap by …, expected …", "2", "Look at the pair"],
        ["the name does not match", "1", "Rename it"],
    ]
    assert [row[1] for row in tables["Left out"][1:]] == ["odd.jpg", "P8_L_CC.dcm", "P9_L_CC.dcm"]
    assert tables["Files that no pair needs"][1:] == [["a high-energy image", "5", "P0/HE.dcm"]]


def test_the_page_is_whole_self_contained_and_described(written: Written) -> None:
    page = written.page
    assert "http:" not in page.text
    assert "https:" not in page.text
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    assert all(source.startswith(("data:image/", "#")) or source.endswith(".csv") for source in page.sources())
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {source[1:] for source in page.sources() if source.startswith("#")} <= ids
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 32 + 3
    assert all(attributes["alt"] for attributes in images)
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert ("html", {"lang": "en"}) in page.tags


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    content, facts = make(tmp_path, patients=4)
    content |= {"name": HOSTILE, "description": HOSTILE}
    for fact, key in zip(facts, ("name", "label", "density", "vendor", "view", "name", "vendor"), strict=False):
        fact[key] = HOSTILE
    page = page_of(tmp_path, content, facts, [LeftOut(HOSTILE, HOSTILE, HOSTILE, HOSTILE)])
    assert "<script" not in page.text
    assert page.words.count(HOSTILE) >= 10
    assert html.escape(HOSTILE, quote=False)[:20] in page.text
    assert HOSTILE in pd.read_csv(tmp_path / "excluded.csv")["reason"].tolist()


def without(*keys: str) -> Any:
    def change(content: dict[str, Any], facts: list[dict[str, Any]]) -> None:
        for fact in facts:
            fact |= {key: 0 if key.endswith(("pixels", "regions", "percent")) else None for key in keys}
        if any("mask" in key for key in keys):
            for case in content["cases"]:
                case.pop("mask", None), case.pop("label_mask", None)

    return change


def three_cases(content: dict[str, Any], facts: list[dict[str, Any]]) -> None:
    del content["cases"][3:], facts[3:]


def keys_absent(content: dict[str, Any], facts: list[dict[str, Any]]) -> None:
    assert content["cases"]
    for fact in facts:
        for key in set(fact) - {"name", "patient_id", "laterality", "view"}:
            del fact[key]


@pytest.mark.parametrize(
    ("folds", "change", "absent"),
    [
        (4, without(*(f"{m}_{w}" for m in ("mask", "label_mask") for w in ("pixels", "regions", "percent"))), "masks"),
        (None, without("label", "density", "vendor"), "folds"),
        (1, without("pixel_mm", "scale", "shift_x", "shift_y", "overlap_before", "overlap_after"), "registration"),
        (4, without("image_histogram", "label_histogram", "label_window"), "intensities"),
        (None, three_cases, "folds"),
        (4, keys_absent, "sizes"),
    ],
)
def test_what_is_not_known_leaves_no_empty_table_and_no_nan(
    folds: int | None, change: Any, absent: str, tmp_path: Path
) -> None:
    content, facts = make(tmp_path, patients=2, folds=folds)
    change(content, facts)
    page = page_of(tmp_path, content, facts)
    assert not re.search(r"\b(nan|none|null|inf)\b", page.words.replace("none: ", ""), re.IGNORECASE)
    assert page.bodies
    assert min(page.bodies.values()) > 0, page.tables
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert absent not in ids
    assert {"prepared", "counts", "left-out", "pairs"} <= ids
    assert "Nothing that a pair needs was left out." in page.words


def test_synthetic_data_and_leaking_patients_are_announced(written: Written, tmp_path: Path) -> None:
    assert "SYNTHETIC" not in written.page.words
    assert "PATIENTS LEAK" not in written.page.words
    content, facts = make(tmp_path)
    content |= {"synthetic": True, "allow_leak": True}
    content["cases"][0]["fold"] = 3
    page = page_of(tmp_path, content, facts)
    assert "SYNTHETIC DATA" in page.words
    assert "PATIENTS LEAK BETWEEN FOLDS" in page.words
    assert "1 patient is in more than one fold" in page.words
    assert "P0" in page.words[page.words.index("PATIENTS LEAK") :][:300]


def test_facts_of_other_cases_are_refused(written: Written, tmp_path: Path) -> None:
    for facts in (written.facts[1:], written.facts[::-1]):
        with pytest.raises(ValueError, match="in the same order"):
            write_card(tmp_path, written.content, facts, [])
    assert list(tmp_path.iterdir()) == []


def test_a_broken_picture_becomes_a_box_with_the_reason(tmp_path: Path) -> None:
    content, facts = make(tmp_path, patients=2)
    (tmp_path / "LE/P0_L_CC.png").write_text("not an image")
    (tmp_path / "label_mask/P1_L_CC.png").unlink()
    page = page_of(tmp_path, content, facts)
    assert page.words.count("No picture: ") == 2
    assert "No picture: LE/P0_L_CC.png: cannot be decoded" in page.words
    assert str(tmp_path) not in page.words
    assert sum(tag == "figure" for tag, _ in page.tags) == 8


def test_many_cases_give_sixty_pictures_and_a_small_page(tmp_path: Path) -> None:
    content, facts = make(tmp_path, patients=2)
    many = 250
    content["cases"] = [case | {"patient_id": f"P{n}"} for n in range(many) for case in content["cases"]]
    facts = [
        fact | {"patient_id": f"P{n}", "name": f"{n}_{fact['name']}", "vendor": f"v{n % 9}"}
        for n in range(many)
        for fact in facts
    ]
    left_out = [LeftOut(f"{n}", f"{n}.png", "damaged", "Copy it again") for n in range(700)]
    page = page_of(tmp_path, content, facts, left_out)
    assert sum(tag == "figure" for tag, _ in page.tags) == 60
    assert len(page.text) < 5e6
    (listed,) = [rows for caption, rows in page.tables.items() if caption.startswith("Left out: the first 500 of 700")]
    assert len(listed) == 501
    folds = [rows[1] for caption, rows in page.tables.items() if caption.startswith("Pairs by fold")]
    assert max(map(len, folds)) <= 20
    assert "2 others" in folds[-1]


def test_vendors_have_histograms_of_their_own_and_the_rarest_share_one() -> None:
    from scripts.prepare.card_figures import _vendors

    facts = [{"name": f"{n}", "patient_id": "P", "vendor": f"v{min(n, 20 - n)}"} for n in range(20)]
    parts = _vendors(case_frame(facts))
    assert len(parts) == 5
    assert sum(map(len, parts.values())) == 20
    assert list(parts)[-1] == f"others ({len(parts[list(parts)[-1]])})"
