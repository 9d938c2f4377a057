from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch
from ignite.engine import Engine, State
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from torch import Tensor, nn

from bundle.metrics import CASE_FIGURES, SET_FIGURES, CaseFigure, SetFigure, case_metrics, diversity, summarise

SIDE = 48
FROM_ENGINE = "$monai.handlers.from_engine(['pred', 'label', 'image', 'label_mask'])"


class Dimmed(nn.Module):
    """A model that returns a darker copy."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.7 * x


def make_case(index: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(index)
    image = torch.zeros(1, SIDE, SIDE)
    image[:, :30, 6:42] = 0.4 + 0.2 * torch.rand(1, 30, 36, generator=generator)
    mask = torch.zeros_like(image)
    if index != 1:  # one case has no lesion
        mask[:, 12:17, 20:25] = 1
    label = (0.6 * image + 0.05 * (index - 1) * mask).clamp(0, 1)
    return {
        "image": MetaTensor(image, meta={"filename_or_obj": f"/data/LE/P{index}.png"}),
        "label": label,
        "label_mask": mask,
    }


CASES = [make_case(i) for i in range(5)]


def expected_rows() -> pd.DataFrame:
    rows = []
    for case in CASES:
        image, label, mask = (torch.as_tensor(case[key])[None] for key in ("image", "label", "label_mask"))
        rows.append({name: value.item() for name, value in case_metrics(0.7 * image, label, image, mask).items()})
    return pd.DataFrame(rows)


def evaluator(metrics: dict[str, Any], decollate: bool = True) -> SupervisedEvaluator:
    """Built from a config, as a bundle does it."""
    first, *others = metrics.items()
    parser = ConfigParser(
        {
            "imports": ["$import monai"],
            "evaluator": {
                "_target_": "SupervisedEvaluator",
                "device": "cpu",
                "val_data_loader": {
                    "_target_": "DataLoader",
                    "dataset": {"_target_": "Dataset", "data": CASES},
                    "batch_size": 2,
                },
                "network": Dimmed(),
                "key_val_metric": dict([first]),
                "additional_metrics": dict(others),
                "decollate": decollate,
            },
        }
    )
    built = parser.get_parsed_content("evaluator")
    assert isinstance(built, SupervisedEvaluator)
    return built


@pytest.mark.parametrize("decollate", [True, False])
@pytest.mark.parametrize("output_transform", [None, FROM_ENGINE])
def test_an_evaluator_of_a_config_gives_the_means_over_the_cases(decollate: bool, output_transform: str | None) -> None:
    names = ("lesion_mae", "breast_psnr", "lesion_mm", "vif")
    options = {} if output_transform is None else {"output_transform": output_transform}
    engine = evaluator(
        {f"val_{name}": {"_target_": "bundle.metrics.CaseFigure", "name": name, **options} for name in names}, decollate
    )
    engine.run()
    means = expected_rows().mean()
    for name in names:
        assert engine.state.metrics[f"val_{name}"] == pytest.approx(means[name], rel=1e-5), name
    assert engine.state.best_metric == pytest.approx(means["lesion_mae"], rel=1e-5)


@pytest.mark.parametrize("decollate", [True, False])
def test_figures_of_the_set_are_those_of_the_summary(decollate: bool) -> None:
    engine = evaluator(
        {name: {"_target_": "bundle.metrics.SetFigure", "name": name} for name in SET_FIGURES}, decollate
    )
    engine.run()
    expected = summarise(expected_rows())
    for name in SET_FIGURES[:3]:
        assert engine.state.metrics[name] == pytest.approx(expected[name], rel=1e-4, nan_ok=True), name
    labels = torch.stack([case["label"] for case in CASES])
    images = torch.stack([torch.as_tensor(case["image"]) for case in CASES])
    thumbnails = [nn.functional.adaptive_avg_pool2d(x, 32) for x in (0.7 * images, labels)]
    assert engine.state.metrics["diversity"] == pytest.approx(diversity(*thumbnails), rel=1e-5)


def test_without_lesion_a_lesion_figure_is_nan_and_others_are_not() -> None:
    image = torch.as_tensor(CASES[1]["image"])[None]
    figures = {name: CaseFigure(name) for name in ("lesion_mae", "mae")}
    for figure in figures.values():
        figure.update((0.7 * image, CASES[1]["label"][None], image))
    assert math.isnan(figures["lesion_mae"].compute())
    assert figures["mae"].compute() == pytest.approx(expected_rows()["mae"][1])


def test_a_metric_starts_anew_with_every_epoch() -> None:
    engine = evaluator({"psnr": {"_target_": "bundle.metrics.CaseFigure", "name": "psnr"}})
    engine.run(1)
    first = engine.state.metrics["psnr"]
    engine.run(2)
    assert engine.state.metrics["psnr"] == first


def test_without_any_case_there_is_no_figure() -> None:
    assert math.isnan(CaseFigure("psnr").compute())
    assert math.isnan(SetFigure("lesion_contrast_r").compute())


def test_cases_of_all_ranks_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = CaseFigure("mae", output_transform=from_engine(["pred", "label", "image"]))
    engine = Engine(lambda *_: None)
    preds = [{"pred": 0.7 * torch.as_tensor(case["image"])} for case in CASES[:2]]
    engine.state = State(batch=CASES[:2], output=preds)
    figure.iteration_completed(engine)
    other_rank = [("/data/LE/P1.png", 100.0), ("/data/LE/P7.png", 0.5)]

    def all_gather(parts: list[Any], own: Any) -> None:
        parts[:] = [own, other_rank]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather)
    assert figure.compute() == pytest.approx((expected_rows()["mae"][:2].sum() + 0.5) / 3)


@pytest.mark.parametrize(("kind", "known"), [(CaseFigure, CASE_FIGURES), (SetFigure, SET_FIGURES)])
def test_an_unknown_name_is_refused_with_those_there_are(kind: type, known: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="no figure 'psnr_of_lesion'") as failure:
        kind("psnr_of_lesion")
    assert all(name in str(failure.value) for name in known)


def test_another_number_of_values_is_explained() -> None:
    with pytest.raises(ValueError, match=r"gave 2 values; expected \(pred, label, image\)"):
        CaseFigure("mae").update((torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)))


def test_the_listed_names_are_those_of_a_case() -> None:
    assert tuple(case_metrics(*(torch.zeros(1, 1, 8, 8),) * 3)) == CASE_FIGURES
    assert set(SET_FIGURES) - {"diversity"} == set(summarise(expected_rows())) - set(CASE_FIGURES)
