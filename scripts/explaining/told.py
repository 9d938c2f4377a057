"""How much of the enhancement the LE image shows: a classifier of lesions that is told where they are.

A virtual DES can light up the lesions that enhance, and not the others, only as far as the LE image tells them apart.
A classifier that sees each lesion and its outline has an easier task than a generator, which has to find it first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from monai.networks.nets import resnet10
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from bundle.metrics import ENHANCING_CNR, FIELD_OF_VIEW_MM, case_metrics
from scripts.explaining.source import Case

__all__ = ["Classifier", "enhances", "held_out_scores", "patch"]

PATCH_MM = 64.0
"""Side of what the classifier sees: most lesions with the tissue around them."""
_BATCH = 32


def patch(case: Case) -> Tensor:
    """LE image and lesion mask around the middle of a case's lesion: ``(2, S, S)``, the LE scaled to about [-1, 1].

    ``S`` is `PATCH_MM`, the longer side of the image counting as `bundle.metrics.FIELD_OF_VIEW_MM`. Beyond the image
    there is background.
    """
    half = max(8, round(PATCH_MM / 2 * max(case.image.shape[-2:]) / FIELD_OF_VIEW_MM))
    both = functional.pad(torch.cat([case.image, case.mask], 1)[0], [half] * 4)
    x, y = (int(place.float().mean()) for place in torch.nonzero(case.mask[0, 0] > 0.5, as_tuple=True))
    cut = both[:, x : x + 2 * half, y : y + 2 * half]
    return torch.stack([2 * cut[0] - 1, (cut[1] > 0.5).float()])


def enhances(case: Case) -> bool | None:
    """Whether the real lesion exceeds its ring by `bundle.metrics.ENHANCING_CNR`; None where that is unknown."""
    cnr = float(case_metrics(case.label, case.label, case.image, case.mask)["lesion_cnr_real"])
    return None if math.isnan(cnr) else cnr > ENHANCING_CNR


@dataclass(frozen=True)
class Classifier:
    """How the classifier is trained: a small ResNet, AdamW, one cycle of the learning rate.

    Args:
        epochs: passes over the lesions.
        learning_rate: its highest value.
        seed: of weights, order and flips.
        device: where.
        progress: show bars of the folds and epochs.
    """

    epochs: int = 40
    learning_rate: float = 2e-3
    seed: int = 0
    device: str = "cpu"
    progress: bool = False

    def scores(self, train: Tensor, enhancing: Tensor, test: Tensor) -> Tensor:
        """Train on patches ``(N, 2, S, S)`` with ``enhancing`` ``(N,)`` bool; return a score of each ``test`` patch."""
        with torch.random.fork_rng(devices=[self.device] if self.device.startswith("cuda") else []):
            torch.manual_seed(self.seed)
            network = _network().to(self.device)
            self._train(network, train.to(self.device), enhancing.float().to(self.device))
        network.eval()
        with torch.inference_mode():
            return torch.cat([network(part.to(self.device))[:, 0].cpu() for part in test.split(_BATCH)])

    def _train(self, network: nn.Module, patches: Tensor, truth: Tensor) -> None:
        data = TensorDataset(patches, truth)
        batches = DataLoader(data, _BATCH, shuffle=True, drop_last=len(data) > _BATCH)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
        steps = self.epochs * len(batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        for _ in tqdm(range(self.epochs), desc="epochs", leave=False, disable=not self.progress):
            for some, enhancing in batches:
                logits = network(_flipped(some))[:, 0]
                loss = functional.binary_cross_entropy_with_logits(logits, enhancing)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()


def held_out_scores(patches: Tensor, enhancing: Tensor, folds: Tensor, classifier: Classifier) -> Tensor:
    """The score of every patch by a classifier trained on the other folds, ``(N,)``.

    Scores of several folds are made comparable: each fold's are replaced by their ranks, from 0 to 1.
    """
    scores = torch.empty(len(patches))
    for fold in tqdm(folds.unique(), desc="folds", disable=not classifier.progress):
        own = folds == fold
        found = classifier.scores(patches[~own], enhancing[~own], patches[own])
        scores[own] = torch.from_numpy(rankdata(found) - 1).float() / max(1, len(found) - 1)
    return scores


def _network() -> nn.Module:
    network: nn.Module = resnet10(
        spatial_dims=2, n_input_channels=2, num_classes=1, widen_factor=0.5, conv1_t_size=3, no_max_pool=True
    )
    return network


def _flipped(patches: Tensor) -> Tensor:
    """A batch in one of its eight orientations, each lesion's brightness moved by at most a tenth."""
    turned = torch.rot90(patches, int(torch.randint(0, 4, ())), (2, 3))
    turned = turned.flip(3) if bool(torch.rand(()) < 0.5) else turned
    change = 0.1 * (2 * torch.rand(len(patches), 1, 1, device=patches.device) - 1)
    return torch.stack([turned[:, 0] + change, turned[:, 1]], 1)
