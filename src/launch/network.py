"""Chooses the network and the place where several machines meet."""

import fcntl
import os
import socket
import struct
from collections.abc import MutableMapping

from torch.distributed import TCPStore

SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


def choose_interface(main_address: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes gloo listen on the interface that leads to the main node, by GLOO_SOCKET_IFNAME.

    By itself gloo listens where this machine's own name leads. On many machines that is the
    loopback (127.0.1.1 in /etc/hosts), which no other node can reach. An interface that is set
    already stays. NCCL looks for an interface by itself.

    Args:
        main_address: The address of the main node.
        environment: Environment variables, which are changed.
    """
    if "GLOO_SOCKET_IFNAME" in environment:
        return
    try:
        if not socket.gethostbyname(socket.gethostname()).startswith("127."):
            return
    except OSError:  # a machine that does not know its own name
        pass

    interface = find_interface(main_address)
    if interface is not None:
        environment["GLOO_SOCKET_IFNAME"] = interface


def find_interface(host: str) -> str | None:
    """Returns the interface by which a host is reached; None if it is unknown, or the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # On a datagram socket this looks up the route, and sends nothing.
            probe.connect((host, 9))
            own_address = probe.getsockname()[0]
        except OSError:
            return None
        if own_address.startswith("127."):
            return None

        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:  # an interface without an address, or another system than Linux
                continue
            if socket.inet_ntoa(answer[20:24]) == own_address:
                return name
    return None


def renew_meeting_place(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets processes that torchrun has started again meet at a new place.

    By themselves they would meet in torchrun's own store. Without --rdzv-backend c10d the addresses
    of the dead processes still stand there (pytorch/pytorch#135712 for c10d). Here that store only
    passes on the new place.

    Args:
        environment: Environment variables, which are changed.
    """
    in_store_of_agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not in_store_of_agent or environment["TORCHELASTIC_RESTART_COUNT"] == "0":
        return

    store = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
    key = f"port of attempt {environment['TORCHELASTIC_RESTART_COUNT']}"
    if environment["RANK"] == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))

    environment["MASTER_PORT"] = store.get(key).decode()
    environment["TORCHELASTIC_USE_AGENT_STORE"] = "False"
