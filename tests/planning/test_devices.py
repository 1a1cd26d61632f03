"""The devices of a run, which need not be here."""

from dataclasses import replace
from pathlib import Path

import pytest

from src.planning.devices import Devices, find_main_memory, format_bytes

GB = 10**9


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (99_960, "100 kB"),
        (999_960, "1 MB"),
        (2e15, "2000 TB"),
    ],
)
def test_sizes_in_three_digits(bytes_: float, text: str) -> None:
    assert format_bytes(bytes_) == text


def test_a_container_may_have_less_than_its_machine(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    there = find_main_memory(limit)
    assert there is not None
    for written, expected in (("max\n", there), ("1000000\n", 1000000), (f"{there * 2}\n", there)):
        limit.write_text(written)
        assert find_main_memory(limit) == expected


def test_asked_for() -> None:
    settings = {"devices": "4", "accelerator": "cpu", "num_nodes": 2}
    devices = Devices.from_settings(settings)
    assert (devices.per_node, devices.nodes, devices.kind, devices.count) == (4, 2, "cpu", 8)
    assert devices.share == (devices.memory or 0) / 4
    assert str(replace(devices, memory=16 * GB)) == "2 x 4 x CPU (16 GB together)"
    assert str(Devices(8, 1, "gpu", "NVIDIA H100", 85 * GB)) == "8 x GPU (NVIDIA H100, 85 GB each)"
    assert str(Devices(1)) == "CPU"
    with pytest.raises(ValueError, match="--num_nodes is 0"):
        Devices.from_settings(settings | {"num_nodes": 0})
