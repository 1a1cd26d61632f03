"""Features of a frozen encoder, computed once."""

from collections.abc import Iterator
from unittest import mock

import torch

from src.batch import Batch
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.few_shot import features
from src.models.few_shot.features import FeatureRunner, FrozenRows, read_features
from tests.toy import Toy


class Counted:
    """Batches of the toy's rows, which count how often they are read."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        rows = Toy().split("val")
        yield from (rows[ids] for ids in torch.arange(len(rows)).split(40))


def make_model() -> MultiTaskModel:
    data = Toy()
    model = MultiTaskModel(data.tasks, data.input_shape, encoder=lambda shape: MLP(shape, width=8))
    model.configure_model()
    return model.eval()


def test_features_are_those_of_the_network_and_read_once() -> None:
    model = make_model()
    batches = Counted()
    rows = FrozenRows(model, "number", batches)
    first = list(rows)
    second = list(rows)
    assert batches.passes == 1
    assert [len(examples) for examples in first] == [40, 40, 21]
    for examples, again, batch in zip(first, second, Counted(), strict=True):
        assert examples is again
        with torch.no_grad():
            outputs = model(batch.inputs)["number"]
            torch.testing.assert_close(model.heads["number"](examples.features), outputs)
        assert torch.equal(examples.targets.isnan(), batch.targets["number"].isnan())
        assert not examples.features.requires_grad


def test_features_that_do_not_fit_into_memory_are_computed_each_time() -> None:
    batches = Counted()
    rows = FrozenRows(make_model(), "number", batches)
    with mock.patch.object(features, "MOST_NUMBERS", 500):
        sizes = [[len(examples) for examples in rows] for _ in range(2)]
    assert sizes == [[40, 40, 21]] * 2
    assert batches.passes == 2


def test_a_model_reads_features_in_place_of_inputs() -> None:
    model = make_model()
    batch = next(iter(Counted()))
    with torch.no_grad():
        before = model(batch.inputs)["class"]
        examples = read_features(model, "class", batch)
        model.runner = FeatureRunner()
        after = model(examples.features)["class"]
    assert torch.equal(before, after)
