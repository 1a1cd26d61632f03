"""Two machines in one: Linux network namespaces with a wire between them, which can be cut."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.launching import start

ADDRESSES = ("10.213.87.1", "10.213.87.2")


def ip(*words: str) -> None:
    """Runs iproute2's ip.

    Raises:
        OSError: There is none, or it is not permitted.
    """
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Hosts:
    """Two network namespaces with an address each, on one file system, as nodes of a cluster."""

    def __init__(self) -> None:
        self.names = [f"host{i}-{os.getpid()}" for i in range(2)]

    def start(self, host: int, module: str, *args: object, **more: str) -> subprocess.Popen[str]:
        """Starts `python -m <module> <args>` on a host, in a process group of its own."""
        return start(module, *args, within=("ip", "netns", "exec", self.names[host]), **more)

    def cut(self, host: int) -> None:
        """Pulls the plug: nothing arrives any more, and nobody is told."""
        ip("-n", self.names[host], "link", "set", "wire", "down")

    def mend(self, host: int) -> None:
        """Puts the plug back in."""
        ip("-n", self.names[host], "link", "set", "wire", "up")

    def processes(self, host: int) -> list[int]:
        """Who still runs on a host."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.names[host]], capture_output=True, text=True, check=True
        )
        return [int(line) for line in found.stdout.split()]


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Makes the hosts and the wire, and removes them with whatever still runs there.

    Raises:
        OSError: This machine does not permit it.
    """
    hosts = Hosts()
    here, there = hosts.names
    try:
        for name in hosts.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            "-n",
            here,
            "link",
            "add",
            "wire",
            "type",
            "veth",
            "peer",
            "name",
            "wire",
            "netns",
            there,
        )
        for name, address in zip(hosts.names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
        yield hosts
    finally:
        for i, name in enumerate(hosts.names):
            if os.path.exists(f"/run/netns/{name}"):
                for process in hosts.processes(i):
                    os.kill(process, 9)
                ip("netns", "delete", name)
