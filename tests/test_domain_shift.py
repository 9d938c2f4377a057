from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from bundle import domain_shift as shift
from bundle.domain_shift import CaseSample, Reservoir, domain_shift, sample_case
from bundle.handlers import DomainShift

SIDE = 48


def make_case(index: int, level: float = 0.4) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(index)
    image = torch.zeros(1, SIDE, SIDE)
    image[:, :30, 6:42] = level + 0.2 * torch.rand(1, 30, 36, generator=generator)
    name = f"/data/LE/P{index}.png"
    return {"image": MetaTensor(image, meta={"filename_or_obj": name}), "label": 0.6 * image}


TRAINING = [make_case(i) for i in range(12)]
TRAINING_SET: Any = Dataset(TRAINING)  # a map-style data set, as the configs give it
EXTERNAL = [make_case(100 + i, level=0.6) for i in range(11)]


def samples(cases: list[dict[str, Any]]) -> list[CaseSample]:
    found = [sample_case(torch.as_tensor(case["image"])[None], case["label"][None]) for case in cases]
    return [case for case in found if case is not None]


def inside(cases: list[dict[str, Any]], key: str) -> list[Tensor]:
    return [torch.as_tensor(case[key])[0, :30, 6:42].flatten() for case in cases]


@pytest.fixture(autouse=True)
def distance(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A radiomics library that is always there and says 4.2; what it was given."""
    given: list[Any] = []

    def frechet_radiomics_distance(*arguments: Any, workers: int) -> float:
        given.append((*arguments, workers))
        return 4.2

    monkeypatch.setattr(shift, "radiomics_remedy", lambda: None)
    monkeypatch.setattr(shift, "frechet_radiomics_distance", frechet_radiomics_distance)
    return given


def test_the_distances_are_those_of_the_pixels_inside_the_breast() -> None:
    result = domain_shift(samples(TRAINING), samples(EXTERNAL))
    for key in ("image", "label"):
        ours, theirs = (torch.cat(inside(cases, key)).numpy() for cases in (TRAINING, EXTERNAL))
        assert result[key]["wasserstein"] == pytest.approx(wasserstein_distance(ours, theirs), abs=1e-3)
        counts = [np.histogram(x, 64, (0, 1))[0] for x in (ours, theirs)]
        assert result[key]["jensen_shannon"] == pytest.approx(jensenshannon(counts[0], counts[1], base=2))
        np.testing.assert_allclose(result[key]["histogram"]["training"], counts[0] / len(ours))
        assert len(result[key]["histogram"]["edges"]) == 65
    assert result["image"]["wasserstein"] == pytest.approx(0.2, abs=5e-3)
    assert result["external"] == {"cases": 11}


def test_a_set_is_not_apart_from_itself_in_any_order() -> None:
    cases = samples(TRAINING)
    result = domain_shift(cases, cases[::-1])
    assert result["image"]["wasserstein"] == pytest.approx(0.0, abs=1e-12)
    assert result["image"]["jensen_shannon"] == pytest.approx(0.0, abs=1e-6)


def test_every_case_counts_the_same_however_large_its_breast() -> None:
    small = make_case(0, level=0.6)
    small["image"][:, 10:] = 0
    result = domain_shift(samples(TRAINING[:1]), samples([TRAINING[0], small]))
    ours, theirs = torch.as_tensor(TRAINING[0]["image"])[0, :30, 6:42], torch.as_tensor(small["image"])[0, :10, 6:42]
    expected = wasserstein_distance(ours.flatten().numpy(), theirs.flatten().numpy()) / 2
    assert result["image"]["wasserstein"] == pytest.approx(expected, abs=1e-3)


def test_the_background_does_not_count() -> None:
    case = make_case(0)
    noisy = torch.as_tensor(case["image"]).clone()
    noisy[noisy == 0] = 0.015
    found = sample_case(noisy[None], case["label"][None])
    assert found is not None
    np.testing.assert_array_equal(found.shares["image"], samples([case])[0].shares["image"])


def test_the_radiomics_distance_gets_the_training_first_and_the_breasts(distance: list[Any]) -> None:
    result = domain_shift(samples(TRAINING), samples(EXTERNAL), workers=3)
    assert (result["image"]["frd"], result["image"]["frd_note"]) == (4.2, None)
    ours, theirs, breasts, _, workers = distance[1]  # of the DES
    assert (len(ours), len(theirs), workers) == (12, 11, 3)
    np.testing.assert_allclose(ours[3], TRAINING[3]["label"][0], atol=1 / 500)
    np.testing.assert_array_equal(breasts[3], TRAINING[3]["label"][0] > 0)


def test_at_most_the_asked_number_of_cases_goes_into_the_radiomics_distance(distance: list[Any]) -> None:
    domain_shift(samples(TRAINING), samples(EXTERNAL), frd_cases=10)
    assert [len(part) for part in distance[0][:4]] == [10] * 4


def test_of_many_cases_any_may_be_chosen_and_only_those_keep_their_pictures() -> None:
    chosen = np.zeros(20)
    for start in range(20):
        reservoir = Reservoir(5)
        for i in range(20):
            reservoir.add(str(i), samples([TRAINING[i % 12]])[0])
        kept = [case.pictures is not None for _, case in reservoir.cases]
        assert (len(kept), sum(kept)) == (20, 5)
        chosen += np.roll(kept, start)
    first = [case.pictures is not None for _, case in reservoir.cases]
    assert any(first[10:]), "not the first ones"


def failing(*_: Any, **__: Any) -> float:
    raise RuntimeError("mask too small")


@pytest.mark.parametrize(
    ("cases", "remedy", "library", "note"),
    [
        (9, None, None, r"too few cases .* 12 training and 9 external"),
        (11, "pip install frd-score", None, "pip install frd-score"),
        (11, None, failing, "frd-score failed: RuntimeError: mask too small"),
        (11, None, lambda *_, **__: -math.inf, "exists only for sets that differ"),
    ],
)
def test_without_a_radiomics_distance_the_reason_is_noted(
    cases: int, remedy: str | None, library: Any, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "radiomics_remedy", lambda: remedy)
    if library is not None:
        monkeypatch.setattr(shift, "frechet_radiomics_distance", library)
    result = domain_shift(samples(TRAINING), samples(EXTERNAL[:cases]))
    assert math.isnan(result["label"]["frd"])
    assert re.search(note, result["label"]["frd_note"])


def test_cases_without_a_breast_are_no_domain() -> None:
    black = {"image": torch.zeros(1, SIDE, SIDE), "label": torch.zeros(1, SIDE, SIDE)}
    assert samples([black]) == []
    with pytest.raises(ValueError, match="0 training and 11 external cases with a breast"):
        domain_shift([], samples(EXTERNAL))


def evaluate(handler: DomainShift) -> SupervisedEvaluator:
    loader = DataLoader(Dataset(EXTERNAL), batch_size=4)
    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, nn.Identity(), val_handlers=[handler])
    evaluator.run()
    return evaluator


def test_an_external_evaluation_writes_the_shift_as_json_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(DomainShift(tmp_path, TRAINING_SET, "other_site"))
    written = json.loads((tmp_path / "domain_shift.json").read_text())
    assert written == json.loads(json.dumps(domain_shift(samples(TRAINING), samples(EXTERNAL))))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["domain_shift.json", "domain_shift.png"]
    assert np.asarray(Image.open(tmp_path / "domain_shift.png")).std() > 1
    said = capsys.readouterr().out
    assert "12 training and 11 external cases" in said
    assert f"{written['image']['wasserstein']:.3f}" in said
    assert str(tmp_path / "domain_shift.json") in said


def test_a_missing_radiomics_distance_is_null_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shift, "radiomics_remedy", lambda: "install the extra")
    evaluate(DomainShift(tmp_path, DataLoader(Dataset(TRAINING), batch_size=5), tmp_path))
    written = json.loads((tmp_path / "domain_shift.json").read_text())
    assert (written["label"]["frd"], written["label"]["frd_note"]) == (None, "install the extra")
    assert written["training"]["cases"] == 12
    assert capsys.readouterr().out.count("install the extra") == 1


def test_the_trainings_own_cases_are_not_compared(tmp_path: Path) -> None:
    evaluate(DomainShift(tmp_path, TRAINING, None))
    assert list(tmp_path.iterdir()) == []


def test_cases_of_all_ranks_are_joined_and_only_the_first_rank_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # both ranks have had the same case: the sampler has repeated it
    others = [("/data/LE/P110.png", samples(EXTERNAL[10:])[0]), ("/data/LE/P200.png", samples(TRAINING[:1])[0])]

    def all_gather(parts: list[Any], own: Any) -> None:
        parts[:] = [own, others]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather)
    for rank in (1, 0):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        handler = DomainShift(tmp_path, TRAINING_SET, "other_site")
        for case in EXTERNAL:
            handler._own.add(case["image"].meta["filename_or_obj"], samples([case])[0])
        handler._write(None)  # type: ignore[arg-type]
        assert (tmp_path / "domain_shift.json").is_file() == (rank == 0)
    assert json.loads((tmp_path / "domain_shift.json").read_text())["external"]["cases"] == 12
