"""The training step beside the plain one: equal losses and gradients first, then time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bundle.losses import DiscriminatorObjective, GeneratorObjective
from bundle.networks import PatchGAN, ResnetGenerator
from bundle.trainer import CycleGANTrainer
from scripts.benchmarking.measure import Row, compare, convolution_peak, peak_memory, processor_flags, ratio
from scripts.benchmarking.plain_cyclegan import PlainStep, plain_discriminator, plain_generator

__all__ = ["computes_bf16", "rows"]

PART = "step"
GAMMA = 35.0
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MEMORY_FORMAT = torch.contiguous_format if DEVICE == "cuda" else torch.channels_last  # as in configs/train.json


@dataclass(frozen=True)
class Setting:
    """Size of what is trained: the paper's networks by default."""

    size: int = 256
    width: int = 64
    blocks: int = 9
    batch: int = 1


def computes_bf16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware; elsewhere it is emulated, a hundred times slower."""
    if DEVICE == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool({"avx512_bf16", "amx_bf16", "bf16", "sve_bf16"} & processor_flags())


def rows(setting: Setting | None = None, budget_s: float = 150.0) -> list[Row]:
    """Equality, time, share of the peak and memory of a step."""
    setting = setting or Setting()
    amps = [False, True] if computes_bf16() else [False]
    found = _equality(setting)
    found += _time(setting, amps, budget_s)
    found += _memory(setting, amps)
    if len(amps) == 1:
        note = "this machine has no bfloat16 arithmetic"
        found += [
            Row(PART, "bf16 against plain fp32", None, "x", ">= 2.4", note),
            Row(PART, "bf16 against plain autocast", None, "x", ">= 1.35", note),
            Row(PART, "peak memory, bf16, against plain fp32", None, "x", "<= 0.70", note),
        ]
    return found


def _networks(setting: Setting, checkpointing: bool = False) -> list[nn.Module]:
    torch.manual_seed(0)
    generators = [
        ResnetGenerator(width=setting.width, blocks=setting.blocks, checkpointing=checkpointing) for _ in range(2)
    ]
    judges = [PatchGAN(width=setting.width) for _ in range(2)]
    return [network.to(DEVICE, memory_format=MEMORY_FORMAT) for network in (*generators, *judges)]  # type: ignore[call-overload]


def _batch(setting: Setting) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    shape = (setting.batch, 1, setting.size, setting.size)
    images = {name: torch.rand(shape, generator=random) for name in ("image", "label")}
    images["mask"] = torch.zeros(shape)
    images["mask"][..., shape[2] // 4 : shape[2] // 2, shape[3] // 4 : shape[3] // 2] = 1
    return {name: image.to(DEVICE) for name, image in images.items()}


class _Step:
    """The bundle's step on its own networks."""

    def __init__(self, networks: list[nn.Module], batch: dict[str, Tensor], amp: bool = False) -> None:
        self.networks, self.batch = networks, batch
        optimizers = [
            torch.optim.Adam(
                [p for network in two for p in network.parameters()],
                lr=1e-5,
                betas=(0.5, 0.999),
                weight_decay=1e-5,
                fused=True,
            )
            for two in (networks[:2], networks[2:])
        ]
        self.trainer = CycleGANTrainer(
            DEVICE,
            1,
            [batch],
            **dict(zip(CycleGANTrainer.network_names, networks, strict=True)),  # type: ignore[arg-type]
            optimizer=optimizers[0],
            discriminator_optimizer=optimizers[1],
            loss_function=GeneratorObjective(gamma=GAMMA),
            discriminator_loss=DiscriminatorObjective(),
            pool_size=50,
            amp=amp,
        )

    def __call__(self) -> dict[str, Any]:
        output: dict[str, Any] = self.trainer._iteration(self.trainer, self.batch)[0]  # noqa: SLF001 - one step, without a loop
        _finish()
        return output


class _Plain:
    """The textbook's step on copies of the same weights."""

    def __init__(self, setting: Setting, networks: list[nn.Module], batch: dict[str, Tensor], amp: bool) -> None:
        weights = [network.state_dict() for network in networks]
        generators = [plain_generator(state, setting.width, setting.blocks) for state in weights[:2]]
        judges = [plain_discriminator(state, setting.width) for state in weights[2:]]
        self.networks = [network.to(DEVICE, batch["image"].dtype) for network in (*generators, *judges)]
        self.step, self.batch = PlainStep(self.networks[:2], self.networks[2:], GAMMA, amp), batch

    def __call__(self) -> dict[str, float]:
        losses = self.step(self.batch["image"], self.batch["label"], self.batch["mask"])
        _finish()
        return losses


