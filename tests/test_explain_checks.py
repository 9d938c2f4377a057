"""The check with random weights: a map of what was learnt passes, a map of edges does not."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bundle.networks import ResnetGenerator
from scripts.explaining.attribution import baseline_of, integrated_gradients, lesion_mean
from scripts.explaining.sanity import LIMIT, compare, randomised, sanity_rows, verdict
from tests.test_explain_attribution import breast, spot

Explain = Callable[[nn.Module], Tensor]


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A small network that has learnt to show what lies 4 pixels aside, less its surroundings."""
    torch.manual_seed(0)
    sizes = [(1, 8), (8, 8), (8, 1)]
    convolutions = [nn.Conv2d(*channels, 5, padding=2) for channels in sizes]
    network = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])
    images = torch.cat([breast(seed)[0] for seed in range(4)])
    wanted = images.roll((4, -4), dims=(2, 3)) - nn.functional.avg_pool2d(images, 5, 1, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        (network(images) - wanted).abs().mean().backward()
        optimizer.step()
    return network.requires_grad_(False)


def rows_of(explain: Callable[[Tensor, Tensor, Tensor], Explain], network: nn.Module) -> pd.DataFrame:
    """The check on five lesions."""
    rows = []
    for number in range(5):
        image, inside = breast(10 + number)
        one = explain(image, inside, spot(8 + number, 10 + 2 * number, 5))
        rows += sanity_rows(one, one(network), randomised(network, image, number), inside)
    return pd.DataFrame(rows)


def gradients(image: Tensor, inside: Tensor, lesion: Tensor) -> Explain:
    baseline = baseline_of(image, inside)
    return lambda network: integrated_gradients(lesion_mean(network, lesion), image, baseline, 8).map


def edges(image: Tensor, _: Tensor, lesion: Tensor) -> Explain:
    """An edge detector near the lesion that does not look at the network."""
    near = nn.functional.max_pool2d(lesion.float(), 9, 1, 4)
    kernel = torch.tensor([[[[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]]])
    found = nn.functional.conv2d(image, kernel, padding=1) * near
    return lambda _: found


def test_integrated_gradients_of_a_trained_network_pass_the_check(trained: nn.Module) -> None:
    rows = rows_of(gradients, trained)
    assert verdict(rows)["passed"] is True
    assert verdict(rows)["limit"] == LIMIT
    assert list(dict.fromkeys(zip(rows["stage"], rows["layers"], strict=True))) == [
        *(("cascade", 1), ("cascade", 2), ("cascade", 3), ("full", 3)),
    ]


def test_an_edge_detector_disguised_as_a_map_fails_the_check(trained: nn.Module) -> None:
    found = verdict(rows_of(edges, trained))
    assert found["passed"] is False
    assert found["spearman"] == pytest.approx(1)
    assert found["ssim"] == pytest.approx(1)
    assert "resemble" in found["reason"]


def test_a_map_of_edges_with_the_sign_of_a_weight_fails_too(trained: nn.Module) -> None:
    def signed(image: Tensor, inside: Tensor, lesion: Tensor) -> Explain:
        shown = edges(image, inside, lesion)(trained)
        return lambda network: shown * network[4].weight.sum().sign()  # type: ignore[index]

    assert verdict(rows_of(signed, trained))["passed"] is False


def test_layers_are_randomised_from_the_output_on_and_the_trained_network_stays(trained: nn.Module) -> None:
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    changed = [
        {name.split(".")[0] for name, weight in stage.network.state_dict().items() if not weight.equal(before[name])}
        for stage in randomised(trained, breast()[0])
    ]
    assert changed == [{"4"}, {"2", "4"}, {"0", "2", "4"}, *[{"0", "2", "4"}] * 3]
    assert all(weight.equal(before[name]) for name, weight in trained.state_dict().items())


def test_random_weights_have_the_size_of_the_trained_ones(trained: nn.Module) -> None:
    *_, full = randomised(trained, breast()[0])
    one, other = (network.get_parameter("2.weight").square().mean().sqrt() for network in (trained, full.network))
    assert float(other) == pytest.approx(float(one), rel=0.05)


def test_a_large_network_has_a_bounded_number_of_stages_and_ends_with_all_layers() -> None:
    network = ResnetGenerator(width=2, blocks=6)
    stages = [(one.name, one.layers, one.total) for one in randomised(network, torch.rand(1, 1, 16, 16))]
    assert len(stages) == 9
    assert [total for *_, total in stages] == [18] * 9
    assert stages[0][1] == 1
    assert stages[5] == ("cascade", 18, 18)


def test_layers_are_counted_as_they_run_and_not_as_they_were_made() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first, self.unused = (nn.Conv2d(1, 1, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.last(self.first(x))
            return found

    network = Crossed()
    first = next(iter(randomised(network, torch.rand(1, 1, 16, 16)))).network
    assert not first.get_parameter("last.weight").equal(network.last.weight)
    assert first.get_parameter("first.weight").equal(network.first.weight)


def test_a_map_resembles_itself_and_any_multiple_of_it_and_not_another_one() -> None:
    _, inside = breast()
    one, other = (torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    same = compare(one, 3 * one, inside)
    assert [same[name] for name in ("spearman", "spearman_abs", "ssim")] == pytest.approx([1, 1, 1])
    different = compare(one, other, inside)
    assert abs(different["spearman"]) < 0.2
    assert different["ssim"] < 0.2
    assert compare(one, -one, inside)["spearman"] == pytest.approx(-1)
    assert compare(one, torch.zeros_like(one), inside)["spearman"] == 0


def test_what_is_outside_the_breast_does_not_make_maps_alike() -> None:
    _, inside = breast()
    one, other = (torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    frame = torch.where(inside, 0.0, 100.0)
    assert abs(compare(one + frame, other + frame, inside)["spearman"]) < 0.2


def test_without_a_map_nothing_is_said() -> None:
    flat = torch.zeros(1, 1, 40, 40)
    _, inside = breast()
    rows = sanity_rows(lambda _: flat, flat, randomised(nn.Conv2d(1, 1, 1), flat), inside)
    for frame, reason in ((pd.DataFrame(rows), "flat"), (pd.DataFrame(), "no map")):
        found = verdict(frame)
        assert found["passed"] is None
        assert reason in found["reason"]
