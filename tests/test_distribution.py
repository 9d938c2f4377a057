from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from bundle import metrics
from bundle.metrics import frechet_radiomics_distance, radiomics_remedy

Array = np.ndarray[Any, np.dtype[np.float64]]


class Features(nn.Module):
    """Five features of an image, from a fixed random filter bank."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, 5, 5, stride=3)
        generator = torch.Generator().manual_seed(1)
        self.filters.weight.data = torch.randn(self.filters.weight.shape, generator=generator)
        self.filters.bias = None

    def forward(self, x: Tensor) -> Tensor:
        means: Tensor = self.filters(x.float()).relu().mean(dim=(2, 3))
        return means


class Maps(Features):
    """The maps that `Features` averages."""

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.filters(x).relu()
        return maps


class Distance(nn.Module):
    """LPIPS in small: squared distance of two images, of which each channel counts differently."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        weights = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
        return ((a - b).square() * weights).mean(dim=(1, 2, 3), keepdim=True)


def saved(module: nn.Module, folder: Path) -> Path:
    path = folder / "network.ts"
    torch.jit.save(torch.jit.script(module), str(path))
    return path


def covariance(seed: int, size: int = 6) -> Array:
    samples = np.random.default_rng(seed).normal(size=(40, size)) @ np.random.default_rng(seed + 9).normal(
        size=(size,) * 2
    )
    return np.asarray(np.cov(samples, rowvar=False))


def two_sets() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(2, 12, 1, 24, 24, generator=generator)
    return noise[0], 0.2 + 0.6 * noise[1]


def test_frechet_distance_equals_the_formula_with_a_matrix_root() -> None:
    a, b = covariance(1), covariance(2)
    means = np.random.default_rng(3).normal(size=(2, 6))
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert metrics.frechet_distance(means[0], a, means[1], b) == pytest.approx(expected)
    assert metrics.frechet_distance(means[1], b, means[0], a) == pytest.approx(expected)


def test_frechet_distance_of_independent_normals_is_that_of_means_and_deviations() -> None:
    deviations = np.array([[1.0, 2.0, 0.5], [1.5, 1.0, 0.5]])
    expected = 3 * 0.3**2 + np.sum((deviations[0] - deviations[1]) ** 2)
    covariances = [np.diag(d**2) for d in deviations]
    found = metrics.frechet_distance(np.zeros(3), covariances[0], np.full(3, 0.3), covariances[1])
    assert found == pytest.approx(expected)


def test_frechet_distance_of_equal_gaussians_is_0_even_where_they_are_singular() -> None:
    samples = np.random.default_rng(0).normal(size=(4, 30))  # fewer cases than features
    mean, cov = samples.mean(axis=0), np.cov(samples, rowvar=False)
    assert metrics.frechet_distance(mean, cov, mean, cov) == pytest.approx(0.0, abs=1e-6)


def test_the_distance_of_network_features_equals_torchmetrics(tmp_path: Path) -> None:
    a, b = two_sets()
    reference = FrechetInceptionDistance(feature=Features(), normalize=True, input_img_size=(3, 24, 24))
    reference.update(a.expand(-1, 3, -1, -1), real=True)
    reference.update(b.expand(-1, 3, -1, -1), real=False)
    found = metrics.frechet_inception_distance(a, b, saved(Features(), tmp_path))
    assert found == pytest.approx(float(reference.compute()), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all:UserWarning")
def test_the_kernel_distance_equals_torchmetrics(tmp_path: Path) -> None:
    a, b = two_sets()
    reference = KernelInceptionDistance(feature=Features(), subsets=1, subset_size=12, normalize=True)
    reference.update(a.expand(-1, 3, -1, -1), real=True)
    reference.update(b.expand(-1, 3, -1, -1), real=False)
    found = metrics.kernel_inception_distance(a, b, saved(Features(), tmp_path))
    assert found == pytest.approx(float(reference.compute()[0]), rel=1e-3)


def test_the_kernel_distance_within_one_source_is_0_on_average() -> None:
    rng = np.random.default_rng(4)
    found = [metrics.kernel_distance(*rng.normal(size=(2, 20, 5))) for _ in range(200)]
    apart = metrics.kernel_distance(rng.normal(size=(20, 5)), 2 + rng.normal(size=(20, 5)))
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200)
    assert apart > 10 * np.std(found)


