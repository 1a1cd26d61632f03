"""Copies while they fit, shards where they do not."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from src.planning.auto_strategy import ROOM, choose_strategy
from src.planning.devices import Devices
from src.planning.memory import Load

GB = 10**9
loads = st.builds(Load, *[st.floats(0, 200 * GB)] * 4)
machines = st.builds(
    Devices,
    st.integers(1, 64),
    st.integers(1, 64),
    st.sampled_from(["cpu", "gpu"]),
    memory=st.none() | st.integers(1, 2000 * GB),
)


@given(machines, loads)
def test_what_is_chosen_fits_if_anything_does(devices: Devices, load: Load) -> None:
    name, why = choose_strategy(devices, load)
    assert (why == "") == (name == "auto") == (devices.count == 1)
    assert "\n" not in why
    room = devices.share
    if name == "ddp" and room is not None:
        assert load.total <= ROOM * room
    if name == "fsdp":
        assert room is not None
        assert load.total > ROOM * room
        hopeless = load.state / devices.count + load.activations > ROOM * room
        assert ("hardly" in why) == hopeless


@given(machines.filter(lambda devices: devices.memory is not None), loads, st.integers(1, 10))
def test_more_memory_never_asks_for_shards(devices: Devices, load: Load, times: int) -> None:
    richer = replace(devices, memory=(devices.memory or 0) * times)
    if choose_strategy(devices, load)[0] == "ddp":
        assert choose_strategy(richer, load)[0] == "ddp"


def test_one_device_says_nothing() -> None:
    assert choose_strategy(Devices(1, memory=1), Load(GB)) == ("auto", "")


def test_the_processes_of_a_node_share_its_memory() -> None:
    load = Load(GB, GB, 2 * GB, GB)
    assert choose_strategy(Devices(2, memory=16 * GB), load)[0] == "ddp"
    name, why = choose_strategy(Devices(4, memory=16 * GB), load)
    assert name == "fsdp"
    assert "4 GB of memory, a share of 16 GB" in why
    assert choose_strategy(Devices(2, 2, memory=16 * GB), load)[0] == "ddp"
    assert choose_strategy(Devices(4, kind="gpu", memory=16 * GB), load)[0] == "ddp"


def test_devices_of_which_nothing_is_known() -> None:
    name, why = choose_strategy(Devices(8, 2, "gpu"), Load(0.4e6, 0.4e6, 0.4e6))
    assert (name, why) == ("ddp", "the simplest")  # the plan says that nobody knows whether it fits
