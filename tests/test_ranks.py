from __future__ import annotations

from typing import Any

import pytest
from torch import distributed

from bundle import ranks


def test_one_process_alone_is_the_main_rank_of_one() -> None:
    assert (ranks.rank(), ranks.world_size(), ranks.is_main_rank()) == (0, 1, True)
    assert ranks.gather({"a": 1}) == [{"a": 1}]


def test_a_distributed_process_knows_its_rank_and_gets_the_values_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_gather(values: list[Any], own: Any) -> None:
        values[:] = ["first", own]

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_gather_object", all_gather)
    assert (ranks.rank(), ranks.world_size(), ranks.is_main_rank()) == (1, 2, False)
    assert ranks.gather("second") == ["first", "second"]