def _finish() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _equality(setting: Setting) -> list[Row]:
    """In 64 bits both are the same; in 32 bits each has its own rounding, which the plain step's is the measure of.

    Rectifiers and the signs of L1 make gradients jump where a value is near zero, so rounding shows there at its worst.
    """
    small = Setting(min(setting.size, 128), min(setting.width, 32), min(setting.blocks, 3))
    exact, losses = _gradients(small, torch.float64, ours=False)
    found, other = _gradients(small, torch.float64, ours=True)
    differences = [_distance(one, true) for one, true in zip(found, exact, strict=True)]
    told = max(abs(float(other[name]) - value) / max(abs(value), 1e-12) for name, value in losses.items())
    rows = [
        Row(PART, "64-bit losses, largest relative difference from plain", told, "", "<= 1e-10"),
        Row(PART, "64-bit gradients, largest relative difference from plain", max(differences), "", "<= 1e-10"),
    ]
    for name, ours in (("plain", False), ("ours", True)):
        gradients, _ = _gradients(small, torch.float32, ours)
        error = max(_distance(one, true) for one, true in zip(gradients, exact, strict=True))
        rows.append(Row(PART, f"fp32 gradients, {name}: largest relative error against 64 bits", error))
    return rows


def _gradients(setting: Setting, dtype: torch.dtype, ours: bool) -> tuple[list[list[Tensor]], dict[str, Any]]:
    """Of the weights of each network after one step, and its losses; a bias before a norm has none but rounding."""
    networks = [network.to(dtype) for network in _networks(setting)]
    batch = {name: image.to(dtype) for name, image in _batch(setting).items()}
    step: _Step | _Plain = _Step(networks, batch) if ours else _Plain(setting, networks, batch, amp=False)
    losses = step()
    gradients = [[p.grad for p in network.parameters() if p.grad is not None] for network in step.networks]
    return [[g.double() for g in one if g.ndim > 1] for one in gradients], losses


def _distance(ours: list[Tensor], exact: list[Tensor]) -> float:
    difference = torch.stack([(a - b).norm() for a, b in zip(ours, exact, strict=True)]).norm()
    return float(difference / torch.stack([b.norm() for b in exact]).norm())


def _time(setting: Setting, amps: list[bool], budget_s: float) -> list[Row]:
    networks, batch = _networks(setting), _batch(setting)
    contestants: dict[str, Any] = {}
    for amp in amps:
        kind = "bf16" if amp else "fp32"
        contestants[f"plain {kind}"] = _Plain(setting, networks, batch, amp)
        contestants[kind] = _Step(_networks(setting), batch, amp)
    counter = FlopCounterMode(display=False)
    with counter:
        contestants["plain fp32"]()
    flop = counter.get_total_flops()
    timings = compare(contestants, rounds=5, budget_s=budget_s)
    shares = {name: flop / timing.median / convolution_peak() for name, timing in timings.items()}
    size = f"{setting.size} px, width {setting.width}, {setting.blocks} blocks, batch {setting.batch}"
    found = [
        Row(
            PART,
            "fp32 against plain fp32",
            ratio(timings, "plain fp32", "fp32"),
            "x",
            ">= 1.25",
            f"{timings['fp32']} against {timings['plain fp32']}; {size}",
        )
    ]
    if True in amps:
        found += [
            Row(
                PART,
                f"bf16 against {reference}",
                ratio(timings, reference, "bf16"),
                "x",
                target,
                f"{timings['bf16']} against {timings[reference]}",
            )
            for reference, target in (("plain fp32", ">= 2.4"), ("plain bf16", ">= 1.35"))
        ]
    found.append(Row(PART, "a plain step, counted with direct convolutions", flop / 1e12, "TFLOP"))
    found += [
        Row(PART, f"share of the measured convolution peak, {name}", share, "", "", "above 1: fewer multiplications")
        for name, share in shares.items()
    ]
    return found


def _memory(setting: Setting, amps: list[bool]) -> list[Row]:
    plain = _peak(_one_plain_step, setting)
    found = [Row(PART, "peak memory of a plain fp32 step", plain / 1e9, "GB")]
    for amp in amps:
        kind = "bf16" if amp else "fp32"
        found.append(
            Row(
                PART,
                f"peak memory, {kind}, against plain fp32",
                _peak(_one_step, setting, amp, False) / plain,
                "x",
                "<= 0.70" if amp else "",
            )
        )
        checkpointed = _peak(_one_step, setting, amp, True) / plain
        found.append(
            Row(PART, f"peak memory, {kind} with checkpointing, against plain fp32", checkpointed, "x", "<= 0.40")
        )
    return found


def _peak(function: Any, *arguments: Any) -> float:
    """Bytes; on a GPU its own count of what tensors took."""
    if DEVICE == "cpu":
        return peak_memory(function, *arguments)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    function(*arguments)
    return float(torch.cuda.max_memory_allocated())


def _one_plain_step(setting: Setting) -> None:
    networks = _networks(setting)
    plain = _Plain(setting, networks, _batch(setting), amp=False)
    del networks[:]
    plain()
    plain()


def _one_step(setting: Setting, amp: bool, checkpointing: bool) -> None:
    step = _Step(_networks(setting, checkpointing), _batch(setting), amp)
    step()
    step()
