import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet
from src.models.encoders.stem import VectorStem, embedding_size

TABLE = InputShape((3,), (4, 2))


def inputs_for(shape, rows, seed=0):
    rng = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, *shape.dense, generator=rng)
    if not shape.categories:
        return dense
    columns = [torch.randint(n, (rows,), generator=rng) for n in shape.categories]
    return {"dense": dense, "categorical": torch.stack(columns, 1)}


def some(inputs, rows):
    return (
        inputs[rows]
        if isinstance(inputs, torch.Tensor)
        else {key: value[rows] for key, value in inputs.items()}
    )


@pytest.mark.parametrize(
    ("encoder", "stages", "features"),
    [
        (MLP(InputShape((5,)), width=16), 3, 16),
        (MLP(InputShape((1, 4, 4)), width=8, depth=0), 1, 8),
        (MLP(TABLE, width=12, depth=3), 4, 12),
        (MLP(InputShape((0,), (5,)), width=4, depth=1), 2, 4),
        (ConvNet(InputShape((1, 8, 8)), width=8), 3, 32),
        (ConvNet(InputShape((3, 5, 7)), width=4, depth=1), 1, 4),
        (ConvNet(InputShape((2, 9, 9)), width=16, depth=2), 2, 32),
    ],
)
def test_shapes_stages_and_independence_of_rows(encoder, stages, features):
    encoder.eval()
    assert (len(encoder.stages), encoder.features) == (stages, features)
    inputs = inputs_for(encoder.shape, 6)
    z = encoder(inputs)
    assert z.shape == (6, features)
    x = inputs
    for stage in encoder.stages:
        x = stage(x)
    assert torch.equal(x, z)
    rows = torch.tensor([4, 1])
    np.testing.assert_allclose(encoder(some(inputs, rows)).detach(), z[rows].detach(), atol=1e-6)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in encoder.modules())


def test_the_features_depend_on_every_input():
    encoder = MLP(TABLE, width=8)
    inputs = inputs_for(TABLE, 1)
    inputs["dense"].requires_grad_()
    encoder(inputs).square().sum().backward()
    assert inputs["dense"].grad.abs().min() > 0
    other = {
        "dense": inputs["dense"],
        "categorical": (inputs["categorical"] + 1) % torch.tensor([4, 2]),
    }
    assert (encoder(other) - encoder(inputs)).abs().max() > 1e-3


def test_stages_of_a_convnet_halve_the_image_and_double_the_channels():
    encoder = ConvNet(InputShape((3, 16, 16)), width=8, depth=3)
    x = inputs_for(encoder.shape, 2)
    shapes = []
    for stage in encoder.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 16, 16), (16, 8, 8), (32,)]


def test_a_residual_block_of_zero_weights_is_the_identity():
    encoder = MLP(InputShape((5,)), width=4, depth=1)
    block = encoder.stages[-1][0]
    nn.init.zeros_(block.body[-1].weight)
    nn.init.zeros_(block.body[-1].bias)
    x = torch.randn(3, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("kind", [MLP, ConvNet])
def test_initial_weights_come_from_torchs_generator_alone(kind):
    def weights():
        torch.manual_seed(3)
        np.random.seed(None)
        return torch.cat([p.flatten() for p in kind(InputShape((1, 8, 8)), width=8).parameters()])

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "message"),
    [
        (
            ConvNet,
            InputShape((5,)),
            {},
            r"the data gives inputs of shape \(5,\): use --model.encoder MLP",
        ),
        (ConvNet, InputShape((3, 8, 8), (4,)), {}, "and 1 categorical columns"),
        (
            ConvNet,
            InputShape((1, 8, 8)),
            {"width": 12},
            "width 12 is neither 1, 2, 4 nor a multiple of 8",
        ),
        (ConvNet, InputShape((1, 8, 8)), {"width": 6}, "width 6 is neither"),
        (
            ConvNet,
            InputShape(tokens=5),
            {},
            "the data gives sequences of tokens: use --model.encoder Transformer",
        ),
        (MLP, InputShape(tokens=5), {}, "sequences of tokens: use --model.encoder Transformer"),
        (ConvNet, InputShape((1, 8, 8)), {"depth": 0}, "depth 0"),
        (ConvNet, InputShape((1, 8, 8)), {"width": 0}, "width 0"),
        (MLP, InputShape((5,)), {"width": 0}, "width 0"),
        (MLP, InputShape((5,)), {"depth": -1}, "depth -1"),
    ],
)
def test_bad_settings_are_named(kind, shape, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        kind(shape, **settings)
    assert kind.__name__ in str(caught.value)


@settings(deadline=None, max_examples=30)
@given(
    dense=st.integers(0, 4),
    categories=st.lists(st.integers(1, 30), max_size=4),
    rows=st.integers(0, 5),
)
def test_vector_stem_puts_columns_side_by_side(dense, categories, rows):
    shape = InputShape((dense,), tuple(categories))
    stem = VectorStem(shape)
    assert stem.features == dense + sum(embedding_size(n) for n in categories)
    table = {
        "dense": torch.randn(rows, dense),
        "categorical": torch.zeros(rows, len(categories), dtype=torch.long),
    }
    for i, n in enumerate(categories):
        table["categorical"][:, i] = torch.randint(n, (rows,))
    x = stem(table)
    assert x.shape == (rows, stem.features)
    for row in range(rows):
        parts = [table["dense"][row]]
        parts += [e.weight[table["categorical"][row, i]] for i, e in enumerate(stem.embeddings)]
        assert torch.equal(x[row], torch.cat(parts))


def test_vector_stem_flattens_images():
    x = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(VectorStem(InputShape((3, 2, 2)))(x), x.view(2, 12))


@pytest.mark.parametrize(("vocabulary", "size"), [(1, 2), (2, 2), (10, 6), (100, 21), (10_000, 50)])
def test_embedding_size(vocabulary, size):
    assert embedding_size(vocabulary) == size
