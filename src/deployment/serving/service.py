"""The way of a request: rows as bytes, inputs, outputs of the network, decoded predictions."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from src.data.rows import Inputs
from src.data.tables.row_reader import BadRows, Problem, RowReader, cut_problems
from src.deployment.serving.batcher import Batcher, Predict
from src.deployment.serving.bodies import read_rows
from src.deployment.serving.limits import Limits, Refusal
from src.models import MultiTaskModel
from src.tasks.dependence import decode_factor

Columns = dict[str, Sequence[object]]
Decoded = dict[str, Columns]  # {task: {suffix of the column's name: values}}
Words = Mapping[str, Sequence[str | None]]
THREADS = 2  # that read and write rows beside the network's own


class Observer(Protocol):
    """Sees the rows that are predicted."""

    def add(self, inputs: Inputs, columns: Columns) -> None:
        """Sees the inputs of some rows, and their predictions by column."""


class Addition(Protocol):
    """Changes predictions, or adds columns to them, by the groups of rows where it names some."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns that tell the group of a row."""

    def check(self, words: Words) -> list[Problem]:
        """Returns what is wrong with the groups of rows."""

    def change(self, decoded: Decoded, outputs: Mapping[str, Tensor], words: Words) -> None:
        """Changes the decoded predictions of rows, in place."""


@dataclass(frozen=True)
class GivenRows:
    """The rows of a request.

    Attributes:
        inputs: Their inputs.
        words: The columns that tell their groups.
        notes: How they are unlike the training rows, one line each.
        count: Their number.
    """

    inputs: Inputs
    words: Words
    notes: list[str]
    count: int


class PredictionService:
    """Answers requests with the predictions of a network.

    Args:
        model: The model, which decodes outputs.
        predict: Returns {task: outputs} of inputs.
        reader: Reads rows.
        limits: How much a client may ask for.
        additions: Change the predictions, one after the other.
        observer: Sees all rows and their predictions; None for nobody.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        predict: Predict,
        reader: RowReader,
        limits: Limits,
        additions: Sequence[Addition] = (),
        observer: Observer | None = None,
    ) -> None:
        self.model = model
        self.reader = reader
        self.limits = limits
        self.additions = additions
        self.observer = observer
        self.batcher = Batcher(predict, limits)
        self._threads = ThreadPoolExecutor(THREADS, "rows")

    async def answer(self, content_type: str, body: bytes) -> dict[str, object]:
        """Returns the answer to a request: predictions, and notes where rows are unlike training.

        Raises:
            Refusal: The request cannot be answered.
        """
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._threads, self._read, content_type, body)
        outputs = await asyncio.wrap_future(self.batcher.submit(rows.inputs, rows.count))
        predictions = await loop.run_in_executor(self._threads, self._write, rows, outputs)
        answer: dict[str, object] = {"predictions": predictions}
        return answer | {"notes": rows.notes} if rows.notes else answer

    def close(self) -> None:
        """Ends the threads."""
        self.batcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _read(self, content_type: str, body: bytes) -> GivenRows:
        """Reads the rows of a request.

        Raises:
            Refusal: They are wrong.
        """
        problems: list[Problem] = []
        inputs: Inputs = {}
        notes: list[str] = []
        try:
            rows = read_rows(content_type, body, self.reader.delimiter, self.limits.max_rows)
        except BadRows as error:
            raise Refusal(422, error.problems) from None
        try:
            inputs, notes = self.reader.encode(rows)
        except BadRows as error:
            problems += error.problems
        words = self._read_groups(rows, problems)
        if problems:
            raise Refusal(422, cut_problems(problems))
        return GivenRows(inputs, words, notes, len(rows))

    def _read_groups(self, rows: Sequence[object], problems: list[Problem]) -> Words:
        """Returns the columns that tell the groups of rows, and adds what is wrong with them."""
        groups = list(dict.fromkeys(name for each in self.additions for name in each.columns))
        words, wrong = self.reader.read_words(rows, groups)
        for each in self.additions:
            wrong += each.check(words)
        # a value that is no input and of no group, too, is named once
        known = {(problem.row, problem.column) for problem in problems}
        for problem in wrong:
            place = (problem.row, problem.column)
            if place not in known:
                known.add(place)
                problems.append(problem)
        return words

    def _write(self, rows: GivenRows, outputs: Mapping[str, Tensor]) -> list[dict[str, object]]:
        """Returns the predictions of rows as JSON has them."""
        columns = decode_columns(self.model, outputs, self.additions, rows.words)
        if self.observer is not None:
            self.observer.add(rows.inputs, columns)
        return [
            {name: to_json(values[row]) for name, values in columns.items()}
            for row in range(rows.count)
        ]


def decode_columns(
    model: MultiTaskModel,
    outputs: Mapping[str, Tensor],
    additions: Sequence[Addition] = (),
    words: Words | None = None,
) -> Columns:
    """Returns the outputs of a network as the columns that ``src.predict`` writes.

    Args:
        model: The model.
        outputs: {task: outputs (N, ..., O)}.
        additions: Change the predictions, one after the other.
        words: The columns that tell the groups of the rows.

    Returns:
        {name: N values}: <task> or <task>.<output> for a prediction, <task>.p_<class> for a
        probability.
    """
    decoded: Decoded = {}
    for name, values in outputs.items():
        factor = decode_factor(name, model.tasks, outputs)
        decoded[name] = {**model.decode(name, values), **factor}
    for addition in additions:
        addition.change(decoded, outputs, words or {})
    columns: Columns = {}
    for name, own in decoded.items():
        for suffix, found in own.items():
            columns[f"{name}.{suffix}" if suffix else name] = found
    return columns


def to_json(value: object) -> object:
    """Returns a value as JSON has it, where there is no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
