"""Real servers of `python -m src.serve`, and clients that ask them anything."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests import launching

START = 120.0  # seconds on a busy machine


class Server:
    """A server in a process of its own.

    Args:
        run: The run folder.
        args: Further flags.
    """

    def __init__(self, run: Path, *args: object) -> None:
        self.process = launching.start("src.serve", "--run", run, "--port", 0, *args)
        self.errors: list[str] = []
        assert self.process.stdout is not None and self.process.stderr is not None
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        timer = threading.Timer(START, self.process.kill)
        timer.start()
        self.greeting = [self.process.stdout.readline(), self.process.stdout.readline()]
        timer.cancel()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.greeting[0])
        assert found, (self.greeting, self.errors)
        self.port = int(found[1])

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.errors += list(self.process.stderr)

    def ask(
        self,
        body: bytes | str | None,
        kind: str | None = "application/json",
        path: str = "/predict",
        method: str = "POST",
    ) -> tuple[int, Any]:
        """Returns the status and the JSON of an answer."""
        headers = {} if kind is None else {"Content-Type": kind}
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with closing(client):
            client.request(method, path, body, headers)
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the predictions of rows."""
        status, answer = self.ask(json.dumps({"rows": rows}))
        assert status == 200, answer
        predictions: list[dict[str, Any]] = answer["predictions"]
        return predictions

    def connect(self) -> socket.socket:
        """Returns a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def is_well(self) -> bool:
        """Returns whether the server answers."""
        return self.ask(None, None, "/health", "GET") == (200, {"status": "ok"})

    def close(self) -> None:
        """Closes the pipes to a server that has ended."""
        self._reader.join(timeout=10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def end(self, number: int = signal.SIGTERM) -> float:
        """Ends the server, and returns the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        self._reader.join(timeout=10)
        return time.monotonic() - began


@contextmanager
def serving(run: Path, *args: object) -> Iterator[Server]:
    """Serves a run for a while."""
    server = Server(run, *args)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
        server.close()


def list_children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    text = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(word) for word in text.split()]
