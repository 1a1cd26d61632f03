import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rtdl_revisiting_models import FTTransformer
from torch import nn

from src.batch import InputShape
from src.models.encoders.tabular_transformer import TabularTransformer
from src.models.sharing import HardSharing, Separate
from src.models.sharing.sharing import check_owners
from tests.models.encoders.test_transformer import kind_by_kind

MIXED, NUMBERS, CATEGORIES = InputShape((3,), (4, 2)), InputShape((3,)), InputShape((0,), (5, 3))
SHAPES = pytest.mark.parametrize(
    "shape", [MIXED, NUMBERS, CATEGORIES], ids=["mixed", "numbers", "categories"]
)


def inputs_of(shape, rows=5):
    found = shape.example(rows)
    return (
        found.double()
        if isinstance(found, torch.Tensor)
        else {**found, "dense": found["dense"].double()}
    )


def authors(encoder):
    """The authors' model with the same weights, with GELU instead of ReLU."""
    shape, width = encoder.shape, encoder.features
    blocks = [*encoder.stages[1:-1], encoder.stages[-1][0]]
    model = FTTransformer(
        n_cont_features=sum(shape.dense),
        cat_cardinalities=list(shape.categories),
        d_out=None,
        n_blocks=len(blocks),
        d_block=width,
        attention_n_heads=blocks[0].heads,
        attention_dropout=0.0,
        ffn_d_hidden_multiplier=4.0,
        ffn_dropout=0.0,
        ffn_activation="ReLU",
        residual_dropout=0.0,
    )
    first = encoder.stages[0]
    weights = {"cls_embedding.weight": first.cls}
    for name, theirs in (("dense", "cont_embeddings"), ("categorical", "cat_embeddings")):
        if name in first.columns:
            weights |= {f"{theirs}.{key}": p for key, p in first.columns[name].named_parameters()}
    for k, block in enumerate(blocks):
        model.backbone.blocks[k]["ffn"].activation = nn.GELU()
        qkv = block.queries_keys_values
        qkv_weight, qkv_bias = (
            kind_by_kind(p, block.heads).chunk(3) for p in (qkv.weight, qkv.bias)
        )
        for name, weight, bias in zip("qkv", qkv_weight, qkv_bias, strict=True):
            weights |= {f"backbone.blocks.{k}.attention.W_{name}.weight": weight}
            weights |= {f"backbone.blocks.{k}.attention.W_{name}.bias": bias}
        parts = {
            "attention.W_out": block.out[0],
            "ffn.linear1": block.mlp[1],
            "ffn.linear2": block.mlp[4],
        }
        parts |= {"ffn_normalization": block.mlp[0]} | (
            {"attention_normalization": block.norm} if k else {}
        )
        for name, module in parts.items():
            weights |= {
                f"backbone.blocks.{k}.{name}.{key}": p for key, p in module.named_parameters()
            }
    model.double().load_state_dict(weights)
    return model


@SHAPES
@pytest.mark.parametrize("depth", [1, 3])
def test_equals_the_authors_model(shape, depth):
    torch.manual_seed(0)
    encoder = TabularTransformer(shape, width=12, depth=depth, heads=3).double()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.2 * torch.randn(p.shape, dtype=p.dtype))
    inputs = inputs_of(shape)
    table = {"dense": inputs} if isinstance(inputs, torch.Tensor) else inputs
    cls = authors(encoder)(table["dense"] if sum(shape.dense) else None, table.get("categorical"))
    norm = encoder.stages[-1][1].norm
    z = encoder(inputs)
    assert z.shape == (5, 12)
    torch.testing.assert_close(
        z, F.layer_norm(cls, (12,), norm.weight, norm.bias), atol=1e-10, rtol=0
    )


def test_tokens_are_columns():
    torch.manual_seed(0)
    first = TabularTransformer(MIXED, width=8).double().stages[0]
    table = {
        "dense": torch.tensor([[2.0, 0.0, -1.0]]).double(),
        "categorical": torch.tensor([[3, 1]]),
    }
    tokens = first(table)[0]
    numbers, categories = first.columns["dense"], first.columns["categorical"]
    expected = [first.cls]
    expected += [table["dense"][0, j] * numbers.weight[j] + numbers.bias[j] for j in range(3)]
    expected += [
        categories.embeddings[j].weight[i] + categories.bias[j] for j, i in enumerate([3, 1])
    ]
    torch.testing.assert_close(tokens, torch.stack(expected))
    assert all(p.abs().max() <= 8**-0.5 for p in first.parameters())


@SHAPES
@pytest.mark.parametrize("depth", [1, 3])
def test_every_parameter_gets_a_gradient_and_rows_are_independent(shape, depth):
    torch.manual_seed(0)
    encoder = TabularTransformer(shape, width=8, depth=depth, heads=2).double()
    inputs = inputs_of(shape)
    z = encoder(inputs)
    (z * torch.randn(z.shape, dtype=z.dtype)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if not p.grad.any()] == []
    rows = torch.tensor([3, 0])
    some = (
        inputs[rows]
        if isinstance(inputs, torch.Tensor)
        else {name: x[rows] for name, x in inputs.items()}
    )
    torch.testing.assert_close(encoder(some), z[rows], atol=1e-12, rtol=0)


def test_the_last_block_computes_one_token():
    encoder = TabularTransformer(MIXED, width=8, depth=2, heads=2)
    state = inputs = MIXED.example(4)
    shapes = []
    for stage in [*encoder.stages[:2], encoder.stages[2][0]]:
        state = stage(state)
        shapes.append(tuple(state.shape))
    assert shapes == [(4, 6, 8), (4, 6, 8), (4, 1, 8)]
    assert torch.equal(encoder.stages[2][1](state), encoder(inputs))


@SHAPES
def test_layouts_and_sharing(shape):
    def make():
        return TabularTransformer(shape, width=8, depth=2, heads=2)

    found = [(layout.channels, layout.image, layout.dims) for layout in make().layouts()]
    assert found == [(8, False, 3), (8, False, 3), (8, False, 2)]
    tasks = ["a", "b", "c"]
    branches = HardSharing(make, tasks, until=1)
    assert branches.branches.stages is not None  # three of them run as one
    for sharing in (HardSharing(make, tasks), Separate(make, tasks), branches):
        check_owners(sharing, shape.example(4))


def test_initial_weights_come_from_torchs_generator_alone():
    def weights(seed):
        torch.manual_seed(seed)
        np.random.seed(None)
        return torch.cat([p.flatten() for p in TabularTransformer(MIXED, width=8).parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        (
            InputShape(tokens=9),
            {},
            "the data gives sequences of tokens: use --model.encoder Transformer",
        ),
        (InputShape((6, 3)), {}, r"inputs of shape \(6, 3\): use --model.encoder Transformer"),
        (InputShape((3, 8, 8)), {}, r"inputs of shape \(3, 8, 8\): use --model.encoder ConvNet"),
        (MIXED, {"width": 20}, "width 20 is not a multiple of heads 8"),
        (MIXED, {"depth": 0}, "depth 0"),
        (MIXED, {"dropout": -0.1}, r"dropout -0.1 is outside \[0, 1\)"),
    ],
)
def test_bad_settings_are_named(shape, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        TabularTransformer(shape, **settings)
    assert str(caught.value).startswith("TabularTransformer")
