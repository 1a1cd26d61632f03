"""Dynamic batching: requests that come at the same time run through the network together."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from src.data.rows import Inputs, Rows, append_inputs
from src.deployment.serving.limits import Limits, Refusal

Outputs = dict[str, Tensor]
Predict = Callable[[Tensor | dict[str, Tensor]], Outputs]


@dataclass
class Job:
    """The rows of a request, and the promise of their outputs.

    Attributes:
        inputs: The encoded rows.
        rows: Their number.
        outputs: {task: outputs (rows, ..., O)}, once they are there.
    """

    inputs: Inputs
    rows: int
    outputs: Future[Outputs] = field(default_factory=Future)


class Batcher:
    """Runs the network for several requests at once, in a thread of its own.

    Args:
        predict: Returns {task: outputs} of inputs; it is called by one thread alone.
        limits: How long requests wait for each other, and how many may.
    """

    def __init__(self, predict: Predict, limits: Limits) -> None:
        self.predict = predict
        self.limits = limits
        self._waiting: queue.Queue[Job | None] = queue.Queue(limits.max_waiting)
        self._thread = threading.Thread(target=self._work, daemon=True, name="network")
        self._thread.start()

    def submit(self, inputs: Inputs, rows: int) -> Future[Outputs]:
        """Returns the promise of the outputs of rows.

        Raises:
            Refusal: Too many requests wait already.
        """
        job = Job(inputs, rows)
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            raise Refusal(503, "too many requests wait: come again in a second") from None
        return job.outputs

    def close(self) -> None:
        """Ends the thread; requests that wait still are refused."""
        with suppress(queue.Empty):
            while True:
                job = self._waiting.get_nowait()
                if job is not None:
                    job.outputs.set_exception(Refusal(503, "the server ends"))
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while True:
            job = self._waiting.get()
            if job is None:
                return
            jobs = [job]
            ends = not self._collect(jobs)
            self._run(jobs)
            if ends:
                return

    def _collect(self, jobs: list[Job]) -> bool:
        """Adds requests that come soon after the first; returns False where the server ends."""
        until = time.monotonic() + self.limits.batch_wait
        rows = jobs[0].rows
        while rows < self.limits.max_batch:
            try:
                job = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return True
            if job is None:
                return False
            jobs.append(job)
            rows += job.rows
        return True

    def _run(self, jobs: Sequence[Job]) -> None:
        """Runs requests together, or one by one where that fails: one must not harm the others."""
        live = [job for job in jobs if job.outputs.set_running_or_notify_cancel()]
        if not live:
            return
        try:
            found = self._predict(live)
        except Exception as error:
            if len(live) == 1:
                live[0].outputs.set_exception(error)
                return
            for job in live:
                self._run_alone(job)
            return
        for job, outputs in zip(live, found, strict=True):
            job.outputs.set_result(outputs)

    def _run_alone(self, job: Job) -> None:
        try:
            (outputs,) = self._predict([job])
        except Exception as error:
            job.outputs.set_exception(error)
        else:
            job.outputs.set_result(outputs)

    def _predict(self, jobs: Sequence[Job]) -> list[Outputs]:
        """Returns the outputs of each request."""
        inputs = jobs[0].inputs
        for job in jobs[1:]:
            inputs = append_inputs(inputs, job.inputs)
        rows = Rows(inputs)
        counts = [job.rows for job in jobs]
        # lazy inputs, such as the tokens of texts, are made here
        outputs = self.predict(rows[torch.arange(sum(counts))].inputs)
        parts = {name: values.split(counts) for name, values in outputs.items()}
        return [{name: values[i] for name, values in parts.items()} for i in range(len(jobs))]
