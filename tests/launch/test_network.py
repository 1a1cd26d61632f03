"""Where processes of several machines meet."""

import socket

import pytest
from torch.distributed import TCPStore

from src.launch.network import choose_interface, find_interface, renew_meeting_place


def test_the_loopback_leads_nowhere() -> None:
    assert find_interface("127.0.0.1") is None
    assert find_interface("no such host.invalid") is None


@pytest.mark.parametrize(
    ("own_address", "before", "after"),
    [
        ("127.0.1.1", {}, {"GLOO_SOCKET_IFNAME": "eth7"}),  # as Debian has it
        ("10.0.0.5", {}, {}),  # gloo is right
        ("127.0.1.1", {"GLOO_SOCKET_IFNAME": "mine"}, {"GLOO_SOCKET_IFNAME": "mine"}),
    ],
)
def test_an_interface_is_chosen_where_gloo_would_take_the_loopback(
    monkeypatch, own_address, before, after
) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda name: own_address)
    monkeypatch.setattr("src.launch.network.find_interface", lambda host: "eth7")
    choose_interface("10.0.0.1", before)
    assert before == after


def test_processes_that_are_started_again_meet_elsewhere() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True)
    torchrun = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    first = torchrun | {"RANK": "0", "TORCHELASTIC_RESTART_COUNT": "0"}
    before = dict(first)
    renew_meeting_place(first)
    assert first == before
    ranks = [torchrun | {"RANK": str(rank), "TORCHELASTIC_RESTART_COUNT": "1"} for rank in range(2)]
    for rank in ranks:
        renew_meeting_place(rank)
    assert ranks[0]["MASTER_PORT"] == ranks[1]["MASTER_PORT"] != str(store.port)
    assert ranks[0]["TORCHELASTIC_USE_AGENT_STORE"] == "False"
