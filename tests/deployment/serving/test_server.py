"""The port of a server."""

import socket

import pytest

from src.deployment.serving.server import open_port
from src.errors import UserError


def test_a_port_is_opened_once():
    with open_port("127.0.0.1", 0) as listener:
        address, port = listener.getsockname()
        assert address == "127.0.0.1"
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be opened"):
            open_port("127.0.0.1", port)
        with socket.create_connection((address, port), timeout=5):
            pass


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("127.0.0.1", 70_000, "--port is 70000"),
        ("127.0.0.1", -1, "--port is -1"),
        ("no.such.host.invalid", 0, "--host 'no.such.host.invalid'"),
        ("203.0.113.7", 0, "cannot be opened"),
    ],
)
def test_an_address_that_cannot_be_is_refused(host: str, port: int, says: str):
    with pytest.raises(UserError, match=says):
        open_port(host, port)
