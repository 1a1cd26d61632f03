"""Requests that run together: each gets its own outputs, or its own error."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from src.deployment.serving.batcher import Batcher
from src.deployment.serving.limits import Limits, Refusal


class Network:
    """Doubles its inputs, and remembers the sizes of its batches; 13 it cannot bear."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, inputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        self.gate.wait(10)
        assert isinstance(inputs, Tensor)
        if (inputs == 13).any():
            raise RuntimeError("thirteen")
        self.sizes.append(len(inputs))
        return {"twice": inputs * 2}


def test_each_request_has_its_own_outputs():
    network = Network()
    batcher = Batcher(network.predict, Limits(max_waiting=1000, max_batch=16, batch_wait=0.01))

    def ask(k: int) -> list[float]:
        rows = torch.arange(k, k + 1 + k % 3, dtype=torch.float64)[:, None] + 100
        found: list[float] = batcher.submit(rows, len(rows)).result(10)["twice"].flatten().tolist()
        return found

    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(ask, range(300)))
    assert found == [[2.0 * (100 + k + i) for i in range(1 + k % 3)] for k in range(300)]
    assert sum(network.sizes) == 600
    assert len(network.sizes) < 300
    # the last request of a batch may bring two rows more than fit
    assert max(network.sizes) <= 18
    batcher.close()


def test_a_request_that_fails_harms_no_other():
    network = Network()
    network.gate.clear()
    batcher = Batcher(network.predict, Limits(batch_wait=0.05))
    promises = [batcher.submit(torch.tensor([[float(k)]]), 1) for k in (12, 13, 14)]
    network.gate.set()
    assert promises[0].result(10)["twice"].item() == 24
    with pytest.raises(RuntimeError, match="thirteen"):
        promises[1].result(10)
    assert promises[2].result(10)["twice"].item() == 28
    batcher.close()


def test_the_queue_is_bounded_and_the_end_refuses_what_waits():
    network = Network()
    network.gate.clear()
    batcher = Batcher(network.predict, Limits(max_waiting=2, max_batch=1))
    first = batcher.submit(torch.ones(1, 1), 1)
    while not first.running():
        time.sleep(0.001)
    waiting = [batcher.submit(torch.ones(1, 1), 1) for _ in range(2)]
    with pytest.raises(Refusal) as refused:
        batcher.submit(torch.ones(1, 1), 1)
    assert refused.value.status == 503
    ending = threading.Thread(target=batcher.close)
    ending.start()
    for promise in waiting:
        with pytest.raises(Refusal):
            promise.result(10)
    network.gate.set()
    ending.join(10)
    assert first.result(10)["twice"].item() == 2


def test_a_client_that_has_gone_costs_nothing():
    network = Network()
    network.gate.clear()
    batcher = Batcher(network.predict, Limits(max_batch=1))
    first = batcher.submit(torch.ones(1, 1), 1)
    while not first.running():
        time.sleep(0.001)
    gone = batcher.submit(torch.ones(5, 1), 5)
    assert gone.cancel()
    network.gate.set()
    assert batcher.submit(torch.ones(2, 1), 2).result(10)["twice"].sum() == 4
    assert network.sizes == [1, 2]
    batcher.close()
