"""HTTP with time limits: a client that sends, or reads, too slowly is left."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

ANSWERED = 60.0  # seconds for the network, and for the client to read its answer


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, which itself waits for ever for the head of a request.

    The head may take as long as a connection may be idle, ``timeout_keep_alive``; a request and its
    answer together may take ``ANSWERED`` seconds more than twice that.
    """

    _timer: asyncio.TimerHandle | None = None
    _is_in_request = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the head of the first request."""
        super().connection_made(transport)
        self._start_timer(self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        """Reads what has come, and waits for the rest."""
        super().data_received(data)
        in_request = self.cycle is not None and not self.cycle.response_complete
        if in_request and not self._is_in_request:
            self._start_timer(2 * self.timeout_keep_alive + ANSWERED)
        elif not in_request and self._timer is None:
            self._start_timer(self.timeout_keep_alive)
        self._is_in_request = in_request

    def on_response_complete(self) -> None:
        """Leaves an idle connection to uvicorn's own limit."""
        self._stop_timer()
        self._is_in_request = False
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the client."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
