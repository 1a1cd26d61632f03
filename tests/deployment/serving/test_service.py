"""Requests answered in this process, by a network that is a formula."""

import asyncio
import json
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from src.batch import InputShape
from src.data.tables.columns import Numeric
from src.data.tables.file_format import FileFormat
from src.data.tables.numbers import NumberFormat
from src.data.tables.row_reader import Problem, RowReader
from src.deployment.serving.limits import Limits, Refusal
from src.deployment.serving.service import Decoded, PredictionService, Words
from src.models import MultiTaskModel
from src.tasks import Regression

READER = RowReader([Numeric("x", "x", NumberFormat(), 0.0, 1.0, False)], ["sex"], FileFormat())


class PlusByGroup:
    """Adds one to the predictions of women; knows no other sex."""

    columns = ("sex",)

    def check(self, words: Words) -> list[Problem]:
        wrong = [place for place, word in enumerate(words["sex"]) if word not in ("F", "M", None)]
        return [Problem(place, "sex", "is unknown") for place in wrong]

    def change(self, decoded: Decoded, outputs: Mapping[str, Tensor], words: Words) -> None:
        values: Sequence[float] = outputs["y"][:, 0].tolist()
        pairs = zip(values, words["sex"], strict=True)
        decoded["y"]["plus"] = [value + (word == "F") for value, word in pairs]


@pytest.fixture
def service():
    model = MultiTaskModel({"y": Regression(mean=(0.0,), std=(1.0,))}, InputShape((1,)))

    def predict(inputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        assert isinstance(inputs, dict)
        x = inputs["dense"]
        return {"y": torch.where(x < 0, torch.nan, 10 * x)}

    made = PredictionService(model, predict, READER, Limits(max_rows=5), [PlusByGroup()])
    yield made
    made.close()


def ask(service: PredictionService, rows: object) -> dict[str, object]:
    return asyncio.run(service.answer("application/json", json.dumps(rows).encode()))


def test_predictions_are_decoded_and_changed_by_group(service: PredictionService):
    answer = ask(service, [{"x": 1, "sex": "F"}, {"x": "2.5", "sex": "M"}, {"x": -1, "sex": None}])
    # JSON has no NaN
    assert answer == {
        "predictions": [
            {"y": 10.0, "y.plus": 11.0},
            {"y": 25.0, "y.plus": 25.0},
            {"y": None, "y.plus": None},
        ]
    }


def test_problems_of_inputs_and_of_groups_come_together(service: PredictionService):
    with pytest.raises(Refusal) as refused:
        ask(service, [{"x": "a", "sex": "X"}, {"x": 1}, {"x": 1, "sex": [1]}, 3])
    assert refused.value.status == 422
    assert [(each.row, each.column) for each in refused.value.problems] == [
        (0, "x"),
        (0, "sex"),
        (1, "sex"),
        (2, "sex"),
        (3, None),
    ]
