"""Over which network several machines meet."""

import fcntl
import os
import socket
import struct
from collections.abc import MutableMapping

from torch.distributed import TCPStore

SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


def choose_interface(main_address: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Has gloo listen on the interface that leads to the main node, where it would choose one that no other node can reach.

    Gloo listens where this machine's own name leads to, which on many machines is the loopback
    (127.0.1.1 in /etc/hosts). What GLOO_SOCKET_IFNAME says already holds. NCCL looks for an
    interface by itself.
    """
    if "GLOO_SOCKET_IFNAME" in environment:
        return
    try:
        if not socket.gethostbyname(socket.gethostname()).startswith("127."):
            return
    except OSError:  # a machine that does not know its own name
        pass
    interface = interface_towards(main_address)
    if interface is not None:
        environment["GLOO_SOCKET_IFNAME"] = interface


def meet_anew(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets the processes that torchrun has started again meet at a new place.

    They would meet in torchrun's own store, where without --rdzv-backend c10d the addresses of the
    dead processes still stand (pytorch/pytorch#135712 for c10d). The store is asked for the new
    place alone.
    """
    if (
        environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        or environment["TORCHELASTIC_RESTART_COUNT"] == "0"
    ):
        return
    store = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
    key = f"port of attempt {environment['TORCHELASTIC_RESTART_COUNT']}"
    if environment["RANK"] == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    environment["MASTER_PORT"] = store.get(key).decode()
    environment["TORCHELASTIC_USE_AGENT_STORE"] = "False"


def interface_towards(host: str) -> str | None:
    """The interface by which a host is reached; None where that cannot be told, or is the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # of a datagram socket: looks up the route, and sends nothing
            here = probe.getsockname()[0]
        except OSError:
            return None
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # an interface without an address, or another system than Linux
                continue
            if socket.inet_ntoa(found[20:24]) == here and not here.startswith("127."):
                return name
    return None
