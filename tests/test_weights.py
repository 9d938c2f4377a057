"""Weights are loaded whole or not at all, and the error says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bundle.weights import load_weights


def small(channels: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, channels, 3), nn.Conv2d(channels, 1, 3))


def test_a_raw_state_dict_fills_the_network(tmp_path: Path) -> None:
    saved, network = small(), small()
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    assert load_weights(network, tmp_path / "model.pt") is network
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, saved.state_dict()[name])


def test_the_network_inside_a_distributed_wrapper_is_filled(tmp_path: Path) -> None:
    saved, network = small(), small()
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapper = DistributedDataParallel(network)
        assert load_weights(wrapper, tmp_path / "model.pt") is wrapper
    finally:
        dist.destroy_process_group()
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_missing_weights_name_the_path_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*model\.pt; train first"):
        load_weights(small(), tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"network": small().state_dict(), "epoch": 3}, "a dict with the keys network, epoch"),
        ({}, "a dict with the keys "),
        ([torch.zeros(1)], "a list"),
    ],
)
def test_a_nested_checkpoint_is_refused(tmp_path: Path, content: object, found: str) -> None:
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=f"holds {found}, expected the raw state dict"):
        load_weights(small(), tmp_path / "c.pt")


def test_weights_of_another_network_name_what_differs(tmp_path: Path) -> None:
    state = dict(small(3).state_dict())
    state["extra.weight"] = state.pop("1.bias")
    torch.save(state, tmp_path / "m.pt")
    network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit the network") as caught:
        load_weights(network, tmp_path / "m.pt")
    text = str(caught.value)
    assert "1 tensors missing (1.bias)" in text
    assert "1 tensors unknown (extra.weight)" in text
    assert "0.weight is (3, 1, 3, 3), expected (2, 1, 3, 3)" in text
    assert "network_def" in text
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Harmful:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({"a": Harmful(tmp_path / "ran")}, tmp_path / "m.pt")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_weights(small(), tmp_path / "m.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_weights(small(), tmp_path / "m.pt")
