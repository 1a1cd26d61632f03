"""Feeding 100,000 rows of 64 numbers: our stream of batches against PyTorch's collation."""

import statistics
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.data import Rows
from src.data.stream import Batches, GlobalBatches

ROWS, FEATURES, BATCH = 100_000, 64, 256


class OneByOne(Dataset[Any]):
    """A data set as tutorials write it: one sample at a time."""

    def __init__(self, inputs: Tensor, targets: dict[str, Tensor]) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.inputs[row], {name: target[row] for name, target in self.targets.items()}


def seconds(batches: Iterable[Any]) -> float:
    """CPU seconds to go through all batches."""
    start = time.process_time()
    count = sum(1 for _ in batches)
    assert count == -(-ROWS // BATCH)
    return time.process_time() - start


def table(quick: bool) -> str:
    """The comparison as a Markdown table."""
    inputs = torch.randn(ROWS, FEATURES)
    targets = {"a": torch.randn(ROWS), "b": torch.randint(0, 3, (ROWS,))}
    default = DataLoader(OneByOne(inputs, targets), BATCH, shuffle=True)
    ours = Batches(Rows(inputs, targets), GlobalBatches(ROWS, BATCH, shuffle=True))
    pairs = [(seconds(default), seconds(ours)) for _ in range(2 if quick else 8)][1:]
    slow, fast = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    times = statistics.median(a / b for a, b in pairs)
    return (
        "| feeding 100k x 64, batch 256 | default collate, ms per epoch | ours, ms per epoch "
        "| times as fast | goal |\n"
        "|---|---|---|---|---|\n"
        f"| dict targets, one process | {slow:.0f} | {fast:.0f} | {times:.1f} | 8 |"
    )
