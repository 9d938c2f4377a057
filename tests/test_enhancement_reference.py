"""The classifier that is told where lesions are finds what the LE image shows, and nothing where it shows nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundle.metrics import lesion_ring
from scripts import enhancement_reference
from scripts.explaining.source import Case
from scripts.explaining.told import Classifier, enhances, held_out_scores, patch


def case(contrast: float, size: int = 64) -> Case:
    image = torch.full((1, 1, size, size), 0.5)
    mask = torch.zeros_like(image)
    mask[..., 20:28, 30:40] = 1
    label = 0.4 + 0.02 * torch.sin(torch.arange(size * size).float()).reshape(image.shape) + contrast * mask
    return Case(image, label, mask, image > 0.1, mask)


def test_a_lesion_enhances_if_it_exceeds_its_ring_by_the_rings_standard_deviation() -> None:
    one = case(0)
    ring = lesion_ring(one.mask, one.breast)[1]
    step = float(one.label[ring].std() + one.label[ring].mean() - one.label[one.mask > 0.5].mean())
    assert enhances(case(step + 1e-3)) is True
    assert enhances(case(step - 1e-3)) is False
    assert enhances(Case(one.image, one.label, 0 * one.mask, one.breast, one.mask)) is None


def test_a_patch_is_centred_on_the_lesion_wherever_it_lies() -> None:
    one = case(0.1)
    for shift in (0, -20, 24):  # beyond the border there is background
        image, label, mask = (torch.roll(part, (shift, shift), (2, 3)) for part in (one.image, one.label, one.mask))
        cut = patch(Case(image, label, mask, one.breast, mask))
        assert cut.shape == (2, 18, 18)
        middle = [float(place.float().mean()) for place in torch.nonzero(cut[1], as_tuple=True)]
        assert middle == [pytest.approx(9, abs=1), pytest.approx(9, abs=1)]
        assert set(cut[0].unique().tolist()) == ({0.0} if shift == 0 else {-1.0, 0.0})


def test_what_the_image_shows_is_found_and_what_it_does_not_show_is_not() -> None:
    torch.manual_seed(0)
    patches = 0.1 * torch.randn(96, 2, 12, 12)
    shown = torch.arange(96) % 2 == 0
    patches[shown, 0, 4:8, 4:8] += 0.5
    folds = torch.arange(96) // 2 % 3
    classifier = Classifier(epochs=8)
    for truth, low, high in ((shown, 0.95, 1.0), (torch.rand(96) < 0.5, 0.25, 0.75)):
        scores = held_out_scores(patches, truth, folds, classifier)
        above = (scores[truth][:, None] > scores[~truth][None]).float().mean()
        assert low <= float(above) <= high
    assert torch.equal(scores, held_out_scores(patches, truth, folds, classifier))  # the seed decides


def test_no_lesion_is_scored_by_a_classifier_that_has_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(_: Classifier, train: torch.Tensor, enhancing: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
        assert not set(train.flatten().tolist()) & set(test.flatten().tolist())
        assert len(train) == len(enhancing)
        return test.flatten()

    monkeypatch.setattr(Classifier, "scores", scores)
    numbers, folds = torch.arange(9.0), torch.tensor([0, 1, 2] * 3)
    found = held_out_scores(numbers[:, None], numbers > 4, folds, Classifier())
    assert found.tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1]


@pytest.fixture
def both_kinds(tiny_dataset: Path, tmp_path: Path) -> Path:
    """The tiny data set, every second of its lesions without enhancement."""
    content = json.loads((tiny_dataset / "datalist.json").read_text())
    for number, entry in enumerate(one for one in content["cases"] if "mask" in one):
        for key in ("image", "label", "mask", "label_mask"):
            if key in entry:
                entry[key] = str(tiny_dataset / entry[key])
        entry["info"] = {"lesion": "bright" if number % 2 else "dark"}
        if number % 2:
            continue
        pixels = np.asarray(Image.open(entry["label"])).copy()
        pixels[np.asarray(Image.open(entry["mask"])) > 0] = np.median(pixels[pixels > 0])
        entry["label"] = str(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(entry["label"])
    content["cases"] = [one for one in content["cases"] if "mask" in one]
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("quiet", [False, True])
def test_the_command_prints_an_auc_with_its_interval(
    both_kinds: Path, quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [str(both_kinds), "--image-size", "32", "--epochs", "2", "--device", "cpu", *["--quiet"] * quiet]
    assert enhancement_reference.main(line) == 0
    table, bars = capsys.readouterr()
    name, bright, still, auc = table.splitlines()[2].strip("| ").split(" | ")
    assert [word in bars for word in ("lesions", "folds", "epochs")] == [not quiet] * 3
    cases = json.loads((both_kinds / "datalist.json").read_text())["cases"]
    assert (name, int(bright) + int(still)) == ("all", len(cases))
    assert 0 <= float(auc.split("<br>")[0]) <= 1


@pytest.mark.parametrize("hidden", [False, True])
def test_the_classifier_is_told_the_outline_unless_that_is_ruled_out(
    both_kinds: Path, hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def scores(patches: torch.Tensor, enhancing: torch.Tensor, *_: object) -> torch.Tensor:
        seen.append(patches)
        return enhancing.float()

    monkeypatch.setattr(enhancement_reference, "held_out_scores", scores)
    line = [str(both_kinds), "--image-size", "32", "--quiet", "--device", "cpu", *["--no-outline"] * hidden]
    assert enhancement_reference.main(line) == 0
    image, outline = seen[0].unbind(1)
    assert (outline == 0).all() if hidden else (outline.sum((1, 2)) > 0).all()
    assert image.std() > 0


def test_a_data_set_with_lesions_of_one_kind_alone_is_refused(
    tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enhancement_reference.main([str(tiny_dataset), "--image-size", "32", "--quiet", "--device", "cpu"]) == 2
    assert "lesions that enhance and lesions that do not are needed in two folds at least" in capsys.readouterr().err
