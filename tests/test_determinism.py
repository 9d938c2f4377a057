"""The same seed gives the same weights bit for bit on the CPU; what a GPU needs for it is switched on and complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bundle.determinism import reflection_pad_gradient
from bundle.losses import DiscriminatorObjective, GeneratorObjective
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.step_images import CycleGANImages
from tests.workflow import run, train_options, workflow

#: All that draws random numbers or carries state is on.
STATEFUL: dict[str, Any] = {"pool_size": 3, "augmentation_prob": 0.9, "max_epochs": 2, "warmup_epochs": 0}


def trained(dataset: Path, output: Path, **options: Any) -> dict[str, Tensor]:
    """Every tensor that a training leaves in its checkpoint and weights."""
    workflow("train.json", **train_options(dataset, output, **STATEFUL, **options)).run()
    left = flat(torch.load(output / "checkpoint.pt", weights_only=True))
    # Loaders draw seeds for their workers from torch's own stream, once or each epoch. Nothing else draws from it.
    del left["/ranks/0/torch"]
    return left | flat(torch.load(output / "model.pt", weights_only=True), "model.pt")


def flat(value: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {key: one for part, inner in items for key, one in flat(inner, f"{name}/{part}").items()}


@pytest.fixture(scope="module")
def reference(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return trained(tiny_dataset, tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 1, "cache_rate": 0.5},
        {"num_workers": 2, "cache_rate": 0.0, "deterministic": True},
    ],
)
def test_loader_workers_and_the_cache_change_no_bit_of_a_training(
    reference: dict[str, Tensor], tiny_dataset: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    again = trained(tiny_dataset, tmp_path, **options)
    assert again.keys() == reference.keys()
    assert {part for name in again for part in name.split("/")} >= {"networks", "optimizers", "pools", "model.pt"}
    assert [name for name, tensor in reference.items() if not torch.equal(tensor, again[name])] == []


def test_another_seed_is_another_training(tiny_dataset: Path, tmp_path: Path) -> None:
    weights, orders = [], []
    for seed in (0, 0, 1):
        parser = workflow("train.json", **train_options(tiny_dataset, tmp_path, seed=seed)).parser
        weights.append(parser.get_parsed_content("network").state_dict()["model.1.weight"])
        orders.append(list(parser.get_parsed_content("train#sampler")))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(("shape", "padding"), [((2, 3, 7, 9), (3, 3, 3, 3)), ((1, 5, 6), (2, 0, 1, 4))])
def test_the_gradient_of_reflection_padding_in_fixed_order_is_that_of_torch(
    shape: tuple[int, ...], padding: tuple[int, ...]
) -> None:
    image = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    padded = nn.functional.pad(image, padding, "reflect")
    upstream = torch.rand_like(padded)
    (expected,) = torch.autograd.grad(padded, image, upstream)
    torch.testing.assert_close(reflection_pad_gradient(upstream, image, padding), expected, rtol=0, atol=1e-12)


SWITCHED = """
import json, os, torch
from bundle import determinism
from bundle.determinism import set_deterministic
calls = []
ours = determinism.reflection_pad_gradient
determinism.reflection_pad_gradient = lambda *given: calls.append(1) or ours(*given)
determinism._replace_padding_gradient("CPU")  # as set_deterministic does for CUDA, which is not here
set_deterministic(True)
image = torch.rand(1, 2, 8, 8, requires_grad=True)
torch.nn.ReflectionPad2d(3)(image).square().sum().backward()
on = [torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
      torch.backends.cudnn.deterministic, not torch.backends.cudnn.benchmark,
      os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8", len(calls) == 1, bool(image.grad.isfinite().all())]
set_deterministic(False)
off = [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic]
print(json.dumps([on, off, torch.backends.cudnn.benchmark]))
"""


def test_the_switch_sets_all_that_a_gpu_needs_and_replaces_the_gradient_that_torch_lacks() -> None:
    done = run("-c", SWITCHED)
    assert done.returncode == 0, done.stderr
    on, off, benchmark = json.loads(done.stdout)
    assert on == [True] * 7
    assert (off, benchmark) == ([False, False], True)


class Recorder(TorchDispatchMode):
    """Notes the operations that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


#: What torch's own list (torch.use_deterministic_algorithms) says has no deterministic algorithm on CUDA.
WITHOUT_ALGORITHM = (
    "avg_pool3d_backward", "adaptive_avg_pool", "adaptive_max_pool2d_backward", "fractional_max_pool", "max_unpool",
    "upsample_linear", "upsample_bilinear", "upsample_bicubic", "upsample_trilinear", "reflection_pad1d_backward",
    "reflection_pad2d_backward", "reflection_pad3d_backward", "nll_loss", "ctc_loss", "embedding_bag", "put_", "histc",
    "bincount", "median", "grid_sampler_2d_backward", "grid_sampler_3d_backward", "cumsum", "scatter_reduce",
)  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_on_a_gpu_has_one_operation_without_a_deterministic_algorithm_and_that_is_replaced(
    checkpointing: bool,
) -> None:
    # tensors without memory take the code that GPUs take, and no GPU
    with torch.device("meta"), Recorder() as recorder:
        generator = ResnetGenerator(width=4, blocks=1, checkpointing=checkpointing)
        judge = PatchGAN(width=4, layers=1)
        image, mask = torch.rand(2, 1, 32, 32), torch.ones(2, 1, 32, 32)
        fake = generator(image)
        images = CycleGANImages(image, image, mask, mask, fake, fake, generator(fake), generator(fake), fake, fake)
        terms = GeneratorObjective(gamma=35)(images, judge(fake), judge(fake))
        torch.stack(list(terms.values())).sum().backward()
        DiscriminatorObjective()(judge(image), judge(fake.detach())).backward()
    assert {"convolution_backward", "reflection_pad2d"} <= recorder.names
    lacking = {name for name in recorder.names for word in WITHOUT_ALGORITHM if name.startswith(word)}
    assert lacking == {"reflection_pad2d_backward"}
