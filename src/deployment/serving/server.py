"""A server on one port, which ends at once and cleanly."""

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from src.deployment.serving.limits import Limits
from src.deployment.serving.patient_protocol import PatientProtocol
from src.errors import UserError

MOST_CLIENTS = 256  # connections at once; further ones are told to come again
GRACE = 2  # seconds for requests that are under way when the server ends


def open_port(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Args:
        host: The address.
        port: The port; 0 for any that is free.

    Raises:
        UserError: The port is taken, or there is no such address.
    """
    if not 0 <= port < 65536:
        raise UserError(f"--port is {port}; it must be from 0, for any free one, to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise UserError(f"--host '{host}' is no address of this machine") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        why = "it is not open to you" if isinstance(error, PermissionError) else error.strerror
        raise UserError(
            f"port {port} of {host} cannot be opened ({why}): name another --port"
        ) from None
    return listener


def run_server(
    app: ASGIApp, listener: socket.socket, limits: Limits, greet: Callable[[], None]
) -> None:
    """Serves until SIGINT or SIGTERM comes.

    Args:
        app: The application.
        listener: The socket.
        limits: The time that clients have.
        greet: Says that the server is there; from then on signals end it cleanly.
    """
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        limit_concurrency=MOST_CLIENTS,
        timeout_keep_alive=max(1, round(limits.time_limit)),
        timeout_graceful_shutdown=GRACE,
        server_header=False,
    )
    server = uvicorn.Server(config)

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn hears signals once it runs, and raises them again when it has ended: both end here
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        greet()
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listener.close()