def test_maps_of_a_network_are_averaged_and_the_number_of_images_at_a_time_does_not_matter(tmp_path: Path) -> None:
    a, _ = two_sets()
    expected = metrics.network_features(a, saved(Features(), tmp_path))
    found = metrics.network_features(a, saved(Maps(), tmp_path), batch_size=5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_order_of_the_images_does_not_matter(tmp_path: Path) -> None:
    a, b = two_sets()
    weights = saved(Features(), tmp_path)
    for distance in (metrics.frechet_inception_distance, metrics.kernel_inception_distance):
        assert distance(a.flip(0), b, weights) == pytest.approx(distance(a, b, weights), rel=1e-6)


def test_the_perceptual_network_gets_pairs_in_minus_1_to_1(tmp_path: Path) -> None:
    a, b = two_sets()
    found = metrics.perceptual_distance(a, b, saved(Distance(), tmp_path))
    torch.testing.assert_close(found, 4 * 2 * metrics.mse(a, b))  # squares of twice the difference, weighted by 1 to 3


def calls(weights: Path | None) -> list[Callable[[], Any]]:
    a, b = two_sets()
    return [
        lambda: metrics.frechet_inception_distance(a, b, weights),
        lambda: metrics.kernel_inception_distance(a, b, weights),
        lambda: metrics.perceptual_distance(a, b, weights),
    ]


@pytest.mark.parametrize("index", range(3))
def test_without_weights_the_error_says_what_to_give(index: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights were given.*downloads no networks: give weights"):
        calls(None)[index]()
    with pytest.raises(ValueError, match=r"there is no file .*missing\.ts"):
        calls(tmp_path / "missing.ts")[index]()
    (tmp_path / "state.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"state\.pt is no TorchScript file"):
        calls(tmp_path / "state.pt")[index]()


def test_a_set_of_one_image_is_refused(tmp_path: Path) -> None:
    a, b = two_sets()
    with pytest.raises(ValueError, match="2 images or more in each; got 1 and 12"):
        metrics.kernel_inception_distance(a[:1], b, saved(Features(), tmp_path))


def blobs(seed: int, smooth: int) -> list[Array]:
    coarse = torch.rand(4, 1, 64 // smooth, 64 // smooth, generator=torch.Generator().manual_seed(seed))
    return list(nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)[:, 0].double().numpy())


class Library:
    """Stands for frd-score and remembers what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.options: dict[str, Any] = {}
        self.images: list[list[Array]] = []
        self.masks: list[list[Array] | None] = []
        for name in ("frd_score", "radiomics"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules["frd_score"], "compute_frd", self.compute_frd, raising=False)

    def compute_frd(self, paths: list[list[str]], paths_masks: list[list[str] | None], **options: Any) -> float:
        print("FRD (v1): 3.5")
        self.options = options
        self.images = [[np.asarray(Image.open(path)) for path in part] for part in paths]
        self.masks = [None if part is None else [np.asarray(Image.open(p)) for p in part] for part in paths_masks]
        return 3.5


def test_the_radiomics_library_is_given_8_bit_images_and_masks_and_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = Library(monkeypatch)
    a, b = blobs(1, 4), blobs(2, 4)[:3]
    masks = [x > 0.3 for x in a]
    assert frechet_radiomics_distance(a, b, masks, workers=2) == 3.5
    assert [len(part) for part in library.images] == [4, 3]
    np.testing.assert_array_equal(library.images[1][2], np.rint(b[2] * 255))
    assert library.masks[1] is None
    assert library.masks[0] is not None
    np.testing.assert_array_equal(library.masks[0][3], masks[3] * 255)
    assert library.options == {"num_workers": 2}
    assert capsys.readouterr().out == ""


def test_without_the_radiomics_library_the_error_names_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "radiomics", None)
    with pytest.raises(ModuleNotFoundError, match=r"make radiomics.*pip install --no-build-isolation"):
        frechet_radiomics_distance(blobs(1, 4), blobs(2, 4))


def test_fewer_than_2_images_have_no_radiomics_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    Library(monkeypatch)
    with pytest.raises(ValueError, match="got 1 and 4"):
        frechet_radiomics_distance(blobs(1, 4)[:1], blobs(2, 4))


@pytest.mark.slow
@pytest.mark.skipif(radiomics_remedy() is not None, reason="the extra radiomics is not installed")
def test_the_radiomics_distance_is_that_of_the_library_on_files_and_grows_with_the_difference(tmp_path: Path) -> None:
    a, b, far = blobs(1, 4), blobs(2, 4), blobs(3, 16)
    for name, images in (("a", a), ("b", b)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    library = importlib.import_module("frd_score")
    expected = library.compute_frd([str(tmp_path / "a"), str(tmp_path / "b")], num_workers=1)
    found = frechet_radiomics_distance(a, b)
    assert found == pytest.approx(expected)
    assert frechet_radiomics_distance(a, far) > found


def tenths(seed: int) -> Tensor:
    """Images whose levels 8 bits hold exactly, with a breast in each."""
    levels = torch.randint(20, 255, (6, 1, 24, 24), generator=torch.Generator().manual_seed(seed))
    return levels / 255.0


@pytest.mark.parametrize(
    ("name", "function"),
    [("fid", metrics.frechet_inception_distance), ("kid", metrics.kernel_inception_distance)],
)
def test_a_distance_as_a_metric_is_that_of_all_cases(name: str, function: Any, tmp_path: Path) -> None:
    weights, (pred, label) = saved(Features(), tmp_path), (tenths(1), tenths(2))
    figure = metrics.SetDistance(name, weights)
    for part in (slice(0, 2), slice(2, 6)):
        figure.update((pred[part], label[part], label[part]))
    assert figure.compute() == pytest.approx(function(label, pred, weights), rel=1e-4)


def test_the_perceptual_distance_as_a_metric_is_the_mean_over_pairs(tmp_path: Path) -> None:
    weights, (pred, label) = saved(Distance(), tmp_path), (tenths(1), tenths(2))
    figure = metrics.SetDistance("lpips", weights)
    figure.update((pred, label, label))
    expected = metrics.perceptual_distance(pred, label, weights).mean()
    assert figure.compute() == pytest.approx(float(expected), rel=1e-5)


def test_the_radiomics_distance_as_a_metric_compares_virtual_with_real_breasts(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def record(*arguments: Any) -> float:
        given.extend(arguments)
        return 3.0

    monkeypatch.setattr("bundle.metrics.ignite_metrics.frechet_radiomics_distance", record)
    figure, (pred, label) = metrics.SetDistance("frd"), (tenths(1), tenths(2))
    image = label.clone()
    image[..., 12:] = 0
    figure.update((pred, label, image))
    assert figure.compute() == 3.0
    real, virtual, real_masks, virtual_masks = given
    np.testing.assert_allclose(np.stack(real), label[:, 0], atol=1e-6)
    np.testing.assert_allclose(np.stack(virtual), pred[:, 0], atol=1e-6)
    assert all((mask == (image[0, 0] > 0).numpy()).all() for mask in (*real_masks, *virtual_masks))


def test_a_distance_without_the_network_it_needs_says_what_to_give() -> None:
    figure = metrics.SetDistance("fid")
    figure.update((tenths(1), tenths(2), tenths(2)))
    with pytest.raises(ValueError, match="no weights were given"):
        figure.compute()
