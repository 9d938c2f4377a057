"""Reading ahead gives what reading gives."""

from __future__ import annotations

import pytest
import torch
from monai.data import Dataset
from torch import Tensor

from bundle.inference import ReadAheadLoader


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_loader_that_reads_ahead_gives_the_same_batches_and_the_error_in_its_place(ahead: int) -> None:
    class Numbers(Dataset):
        def _transform(self, index: int) -> Tensor:
            if index == 7:
                raise ValueError("number 7")
            return torch.tensor(index)

    whole = ReadAheadLoader(ahead=ahead, dataset=Numbers(range(6)), batch_size=2)
    for _ in range(2):
        assert [batch.tolist() for batch in whole] == [[0, 1], [2, 3], [4, 5]]
    failing = iter(ReadAheadLoader(ahead=ahead, dataset=Numbers(range(9)), batch_size=2))
    assert [next(failing).tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="number 7"):
        next(failing)
    with pytest.raises(ValueError, match="ahead is 0"):
        ReadAheadLoader(ahead=0, dataset=Numbers(range(2)))
