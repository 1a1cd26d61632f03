"""The way of a request: rows as bytes, inputs, outputs of the network, decoded predictions."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from torch import Tensor

from src.data.rows import Inputs
from src.data.tables.row_reader import BadRows, RowReader
from src.deployment.serving.batcher import Batcher, Predict
from src.deployment.serving.bodies import read_rows
from src.deployment.serving.limits import Limits, Refusal
from src.models import MultiTaskModel
from src.tasks.dependence import decode_factor

Columns = dict[str, Sequence[object]]
THREADS = 2  # that read and write rows beside the network's own


class Observer(Protocol):
    """Sees the rows that are predicted."""

    def add(self, inputs: Inputs, columns: Columns) -> None:
        """Sees the inputs of some rows, and their predictions by column."""


class PredictionService:
    """Answers requests with the predictions of a network.

    Args:
        model: The model, which decodes outputs.
        predict: Returns {task: outputs} of inputs.
        reader: Reads rows.
        limits: How much a client may ask for.
        observer: Sees all rows and their predictions; None for nobody.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        predict: Predict,
        reader: RowReader,
        limits: Limits,
        observer: Observer | None = None,
    ) -> None:
        self.model = model
        self.reader = reader
        self.limits = limits
        self.observer = observer
        self.batcher = Batcher(predict, limits)
        self._threads = ThreadPoolExecutor(THREADS, "rows")

    async def answer(self, content_type: str, body: bytes) -> dict[str, object]:
        """Returns the answer to a request: predictions, and notes where rows are unlike training.

        Raises:
            Refusal: The request cannot be answered.
        """
        loop = asyncio.get_running_loop()
        encode = loop.run_in_executor(self._threads, self._encode, content_type, body)
        inputs, notes, count = await encode
        outputs = await asyncio.wrap_future(self.batcher.submit(inputs, count))
        finish = loop.run_in_executor(self._threads, self._decode, inputs, outputs, count)
        answer: dict[str, object] = {"predictions": await finish}
        return answer | {"notes": notes} if notes else answer

    def close(self) -> None:
        """Ends the threads."""
        self.batcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _encode(self, content_type: str, body: bytes) -> tuple[Inputs, list[str], int]:
        limits = self.limits
        try:
            rows = read_rows(content_type, body, self.reader.delimiter, limits.max_rows)
            inputs, notes = self.reader.encode(rows)
        except BadRows as error:
            raise Refusal(422, error.problems) from None
        return inputs, notes, len(rows)

    def _decode(
        self, inputs: Inputs, outputs: Mapping[str, Tensor], count: int
    ) -> list[dict[str, object]]:
        columns = decode_columns(self.model, outputs)
        if self.observer is not None:
            self.observer.add(inputs, columns)
        return [
            {name: to_json(values[row]) for name, values in columns.items()} for row in range(count)
        ]


def decode_columns(model: MultiTaskModel, outputs: Mapping[str, Tensor]) -> Columns:
    """Returns the outputs of a network as the columns that ``src.predict`` writes.

    Args:
        model: The model.
        outputs: {task: outputs (N, ..., O)}.

    Returns:
        {name: N values}: <task> or <task>.<output> for a prediction, <task>.p_<class> for a
        probability.
    """
    columns: Columns = {}
    for name, values in outputs.items():
        decoded = model.decode(name, values)
        decoded |= decode_factor(name, model.tasks, outputs)
        for suffix, found in decoded.items():
            columns[f"{name}.{suffix}" if suffix else name] = found
    return columns


def to_json(value: object) -> object:
    """Returns a value as JSON has it, where there is no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
