import pytest
import torch
from torch import nn

from src.batch import Batch, InputShape
from src.models import unseen
from src.models.encoders import MLP, TabularTransformer
from src.models.unseen import HIDDEN, hide_categories

ROWS = 4000


def batch(rows=slice(None)):
    codes = 1 + torch.arange(ROWS)[:, None] % 7 + torch.zeros(1, 5, dtype=torch.long)
    inputs = {"dense": torch.zeros(ROWS, 2)[rows], "categorical": codes[rows]}
    return Batch(inputs, {}, torch.arange(ROWS)[rows])


def hidden(batch):
    hide_categories(batch)
    return batch.inputs["categorical"] == 0


def test_each_category_is_hidden_with_the_same_probability():
    torch.manual_seed(3)
    found = hidden(batch())
    deviation = (HIDDEN * (1 - HIDDEN) / ROWS) ** 0.5
    assert found.double().mean(0).sub(HIDDEN).abs().max() < 4 * deviation
    together = (
        (found[:, 0] & found[:, 1]).double().mean()
    )  # columns are hidden independently of one another
    assert abs(together - HIDDEN**2) < 4 * (HIDDEN**2 / ROWS) ** 0.5


def test_others_stay_and_the_data_set_is_not_touched():
    whole = batch()
    before = whole.inputs["categorical"]
    copy = before.clone()
    torch.manual_seed(3)
    found = hidden(whole)
    assert torch.equal(whole.inputs["categorical"][~found], copy[~found])
    assert torch.equal(before, copy)


def test_the_same_cells_are_hidden_for_a_seed_and_others_for_another():
    def drawn(seed):
        torch.manual_seed(seed)
        return hidden(batch())

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    again = batch()
    for _ in range(2):  # a step may be prepared twice
        torch.manual_seed(1)
        hide_categories(again)
    assert torch.equal(again.inputs["categorical"] == 0, drawn(1))


def test_two_ranks_hide_what_one_hides(monkeypatch):
    monkeypatch.setattr(unseen, "place_and_key", lambda rows: (0, 42))
    one = hidden(batch())
    half = ROWS // 2
    first = hidden(batch(slice(half)))
    monkeypatch.setattr(unseen, "place_and_key", lambda rows: (half, 42))
    second = hidden(batch(slice(half, None)))
    assert torch.equal(torch.cat([first, second]), one)


@pytest.mark.parametrize(
    "inputs", [torch.ones(3, 2), {"tokens": torch.ones(3, 2)}, {"dense": torch.ones(3, 2)}]
)
def test_other_inputs_draw_no_random_number(inputs):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    hide_categories(Batch(inputs, {}, torch.arange(3)))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_bucket_begins_as_the_mean_of_the_known_categories():
    shape = InputShape((2,), (6, 9))
    for encoder in (MLP(shape), TabularTransformer(shape)):
        embeddings = [module for module in encoder.modules() if isinstance(module, nn.Embedding)]
        assert len(embeddings) == 2
        for embedding in embeddings:
            assert torch.allclose(embedding.weight[0], embedding.weight[1:].mean(0))


def test_categories_among_several_inputs_are_hidden_alike():
    alone = batch()
    inputs = {f"table/{key}": values for key, values in alone.inputs.items()}
    inputs["comment/tokens"] = torch.ones(ROWS, 3, dtype=torch.long)
    several = Batch(inputs, {}, alone.ids)
    for each in (alone, several):
        torch.manual_seed(3)
        hide_categories(each)
    assert torch.equal(several.inputs["table/categorical"], alone.inputs["categorical"])
    assert several.inputs["comment/tokens"].all()
