"""The path from a baseline to a row: its two ends, and its slope, in every encoder and sharing."""

import pytest
import torch

from src.analysis.explanations.path import EMPTY, EmbeddingPath, InputPath
from src.batch import InputShape
from src.cli.explaining.layout import list_features
from src.errors import UserError
from tests.analysis.explanations.made import explain, make_model, make_rows, sum_outputs
from tests.models.test_matrix import ENCODERS, NOT_RECURRENT, SHARINGS, bert

assert bert  # a fixture


def cases():
    """Every encoder under one network and several, every sharing over a table; over a text slow."""
    for encoder in (*ENCODERS, "Pretrained"):
        for sharing in SHARINGS:
            if encoder == "graphs" or (encoder == "BiLSTM" and sharing in NOT_RECURRENT):
                continue
            if sharing in ("HardSharing", "Separate") or encoder == "table":
                yield pytest.param(encoder, sharing)
            elif encoder == "Transformer":
                yield pytest.param(encoder, sharing, marks=pytest.mark.slow)


@pytest.mark.filterwarnings("ignore:Sluice. orthogonality .* has no matrix of any stage")
@pytest.mark.parametrize(("encoder", "sharing"), list(cases()))
def test_ends_and_slope_of_the_path(encoder, sharing, request):
    make, shape = request.getfixturevalue("bert") if encoder == "Pretrained" else ENCODERS[encoder]
    model = make_model(make, shape, SHARINGS[sharing])
    inputs, path = make_rows(shape)
    own = explain(model, inputs, path)
    rows = torch.arange(len(path))
    ones = torch.ones(len(path), len(path.features), dtype=torch.float64)

    # at the row the network puts out the same bits
    assert torch.equal(own.at(ones, rows), sum_outputs(own.plain, None))

    # at the baseline it puts out what it does for a row like this, with the padding of the row
    base = {}
    given = {"dense": inputs} if path.bare else inputs
    for key, values in given.items():
        base[key] = path.baselines[key].expand(values.shape)
        if key.rpartition("/")[2] in ("tokens", "parts"):
            base[key] = base[key].where(values > 0, 0)
    expected = model(base["dense"] if path.bare else base)["number"]
    torch.testing.assert_close(
        own.at(0 * ones, rows), sum_outputs(expected, None), rtol=1e-10, atol=1e-12
    )

    # between them, its slope is the difference quotient
    draw = torch.Generator().manual_seed(3)
    middle = 0.2 + 0.6 * torch.rand(ones.shape, generator=draw, dtype=torch.float64)
    direction = torch.randn(ones.shape, generator=draw, dtype=torch.float64)
    middle.requires_grad_()
    (slope,) = torch.autograd.grad(own.at(middle, rows).sum(), middle)
    step = 1e-6 * direction
    with torch.no_grad():
        quotient = (own.at(middle + step, rows) - own.at(middle - step, rows)) / 2e-6
    torch.testing.assert_close((slope * direction).sum(1), quotient, rtol=1e-4, atol=1e-6)


def test_no_word_is_an_embedding_of_zeros_and_padding_stays():
    shape = InputShape(tokens=9)
    inputs = {"tokens": torch.tensor([[3, 5, 0], [2, 0, 0]])}
    features = list_features(shape, inputs, coarse=False)
    path = InputPath(inputs, {"tokens": torch.full((1, 1), EMPTY)}, features)
    assert path.find_real().tolist() == [[True, True, False], [True, False, False]]
    table = torch.nn.Embedding(9, 4)
    positions = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.0]])
    points, mode = path.at(positions, torch.arange(2))
    assert ((points["tokens"] > 0) == (inputs["tokens"] > 0)).all()
    with mode:
        found = table(points["tokens"])
    assert torch.equal(found[0, 0], torch.zeros(4))
    torch.testing.assert_close(found[0, 1], table.weight[5] / 2)
    assert torch.equal(found[0, 2], table.weight[0])
    assert torch.equal(found[1, 0], table.weight[2])


def test_numbers_that_a_network_puts_in_itself_stay():
    mode = EmbeddingPath()
    codes, zeros = torch.tensor([4, 6]), torch.zeros(2)
    pointers = mode.add(codes, torch.full((2,), EMPTY), zeros, pads=False)
    table = torch.nn.Embedding(9, 4)
    with mode:
        found = table(torch.cat([pointers, torch.tensor([1])]))
        plain = table(torch.tensor([1, 2]))
    assert torch.equal(found[:2], torch.zeros(2, 4))
    assert torch.equal(found[2], table.weight[1])
    assert torch.equal(plain, table.weight[1:3])


def test_features_come_from_other_rows():
    inputs = {
        "dense": torch.arange(6.0).view(3, 2),
        "categorical": torch.tensor([[1], [2], [0]]),
    }
    shape = InputShape((2,), (4,), columns=("age", "age", "job"))
    features = list_features(shape, inputs, coarse=False)
    path = InputPath(inputs, {}, features)
    found = path.exchange(torch.tensor([[2, 0], [1, 2], [0, 1]]))
    assert found["dense"].tolist() == [[4, 5], [2, 3], [0, 1]]
    assert found["categorical"].tolist() == [[1], [0], [2]]


def test_values_of_features_are_summed_by_column():
    shape = InputShape(members=(("t", InputShape((2,))), ("text", InputShape(tokens=5))))
    inputs = {"t/dense": torch.zeros(1, 2), "text/tokens": torch.ones(1, 3, dtype=torch.long)}
    features = list_features(shape, inputs, coarse=False)
    assert features.columns == ("feature 1", "feature 2", "text")
    assert features.sum_by_column(torch.tensor([[1.0, 2, 4, 8, 16]])).tolist() == [[1, 2, 28]]


def test_graphs_are_refused():
    shape = InputShape(nodes=3, edges=2)
    with pytest.raises(UserError, match="no attributions for graphs"):
        list_features(shape, shape.example(), coarse=False)
