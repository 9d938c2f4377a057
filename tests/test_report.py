"""The report: one page with the evidence of studies and evaluated runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scripts import report
from scripts.evidence.report_cases import browser, chosen_places, script_json
from scripts.evidence.report_load import Evidence, read_evidence, sorted_texts
from scripts.evidence.report_metrics import METRICS, metric_of
from scripts.evidence.report_pictures import grey_uri, outline, read_picture, window
from scripts.evidence.report_tables import Table, comparison_tables, headline_table, number, shift_table
from tests.report_study import REFERENCES, write_job, write_json, write_study

ROOT = Path(__file__).parents[1]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study")


def page_of(*runs: Path, options: tuple[str, ...] = ()) -> str:
    output = runs[0].parent / "report.html"
    assert report.main([*map(str, runs), "-o", str(output), *options]) == 0
    return output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page about a study as it is."""
    return page_of(write_study(tmp_path_factory.mktemp("report") / "study"))


def change(path: Path, **entries: Any) -> None:
    """Set entries of a JSON file."""
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | entries)


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def cases_in(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


class Elements(HTMLParser):
    """Counts the elements of a page and keeps its addresses and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.without_text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag == "img" and not named.get("alt"):
            self.without_text.append(str(named))


def test_a_study_is_shown_with_its_title_data_banner_caveats_and_every_part(page: str) -> None:
    for text in ("Folds of a phantom", "SYNTHETIC DATA", "few cases", "For research only", "what seg35 is"):
        assert text in page
    for part in (
        "Paired comparisons",
        "By fold",
        "By kind of case",
        "Training",
        "Worst, median and best",
        "Provenance",
    ):
        assert part in page
    assert "abc123" in page
    assert "torch 2.13.0" in page


def test_the_page_names_no_address_but_its_own_parts_and_has_a_text_for_every_picture(page: str) -> None:
    elements = Elements(page)
    assert all(address.startswith(("data:image/", "#")) for address in elements.addresses)
    assert elements.without_text == []
    anchors = {address[1:] for address in elements.addresses if address.startswith("#")}
    assert anchors <= set(elements.ids)
    assert len(elements.ids) == len(set(elements.ids))


def test_the_policy_forbids_all_but_pictures_in_the_page_its_style_and_its_one_script(page: str) -> None:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found
    policy = dict(part.strip().split(" ", 1) for part in found[1].replace("&#39;", "'").split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"
    assert policy["script-src"].startswith("'sha256-")


def test_the_same_input_gives_the_same_page(study: Path, page: str) -> None:
    assert page_of(study) == page


def test_hostile_names_stay_text(study: Path, page: str) -> None:
    plain = Elements(page)
    change(study / "study.json", title=HOSTILE, dataset=HOSTILE, caveats=[HOSTILE], command=[HOSTILE])
    for path in (study / "cases.csv", study / "baseline/fold_0_seed_0/run.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("malignant", HOSTILE).replace("completed", HOSTILE), encoding="utf-8")
    summary = (study / "summary.json").read_text(encoding="utf-8")
    (study / "summary.json").write_text(summary.replace("malignant", HOSTILE), encoding="utf-8")
    page = page_of(study)
    hostile = Elements(page)
    assert hostile.tags.count("script") == plain.tags.count("script")
    assert hostile.tags.count("img") == plain.tags.count("img")
    assert hostile.handlers == []
    assert HOSTILE in {case["label"] for case in cases_in(page)["cases"]}


def test_data_cannot_end_the_script_element_it_stands_in() -> None:
    text = script_json({"a": "</script><!-- & -->", "b": float("nan"), "c": np.float64(0.123456789)})
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"a": "</script><!-- & -->", "b": None, "c": 0.12346}


def test_the_first_table_has_a_row_for_each_figure_and_a_column_for_each_predictor(study: Path) -> None:
    table = headline_table(read_evidence(study))
    assert list(table.columns[2:]) == [
        *("baseline", "seg35", "seg100"),
        *("LE copied", "constant inside the breast", "mean DES"),
    ]
    assert [group for group in table.groups if group[0]] == [("models", 3), ("reference predictors", 3)]
    rows = {row[0].text: row for row in table.rows}
    assert rows["cases"][2].text == "8"
    assert rows["PSNR [dB]"][1].text == "high"
    assert re.fullmatch(r"\d\d\.\d\d", rows["PSNR [dB]"][2].text)
    assert " to " in rows["PSNR [dB]"][2].note


def test_the_best_mean_of_a_row_is_marked_in_the_direction_that_is_good(study: Path) -> None:
    evidence = read_evidence(study)
    for name, values in (("psnr", (20, 22, 21)), ("lesion_mae", (0.3, 0.1, 0.2))):
        for arm, value in zip(evidence.arms, values, strict=True):
            evidence.predictors[arm]["metrics"][name]["mean"] = value
        for reference in REFERENCES:
            evidence.predictors[reference]["metrics"][name]["mean"] = None
    rows = {row[0].text: row for row in headline_table(evidence).rows}
    for title in ("PSNR [dB]", "lesion MAE"):
        assert [cell.mark for cell in rows[title][2:]] == ["", "best", "", "", "", ""]
        assert rows[title][5].text == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("name", "worse", "better"),
    [("psnr", 20.0, 21.0), ("lesion_mae", 0.2, 0.1), ("contrast_recovery", 1.4, 0.8), ("false_enhancement", 0.2, 0.1)],
)
def test_a_worse_figure_has_more_badness(name: str, worse: float, better: float) -> None:
    assert METRICS[name].badness(worse) > METRICS[name].badness(better)


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert [number(-0.001, 2), number(-0.01, 2), number(float("nan"))] == ["0.00", "\N{MINUS SIGN}0.01", "\N{EN DASH}"]


def test_a_figure_without_direction_is_neither_good_nor_bad() -> None:
    assert np.isnan(metric_of("lesion_contrast_real").badness(0.3))
    assert np.isnan(metric_of("something new").badness(1.0))
    assert metric_of("something_new").label == "something new"


def test_a_comparison_whose_interval_excludes_zero_is_marked_and_says_which_arm_is_better(study: Path) -> None:
    ((table, rest),) = comparison_tables(read_evidence(study))
    assert rest is None
    assert table.caption == "seg35 minus baseline"
    (psnr, mae) = table.rows
    assert [psnr[2].text, psnr[2].mark, psnr[3].text, psnr[-1].text] == [
        *("+0.51", "interval excludes 0"),
        *("<\N{NO-BREAK SPACE}0.001", "seg35 better"),
    ]
    assert [mae[2].mark, mae[-1].text] == ["", "no"]


def test_a_higher_error_speaks_for_the_other_arm(study: Path) -> None:
    one = {"a": "baseline", "b": "seg35", "metric": "lesion_mae", "difference": 0.02, "low": 0.01, "high": 0.03}
    recovery = one | {"metric": "contrast_recovery"}
    change(study / "summary.json", comparisons=[recovery, one])
    ((table, _),) = comparison_tables(read_evidence(study))
    assert [row[-1].text for row in table.rows] == ["baseline better", "yes"]
    assert texts(table)[0][3:6] == ["\N{EN DASH}"] * 3


def test_a_small_difference_is_not_shown_as_zero(study: Path) -> None:
    one = {"a": "baseline", "b": "seg35", "metric": "psnr", "difference": -0.00042, "low": -0.001, "high": -0.0001}
    change(study / "summary.json", comparisons=[one])
    ((table, _),) = comparison_tables(read_evidence(study))
    assert table.rows[0][2].text == "\N{MINUS SIGN}0.00042"
    assert table.rows[0][2].note == "\N{MINUS SIGN}0.00100 to \N{MINUS SIGN}0.00010"


def test_figures_that_are_not_in_the_headline_are_compared_below_and_those_without_difference_left_out(
    study: Path,
) -> None:
    one = {"a": "baseline", "b": "seg35", "difference": 0.02, "low": 0.01, "high": 0.03}
    compared = [one | {"metric": name} for name in ("mse", "psnr")] + [one | {"metric": "vif", "difference": None}]
    change(study / "summary.json", comparisons=compared)
    ((table, rest),) = comparison_tables(read_evidence(study))
    assert rest is not None
    assert [[row[0].text for row in part.rows] for part in (table, rest)] == [["PSNR [dB]"], ["MSE"]]
    assert "seg35 minus baseline, other figures" in page_of(study)


def test_one_evaluated_run_is_shown_beside_the_references(tmp_path: Path) -> None:
    write_job(tmp_path / "run", fold=1)
    (tmp_path / "run" / "caveats.txt").write_text("data set 'p' is SYNTHETIC: it says nothing\n")
    page = page_of(tmp_path / "run")
    assert "SYNTHETIC DATA" in page
    assert "it says nothing" in page
    assert "LE copied" in page
    assert "fold 1" in page


def test_several_results_stand_below_each_other_with_places_of_their_own(tmp_path: Path, study: Path) -> None:
    write_job(tmp_path / "run")
    page = page_of(study, tmp_path / "run")
    elements = Elements(page)
    assert len(elements.ids) == len(set(elements.ids))
    assert page.count('class="browser"') == 2
    assert page.count("SYNTHETIC DATA") == 1


def test_what_is_optional_may_be_absent(tmp_path: Path) -> None:
    cases = write_job(tmp_path / "run")
    for name in ("run.json", "history.csv", "pictures"):
        path = tmp_path / "run" / name
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
        else:
            path.unlink()
    cases[["predictor", "patient_id", "psnr"]].to_csv(tmp_path / "run" / "cases.csv", index=False)
    page = page_of(tmp_path / "run")
    assert "No pictures of cases" in page
    assert "No run.json" in page


def test_a_study_without_folds_comparisons_and_trained_runs_still_has_its_figures(study: Path) -> None:
    (study / "folds.csv").unlink()
    change(study / "summary.json", comparisons=[], intervals={})
    change(study / "study.json", arms={"le_copy": "a reference"}, folds=None, command=None)
    for arm in ("baseline", "seg35", "seg100"):
        (study / arm).rename(study / f"no {arm}")
    page = page_of(study)
    assert "Paired comparisons" not in page
    assert "No intervals were computed" in page
    assert "seg100" in page


def test_gamma_is_shown_with_its_rule_and_choice(study: Path) -> None:
    curve = [{"gamma": gamma, "mean": 0.2 - gamma / 1000, "low": 0.1, "high": 0.3} for gamma in (0, 35, 100)]
    write_json(study / "gamma.json", {"rule": "the lowest error", "chosen": 35, "metrics": {"lesion_mae": curve}})
    page = page_of(study)
    assert "Chosen: gamma 35." in page
    assert "the lowest error" in page
    assert "Means and intervals over gamma, dotted line at the chosen 35" in page


def test_an_external_test_is_shown_with_its_caveats_and_the_measured_shift(study: Path) -> None:
    job = study / "baseline" / "fold_0_seed_0"
    folder = job / "external" / "elsewhere"
    summary = json.loads((job / "summary.json").read_text(encoding="utf-8"))
    write_json(folder / "summary.json", summary | {"caveats": ["other vendor"]})
    write_json(folder / "domain_shift.json", {"features": {"distance": 1.25}, "list": list(range(20))})
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "domain_shift.png")
    page = page_of(study)
    for text in ("External test on elsewhere", "other vendor", "features, distance", "baseline, fold 0, seed 0"):
        assert text in page


def test_distances_between_training_and_external_cases_are_a_table() -> None:
    domain = {"wasserstein": 0.0321, "jensen_shannon": 0.25, "frd": None, "frd_note": "no library"}
    content = {"training": {"cases": 40}, "external": {"cases": 12}, "image": domain, "label": domain | {"frd": 4.321}}
    table = shift_table([("baseline, fold 0", content)])
    assert table is not None
    assert texts(table) == [
        ["baseline, fold 0", "LE", "40", "12", "0.032", "0.250", "\N{EN DASH}", "no library"],
        ["baseline, fold 0", "real DES", "40", "12", "0.032", "0.250", "4.32", "no library"],
    ]
    assert shift_table([("", {"features": {"distance": 1}})]) is None


def test_a_missing_study_or_run_is_named_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "nothing"), "-o", str(tmp_path / "r.html")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "nothing") in error
    assert "evaluate the run" in error
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("name", ["summary.json", "cases.csv"])
@pytest.mark.parametrize("content", [None, "", "[]", '{"predictors": {"model": {"psnr": 1}}}'])
def test_a_missing_or_damaged_file_of_a_study_is_named(
    study: Path, name: str, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / name).unlink()
    if content is not None:
        (study / name).write_text(content)
    assert report.main([str(study), "-o", str(study / "r.html")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(study / name) in error
    assert "Run the command of the study again" in error


def test_a_figure_that_is_no_number_is_an_error(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = pd.read_csv(study / "cases.csv", dtype=str)
    cases.loc[0, "psnr"] = "high"
    cases.to_csv(study / "cases.csv", index=False)
    assert report.main([str(study)]) == 2
    assert str(study / "cases.csv") in capsys.readouterr().err


def test_a_damaged_picture_is_named(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = study / "baseline" / "fold_0_seed_0" / "pictures" / "0000.png"
    path.write_bytes(b"no picture")
    assert report.main([str(study), "-o", str(study / "r.html")]) == 2
    assert str(path) in capsys.readouterr().err
    Image.fromarray(np.zeros((4, 7), np.uint8)).save(path)
    assert report.main([str(study), "-o", str(study / "r.html")]) == 2
    assert "width 7" in capsys.readouterr().err


def test_no_cases_cannot_be_asked_for(study: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        report.main([str(study), "--cases", "0"])
    assert stopped.value.code == 2


def test_a_missing_picture_is_counted_not_fatal(study: Path) -> None:
    (study / "baseline" / "fold_0_seed_0" / "pictures" / "0000.png").unlink()
    page = page_of(study)
    assert "1 pictures that cases.csv names are missing" in page
    assert len(cases_in(page)["cases"]) == 7


def test_fewer_cases_are_shown_on_demand_and_the_page_says_how_many(study: Path) -> None:
    page = page_of(study, options=("--cases", "3"))
    assert "3 of 8 cases" in page
    shown = [case["metrics"]["baseline"]["breast_psnr"] for case in cases_in(page)["cases"]]
    cases = read_evidence(study).cases
    known = cases[cases["arm"] == "baseline"]["breast_psnr"].sort_values().tolist()
    assert shown == pytest.approx([known[0], known[3], known[7]], rel=1e-3)


@pytest.mark.parametrize(("count", "most"), [(8, 3), (100, 10), (101, 11), (5, 5), (2, 120), (9, 1), (7, 2)])
def test_chosen_cases_are_the_worst_the_middle_the_best_and_spread_in_between(count: int, most: int) -> None:
    places = chosen_places(count, most)
    assert len(places) == len(set(places)) == min(count, most)
    assert places == sorted(places)
    assert places[0] == 0
    if most >= 3 and count > 1:
        assert {(count - 1) // 2, count - 1} <= set(places)


def evidence_of_seeds(study: Path) -> Evidence:
    cases = pd.read_csv(study / "cases.csv", dtype={"patient_id": str})
    more = cases.assign(seed=10, psnr=99.0)
    pd.concat([more, cases.assign(seed=2)]).to_csv(study / "cases.csv", index=False)
    return read_evidence(study)


def test_of_several_seeds_the_first_is_shown_and_named(study: Path) -> None:
    found = browser(evidence_of_seeds(study), 120)
    assert found is not None
    assert found.total == 8
    assert found.seed == "2"
    assert all(case["metrics"]["baseline"]["psnr"] < 99 for case in found.data["cases"])


def test_patients_keep_the_zeros_of_their_names(page: str) -> None:
    names = {case["name"] for case in cases_in(page)["cases"]}
    assert "000 L CC" in names


def test_le_real_des_and_lesion_are_embedded_once_and_one_virtual_for_each_arm(page: str) -> None:
    case = cases_in(page)["cases"][0]
    assert set(case["virtual"]) == {"baseline", "seg35", "seg100"}
    assert case["le"].startswith("data:image/")
    assert set(case["metrics"]) == {"baseline", "seg35", "seg100", *REFERENCES}


def test_the_outline_goes_along_the_border_of_the_lesion() -> None:
    lesion = np.zeros((8, 8), np.uint8)
    lesion[2:5, 3:7] = 255
    path = outline(lesion)
    points = np.array([point.split() for point in path.strip("MZ").split("L")], dtype=float)
    assert points[:, 0].min() == pytest.approx(3)
    assert points[:, 0].max() == pytest.approx(7)
    assert points[:, 1].min() == pytest.approx(2)
    assert points[:, 1].max() == pytest.approx(5)
    assert len(points) < 12


def test_a_lesion_at_the_border_has_a_closed_outline_and_none_has_none() -> None:
    lesion = np.zeros((8, 8), np.uint8)
    assert outline(lesion) == ""
    assert outline(lesion + 255) == ""
    lesion[:3, :3] = 255
    assert outline(lesion).count("M") == outline(lesion).count("Z") == 1


def test_pictures_are_made_small_and_a_flat_one_is_stored_as_png(tmp_path: Path) -> None:
    Image.fromarray(np.full((512, 4 * 300), 90, np.uint8)).save(tmp_path / "p.png")
    picture = read_picture(tmp_path / "p.png")
    assert picture.image.shape == (256, 150)
    assert grey_uri(picture.pred).startswith("data:image/png")
    assert window(picture) == (90.0, 91.0)


def test_both_des_are_windowed_by_the_real_des_inside_the_breast(tmp_path: Path) -> None:
    image = np.zeros((10, 10), np.uint8)
    image[:, :5] = 100
    label = np.where(image > 0, np.arange(100).reshape(10, 10) + 50, 255).astype(np.uint8)
    Image.fromarray(np.concatenate([image, label, label // 2, image * 0], axis=1)).save(tmp_path / "p.png")
    low, high = window(read_picture(tmp_path / "p.png"))
    assert (low, high) == pytest.approx(np.percentile(label[:, :5], (1, 99)), abs=0.06)


def test_folds_are_in_the_order_of_their_numbers() -> None:
    assert sorted_texts(["10", "2", "", "b", "2"]) == ["2", "10", "b", ""]
