from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from bundle.handlers import CaseMetrics, EvaluationSummary, Panels
from bundle.handlers.cases import gather_cases
from bundle.handlers.pictures import Picture, draw
from bundle.metrics import case_metrics, summarise

SIDE = 48


class Dimmed(nn.Module):
    """A model that returns a darker copy."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.7 * x


def make_case(index: int, lesion: bool = True) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(index)
    image = torch.zeros(1, SIDE, SIDE)
    image[:, :30, 6:42] = 0.4 + 0.2 * torch.rand(1, 30, 36, generator=generator)
    mask = torch.zeros_like(image)
    if lesion:
        mask[:, 12:17, 20:25] = 1
    label = (0.6 * image + (0.1 + 0.05 * index) * mask).clamp(0, 1)
    name = f"/data/LE/P{index}_L_CC.png"
    return {
        "image": MetaTensor(image, meta={"filename_or_obj": name}),
        "label": label,
        "label_mask": mask,
        "patient_id": f"P{index}",
        "laterality": "L",
        "view": "CC",
    }


CASES = [make_case(i, lesion=i != 1) for i in range(5)]


def evaluate(handlers: list[Any], cases: list[dict[str, Any]] = CASES, **kwargs: Any) -> SupervisedEvaluator:
    loader = DataLoader(Dataset(cases), batch_size=2)
    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, Dimmed(), val_handlers=handlers, **kwargs)
    evaluator.run()
    return evaluator


def expected_rows(cases: list[dict[str, Any]] = CASES) -> pd.DataFrame:
    rows = []
    for case in cases:
        image, label, mask = (torch.as_tensor(case[key])[None] for key in ("image", "label", "label_mask"))
        rows.append({name: value.item() for name, value in case_metrics(0.7 * image, label, image, mask).items()})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("decollate", [True, False])
def test_case_metrics_of_an_evaluator_are_the_means_over_its_cases(decollate: bool) -> None:
    found = evaluate([CaseMetrics()], decollate=decollate).state.metrics
    for name, value in summarise(expected_rows()).items():
        assert found[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
    assert 0 < found["diversity"] < 2


def test_case_metrics_start_anew_with_every_run() -> None:
    loader = DataLoader(Dataset(CASES), batch_size=2)
    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, Dimmed(), val_handlers=[CaseMetrics()])
    evaluator.run(1)
    first = dict(evaluator.state.metrics)
    evaluator.run(2)
    assert evaluator.state.metrics == pytest.approx(first, nan_ok=True)


def test_cases_need_nothing_but_image_and_label() -> None:
    bare = [{"image": torch.as_tensor(case["image"]), "label": case["label"]} for case in CASES]
    found = evaluate([CaseMetrics()], bare).state.metrics
    assert math.isnan(found["lesion_mae"])
    assert found["psnr"] == pytest.approx(expected_rows()["psnr"].mean())


def test_the_lesion_mask_of_the_low_energy_image_serves_when_the_other_is_missing() -> None:
    renamed = [{("mask" if k == "label_mask" else k): v for k, v in case.items()} for case in CASES]
    assert evaluate([CaseMetrics()], renamed).state.metrics["lesion_mae"] == pytest.approx(
        expected_rows()["lesion_mae"].mean()
    )


def test_a_validation_set_of_one_case_works() -> None:
    found = evaluate([CaseMetrics()], CASES[:1]).state.metrics
    assert math.isnan(found["diversity"])
    assert found["psnr"] > 0


def test_a_case_without_label_is_refused_with_its_keys() -> None:
    handler = CaseMetrics()
    evaluator = SupervisedEvaluator(
        torch.device("cpu"), DataLoader(Dataset([{"image": CASES[0]["image"]}])), Dimmed(), val_handlers=[handler]
    )
    with pytest.raises(ValueError, match=r"no label; it has image"):
        evaluator.run()


def test_cases_of_all_ranks_are_joined_and_repeated_ones_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    other_rank = [("/c.png", 3), ("/a.png", 1), ("", 4)]

    def all_gather(parts: list[Any], own: Any) -> None:
        parts[:] = [own, other_rank]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather)
    assert gather_cases([("/a.png", 1), ("/b.png", 2), ("", 5)]) == [1, 2, 5, 3, 4]


def halved(image: Tensor) -> Tensor:
    """Half the size by bilinear interpolation with anti-aliasing: (1, 3, 3, 1) / 8 of the pixels, along both axes."""
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return functional.conv2d(image[None], torch.outer(weights, weights)[None, None], stride=2, padding=1)[0]


def test_scoring_at_a_smaller_size_is_scoring_reduced_images(tmp_path: Path) -> None:
    keys, border = ("image", "label", "label_mask"), (4, 4, 4, 4)  # black, so that no weight reaches beyond the edge
    whole = [{**case, **{key: functional.pad(case[key], border) for key in keys}} for case in CASES]
    reduced = [
        {**case, "image": halved(case["image"]), "label": halved(case["label"])}
        | {"label_mask": case["label_mask"][:, 1::2, 1::2]}
        for case in whole
    ]
    training = DataLoader(Dataset(whole), batch_size=2)
    evaluate([EvaluationSummary(tmp_path, training, panel_cases=0, score_size=28)], whole)
    found = pd.read_csv(tmp_path / "cases.csv").query("predictor == 'model'").reset_index(drop=True)
    expected = expected_rows(reduced)
    for name in expected:
        assert [*found[name]] == pytest.approx([*expected[name]], rel=1e-4, abs=1e-6, nan_ok=True), name
    assert Image.open(tmp_path / "pictures" / "0001.png").size == (4 * 28, 28)


def test_images_are_not_enlarged_for_scoring(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="score_size is 64, and the images have 48 x 48 pixels"):
        evaluate([EvaluationSummary(tmp_path, DataLoader(Dataset(CASES)), score_size=64)])


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate([EvaluationSummary(folder, DataLoader(Dataset(CASES), batch_size=2), panel_cases=2)])
    return folder


def test_the_summary_has_every_predictor_and_metric_and_is_strict_json(evaluation: Path) -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    summary = json.loads((evaluation / "summary.json").read_text(), parse_constant=refuse)
    assert list(summary) == ["intervals", "caveats", "predictors"]
    predictors = summary["predictors"]
    assert list(predictors) == ["model", "le_copy", "breast_constant", "mean_des"]
    for one in predictors.values():
        assert (one["cases"], one["patients"], one["lesions"]) == (5, 5, 4)
        assert {"psnr", "ssim", "breast_psnr", "lesion_mae", "lesion_contrast_r", "vif"} <= set(one["metrics"])
    psnr = predictors["model"]["metrics"]["psnr"]
    expected = expected_rows()["psnr"]
    assert [psnr["mean"], psnr["sd"], psnr["median"]] == pytest.approx(
        [expected.mean(), expected.std(), expected.median()]
    )
    assert psnr["low"] < psnr["mean"] < psnr["high"]
    assert predictors["breast_constant"]["metrics"]["lesion_contrast_r"]["mean"] is None


def test_the_table_of_cases_names_predictor_patient_and_source(evaluation: Path) -> None:
    rows = pd.read_csv(evaluation / "cases.csv")
    assert list(rows.columns[:6]) == ["predictor", "patient_id", "laterality", "view", "source", "picture"]
    assert len(rows) == 4 * len(CASES)
    model = rows[rows["predictor"] == "model"]
    np.testing.assert_allclose(model["breast_mae"], expected_rows()["breast_mae"], rtol=1e-5)
    assert model["source"].tolist() == [f"P{i}_L_CC" for i in range(5)]


def test_each_case_of_the_model_has_a_picture_of_its_images_side_by_side(evaluation: Path) -> None:
    rows = pd.read_csv(evaluation / "cases.csv", keep_default_na=False)
    of_model = rows["predictor"] == "model"
    assert not rows[~of_model]["picture"].any()
    for case, name in zip(CASES, rows[of_model]["picture"], strict=True):
        strip = np.asarray(Image.open(evaluation / name))
        assert strip.shape == (SIDE, 4 * SIDE)
        image, label, pred, lesion = np.split(strip, 4, axis=1)
        np.testing.assert_allclose(image, np.asarray(case["image"])[0].T * 255, atol=0.6)
        np.testing.assert_allclose(label, np.asarray(case["label"])[0].T * 255, atol=0.6)
        np.testing.assert_allclose(pred, 0.7 * np.asarray(case["image"])[0].T * 255, atol=0.6)
        np.testing.assert_array_equal(lesion, np.asarray(case["label_mask"])[0].T * 255)


def test_pictures_of_an_earlier_evaluation_with_more_cases_are_removed(tmp_path: Path) -> None:
    for cases in (CASES, CASES[:2]):
        evaluate([EvaluationSummary(tmp_path, DataLoader(Dataset(CASES)), panel_cases=0)], cases)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["0001.png", "0002.png"]


def test_strata_come_from_the_datalist_and_the_size_of_the_lesion(tmp_path: Path) -> None:
    listed = [
        {"image": f"/data/LE/P{i}_L_CC.png", "view": "CC", "info": {"density": "AB"[i % 2], "lesion": "mass"}}
        for i in range(5)
    ]
    evaluate([EvaluationSummary(tmp_path, DataLoader(Dataset(CASES)), cases=listed, panel_cases=0)])
    rows = pd.read_csv(tmp_path / "cases.csv", keep_default_na=False)
    model = rows[rows["predictor"] == "model"]
    assert model["density"].tolist() == ["A", "B", "A", "B", "A"]
    assert model["lesion_kind"].unique().tolist() == ["mass"]
    assert model["lesion_size"].tolist()[:2] == ["20 mm and more", ""]
    strata = json.loads((tmp_path / "summary.json").read_text())["predictors"]["model"]["strata"]
    assert list(strata) == ["density"], "a stratum of one level tells nothing"
    assert strata["density"]["A"]["cases"] == 3
    expected = model[model["density"] == "A"]["psnr"].mean()
    assert strata["density"]["A"]["metrics"]["psnr"]["mean"] == pytest.approx(expected)


def test_other_predictors_stand_beside_the_model(tmp_path: Path) -> None:
    perfect = {"perfect": lambda case: case["label"]}
    evaluate([EvaluationSummary(tmp_path, DataLoader(Dataset(CASES)), references=perfect, panel_cases=0)])
    predictors = json.loads((tmp_path / "summary.json").read_text())["predictors"]
    assert list(predictors)[-1] == "perfect"
    assert predictors["perfect"]["metrics"]["mae"]["mean"] == 0


def test_panels_of_worst_median_and_best_cases_are_pictures(evaluation: Path) -> None:
    for name in ("worst", "median", "best"):
        with Image.open(evaluation / "panels" / f"{name}.png") as picture:
            assert picture.width > picture.height > 300


def test_the_printed_table_is_aligned_and_names_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(
        [
            EvaluationSummary(
                tmp_path, [{k: v[None] for k, v in CASES[0].items() if isinstance(v, Tensor)}], panel_cases=1
            )
        ]
    )
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith("5 cases of 5 patients, 4 with lesions; means over cases with 95 % intervals")
    table = lines[1 : lines.index(next(line for line in lines if line.startswith("cases ")))]
    assert len({len(line) for line in table}) == 1
    paths = [tmp_path / "panels" / f"{name}.png" for name in ("worst", "median", "best")]
    expected = [tmp_path / "cases.csv", *paths, tmp_path / "summary.json"]
    assert [line[14:] for line in lines[-5:]] == [str(path) for path in expected]


def test_the_printed_paths_have_the_curves_and_the_model_where_they_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output_dir = tmp_path / "models" / "model.pt", tmp_path / "run"
    (tmp_path / "models").mkdir()
    output_dir.mkdir()
    for exists in (False, True):
        if exists:
            model.touch()
            (output_dir / "curves.png").touch()
        evaluate([EvaluationSummary(output_dir, DataLoader(Dataset(CASES)), panel_cases=0, model_path=model)])
        paths = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if str(tmp_path) in line]
        found = [["curves", str(output_dir / "curves.png")], ["model", str(model)]] if exists else []
        assert paths == [
            ["cases", str(output_dir / "cases.csv")],
            *found,
            ["summary", str(output_dir / "summary.json")],
        ]


def test_handlers_are_built_by_a_monai_config(tmp_path: Path) -> None:
    config = {
        "handlers": [
            {"_target_": "bundle.handlers.CaseMetrics"},
            {"_target_": "bundle.handlers.Panels", "output_dir": str(tmp_path), "count": 2},
        ]
    }
    assert "psnr" in evaluate(ConfigParser(config).get_parsed_content("handlers")).state.metrics
    assert (tmp_path / "panels" / "epoch_0001.png").is_file()


def test_panels_show_the_same_cases_each_time_lesions_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[str]] = []

    def draw_titles(pictures: list[Picture], title: str) -> Figure:
        shown.append([picture.title for picture in pictures])
        return draw(pictures[:1], title)

    monkeypatch.setattr("bundle.handlers.panels.draw", draw_titles)
    with SummaryWriter(str(tmp_path / "tensorboard")) as writer:
        handler = Panels(tmp_path, count=5, interval=2, summary_writer=writer)
        loader = DataLoader(Dataset(CASES), batch_size=2)
        evaluator = SupervisedEvaluator(torch.device("cpu"), loader, Dimmed(), val_handlers=[handler])
        for epoch in (1, 2, 3):
            evaluator.run(epoch)
    assert shown == [["P0 L CC", "P2 L CC", "P3 L CC", "P4 L CC", "P1 L CC"]] * 2
    names = sorted(path.name for path in (tmp_path / "panels").iterdir())
    assert names == ["epoch_0001.png", "epoch_0003.png"]
    assert sum(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir()) > 10_000


def drawn_epochs(folder: Path, epochs: int, val_interval: int, interval: int, stop_at: int | None = None) -> list[int]:
    """The epochs that have a panel after a training that is validated every ``val_interval`` epochs."""
    evaluator = SupervisedEvaluator(torch.device("cpu"), DataLoader(Dataset(CASES)), Dimmed())
    trainer = Engine(lambda _, __: None)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=val_interval), lambda e: evaluator.run(e.state.epoch))
    if stop_at is not None:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop_at), lambda e: e.terminate())
    Panels(folder, evaluator, count=1, interval=interval).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    return sorted(int(path.stem.removeprefix("epoch_")) for path in (folder / "panels").iterdir())


def test_panels_are_drawn_at_the_first_validation_then_an_interval_apart_and_at_the_last(tmp_path: Path) -> None:
    assert drawn_epochs(tmp_path, epochs=16, val_interval=2, interval=6) == [2, 8, 14, 16]


def test_an_early_stop_still_draws_the_last_validation(tmp_path: Path) -> None:
    assert drawn_epochs(tmp_path, epochs=16, val_interval=2, interval=6, stop_at=4) == [2, 4]


def test_a_single_validation_is_drawn_once(tmp_path: Path) -> None:
    assert drawn_epochs(tmp_path, epochs=3, val_interval=3, interval=1) == [3]
