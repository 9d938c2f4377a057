"""How far one set of images is from another: Frechet and kernel distances between features of the images.

The radiomics distance needs no weights, only the packages of the extra ``radiomics``. The others are computed with
networks that the user brings as a TorchScript file; none is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

__all__ = [
    "frechet_distance",
    "frechet_inception_distance",
    "frechet_radiomics_distance",
    "kernel_distance",
    "kernel_inception_distance",
    "network_features",
    "perceptual_distance",
    "radiomics_remedy",
]

Floats = npt.NDArray[np.floating[Any]]


def frechet_distance(mean_a: Floats, cov_a: Floats, mean_b: Floats, cov_b: Floats) -> float:
    """Squared Frechet distance of two Gaussians: ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))``.

    The trace of the root is the sum of the singular values of ``C_a^(1/2) C_b^(1/2)``: nothing complex comes up, and
    singular covariances, of fewer cases than features, lose no digits. Dowson and Landau 1982.

    Args:
        mean_a: ``(D,)``.
        cov_a: ``(D, D)``, symmetric, no negative eigenvalue.
        mean_b: as ``mean_a``.
        cov_b: as ``cov_a``.
    """
    difference = np.asarray(mean_a, np.float64) - mean_b
    shared = np.linalg.norm(_root(cov_a) @ _root(cov_b), "nuc")
    return float(max(0.0, difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * shared))


def kernel_distance(features_a: Floats, features_b: Floats) -> float:
    """Squared maximum mean discrepancy with the kernel ``(x y / D + 1)^3``, unbiased: 0 on average for one source.

    Binkowski et al. 2018, on all cases at once and not on random subsets. It can be negative.

    Args:
        features_a: ``(N, D)``, N of 2 or more.
        features_b: ``(M, D)``.
    """
    a, b = _at_least_two(features_a, features_b)

    def kernel(x: Floats, y: Floats) -> Floats:
        products: Floats = x @ y.T / x.shape[1] + 1.0
        return np.power(products, 3)

    def mean_of_pairs(x: Floats) -> float:
        k = kernel(x, x)
        return float((k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)))

    return mean_of_pairs(a) + mean_of_pairs(b) - 2.0 * float(kernel(a, b).mean())


def frechet_inception_distance(images_a: Tensor, images_b: Tensor, weights: str | Path | None) -> float:
    """Frechet distance between the features of two sets of images, from the network in ``weights``.

    It is FID (Heusel et al. 2017) only with the Inception network of that paper; values of different networks, sizes
    or numbers of images do not compare. Arguments and errors as in `network_features`; 2 images or more in each set.
    """
    a, b = _at_least_two(network_features(images_a, weights), network_features(images_b, weights))
    return frechet_distance(a.mean(axis=0), np.cov(a, rowvar=False), b.mean(axis=0), np.cov(b, rowvar=False))


def kernel_inception_distance(images_a: Tensor, images_b: Tensor, weights: str | Path | None) -> float:
    """`kernel_distance` between the features of two sets of images: KID with an Inception network in ``weights``."""
    return kernel_distance(network_features(images_a, weights), network_features(images_b, weights))


@torch.no_grad()
def network_features(images: Tensor, weights: str | Path | None, batch_size: int = 16) -> Floats:
    """Features of the images from a network that the user brings.

    Args:
        images: ``(N, 1, W, H)`` in [0, 1].
        weights: TorchScript file of a network from ``(B, 3, W, H)`` in [0, 1] (grey in three channels) to features
            ``(B, D)`` or maps ``(B, D, w, h)``, which are averaged. Resizing and normalising are its own affair.
        batch_size: images at a time.

    Returns:
        ``(N, D)``, float64.

    Raises:
        ValueError: no ``weights`` given, or not a TorchScript file.
    """
    network = _network(weights, "a feature network from (B, 3, W, H) in [0, 1] to (B, D)")
    parts = [network(part.float().expand(-1, 3, -1, -1)) for part in images.split(batch_size)]
    parts = [part.mean(dim=(2, 3)) if part.ndim == 4 else part for part in parts]
    features: Floats = torch.cat(parts).double().numpy()
    return features


@torch.no_grad()
def perceptual_distance(pred: Tensor, label: Tensor, weights: str | Path | None) -> Tensor:
    """Distance of each pair of images as the network in ``weights`` gives it: LPIPS (Zhang et al. 2018) if it is that.

    Args:
        pred: ``(B, 1, W, H)`` in [0, 1].
        label: as ``pred``.
        weights: TorchScript file of a network from two batches ``(B, 3, W, H)`` in [-1, 1], the range of LPIPS, to B
            distances, for instance ``torch.jit.trace(lpips.LPIPS(net="alex").eval(), (x, x))``.

    Returns:
        ``(B,)``.

    Raises:
        ValueError: no ``weights`` given, or not a TorchScript file.
    """
    network = _network(weights, "a network from two batches (B, 3, W, H) in [-1, 1] to their distances, as LPIPS is")
    first, second = (2.0 * x.float().expand(-1, 3, -1, -1) - 1.0 for x in (pred, label))
    distances: Tensor = network(first, second)
    return distances.reshape(len(pred))


def frechet_radiomics_distance(
    images_a: Sequence[Floats],
    images_b: Sequence[Floats],
    masks_a: Sequence[npt.NDArray[np.bool_]] | None = None,
    masks_b: Sequence[npt.NDArray[np.bool_]] | None = None,
    workers: int = 1,
) -> float:
    """Frechet radiomics distance (FRD, version 1) between two sets of images, as the package frd-score computes it.

    Radiomic features of every image and of its filtered versions, z-scored on the first set; the logarithm of the
    squared Frechet distance. Lower = nearer. As every Frechet distance it falls with the number of cases: compare only
    values of as many cases. Konz, Osuala et al. 2026, arXiv 2412.01496.

    Args:
        images_a: the reference, which features are scaled on: ``(H, W)`` in [0, 1], stored as 8-bit PNG for the
            package; 2 images or more.
        images_b: the other set.
        masks_a: bool ``(H, W)``, where features are taken; None = everywhere.
        masks_b: of the other set.
        workers: processes.

    Raises:
        ModuleNotFoundError: frd-score or pyradiomics is missing, with the commands that install them.
        ValueError: fewer than 2 images in a set.
    """
    remedy = radiomics_remedy()
    if remedy is not None:
        raise ModuleNotFoundError(remedy)
    if min(len(images_a), len(images_b)) < 2:
        raise ValueError(f"FRD needs 2 images or more in each set; got {len(images_a)} and {len(images_b)}.")
    compute_frd = importlib.import_module("frd_score").compute_frd
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        paths = [_written(Path(folder) / f"images_{name}", x) for name, x in (("a", images_a), ("b", images_b))]
        masks = [
            None if x is None else _written(Path(folder) / f"masks_{name}", x)
            for name, x in (("a", masks_a), ("b", masks_b))
        ]
        return float(compute_frd(paths, paths_masks=masks, num_workers=workers))


def radiomics_remedy() -> str | None:
    """What to do so that `frechet_radiomics_distance` works; None if it does."""
    try:
        for package in ("radiomics", "frd_score"):
            importlib.import_module(package)
    except ImportError as missing:
        return (
            f"The Frechet radiomics distance needs frd-score and pyradiomics ({missing}). Install them with `make "
            "radiomics`, or: pip install --no-build-isolation -r constraints-radiomics.txt (needs a C compiler)"
        )
    return None


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    root: Floats = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def _written(folder: Path, images: Sequence[npt.NDArray[Any]]) -> list[str]:
    """Write the images ``(H, W)`` in [0, 1] as 8-bit PNG and return the paths."""
    folder.mkdir()
    paths = [str(folder / f"{i:06d}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(np.rint(np.clip(np.asarray(image, np.float64), 0, 1) * 255).astype(np.uint8)).save(path)
    return paths


def _at_least_two(*features: Floats) -> list[Floats]:
    if min(map(len, features)) < 2:
        counts = " and ".join(str(len(x)) for x in features)
        raise ValueError(f"A distance between sets of images needs 2 images or more in each; got {counts}.")
    return [np.asarray(x, np.float64) for x in features]


def _network(weights: str | Path | None, wanted: str) -> torch.jit.ScriptModule:
    if weights is None or not Path(weights).is_file():
        found = "no weights were given" if weights is None else f"there is no file {weights}"
        raise ValueError(
            f"{found}. This bundle downloads no networks: give weights, the path of {wanted}, saved by torch.jit.save."
        )
    try:
        network: torch.jit.ScriptModule = torch.jit.load(str(weights), map_location="cpu")
    except RuntimeError as error:
        raise ValueError(
            f"{weights} is no TorchScript file ({str(error).splitlines()[0]}). Save {wanted} by torch.jit.save."
        ) from error
    return network.eval()
