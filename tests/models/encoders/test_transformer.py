import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.batch import InputShape
from src.models.dropout import Dropout
from src.models.encoders.transformer import Block, Pieces, Transformer, attention_mask
from src.models.sharing import HardSharing, Separate
from src.models.sharing.sharing import check_owners

TOKENS, PARTS, DENSE = InputShape(tokens=13), InputShape(tokens=13, parts=7), InputShape((6, 3))
TEXT = torch.tensor([[3, 12, 7, 1, 9], [5, 0, 0, 0, 0], [2, 2, 8, 0, 0]])


def inputs_of(shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    if not shape.tokens:
        return torch.randn(3, *shape.dense, generator=rng, dtype=torch.float64)
    inputs = {"tokens": TEXT}
    if shape.parts:
        parts = torch.randint(1, shape.parts, (3, 5, 4), generator=rng)
        parts[:, :, 2:] *= torch.randint(2, (3, 5, 1), generator=rng)
        inputs["parts"] = parts * (TEXT > 0)[..., None]
    return inputs


def waves(length, width):
    table = np.zeros((length, width))
    for s in range(length):
        for i in range(width):
            angle = s / 10_000 ** ((i - i % 2) / width)
            table[s, i] = np.cos(angle) if i % 2 else np.sin(angle)
    return torch.tensor(table)


def kind_by_kind(p, heads):
    """Sorts a block's queries, keys and values, which it has by heads, as torch has them."""
    return p.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


def torch_layer(block):
    """torch's own layer with the weights of a block."""
    width = block.norm.weight.numel()
    layer = nn.TransformerEncoderLayer(
        width,
        block.heads,
        4 * width,
        dropout=0.0,
        activation="gelu",
        norm_first=True,
        batch_first=True,
        dtype=torch.float64,
    )
    qkv = block.queries_keys_values
    names = {
        "self_attn.in_proj_weight": kind_by_kind(qkv.weight, block.heads),
        "self_attn.in_proj_bias": kind_by_kind(qkv.bias, block.heads),
        "self_attn.out_proj.weight": block.out[0].weight,
        "self_attn.out_proj.bias": block.out[0].bias,
        "norm1.weight": block.norm.weight,
        "norm1.bias": block.norm.bias,
        "norm2.weight": block.mlp[0].weight,
        "norm2.bias": block.mlp[0].bias,
        "linear1.weight": block.mlp[1].weight,
        "linear1.bias": block.mlp[1].bias,
        "linear2.weight": block.mlp[4].weight,
        "linear2.bias": block.mlp[4].bias,
    }
    layer.load_state_dict(names)
    return layer


def stirred(module):
    """No weight stays at 0 or 1, where mistakes would hide."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.2 * torch.randn(p.shape, dtype=p.dtype))
    return module


@pytest.mark.parametrize("shape", [TOKENS, DENSE], ids=["tokens", "dense"])
@pytest.mark.parametrize("pool", ["none", "mean"])
def test_equals_layers_of_torch_with_the_same_weights(shape, pool):
    torch.manual_seed(0)
    encoder = stirred(Transformer(shape, width=12, depth=3, heads=3, pool=pool).double())
    inputs = inputs_of(shape)
    first = encoder.stages[0][0]
    if shape.tokens:
        mask = TEXT > 0
        x = first.words.weight[TEXT] * 12**0.5 + waves(5, 12)
    else:
        mask = torch.ones(3, 6, dtype=torch.bool)
        x = inputs @ first.weight.T + first.bias + waves(6, 12)
    for block in (encoder.stages[1], encoder.stages[2], encoder.stages[3][0]):
        x = torch_layer(block)(x, src_key_padding_mask=~mask)
    norm = encoder.stages[3][1].norm
    x = F.layer_norm(x, (12,), norm.weight, norm.bias) * mask[..., None]
    expected = x if pool == "none" else x.sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(
        encoder(inputs), expected, atol=1e-7, rtol=0
    )  # positions are float32


def test_parts_are_a_convolution_with_the_largest_answer():
    torch.manual_seed(0)
    parts = Pieces(7, 5).double()
    ids = torch.tensor([[[4, 2, 6, 3], [5, 0, 0, 0]], [[1, 1, 0, 0], [0, 0, 0, 0]]])
    found = parts(ids)
    for b, s in np.ndindex(2, 2):
        real = [int(i) for i in ids[b, s] if i]
        padded = [
            torch.zeros(32, dtype=torch.float64),
            *(parts.embedding.weight[i] for i in real),
            torch.zeros(32).double(),
        ]
        answers = [parts.filters(torch.cat(padded[k : k + 3])) for k in range(len(real))]
        expected = torch.stack(answers).amax(0) if real else torch.zeros(5, dtype=torch.float64)
        torch.testing.assert_close(found[b, s], expected, atol=1e-12, rtol=0)
    tokens = stirred(Transformer(PARTS, width=8, heads=2).double()).stages[0][0]
    x, mask = tokens(inputs_of(PARTS))
    expected = tokens.words(TEXT) * 8**0.5 + tokens.parts(inputs_of(PARTS)["parts"])
    torch.testing.assert_close(x, expected)
    assert torch.equal(mask, TEXT > 0)


@pytest.mark.parametrize("pool", ["none", "mean"])
def test_more_padding_changes_nothing(pool):
    torch.manual_seed(0)
    encoder = stirred(Transformer(PARTS, width=12, depth=3, heads=2, pool=pool).double())
    inputs = inputs_of(PARTS)
    longer = {
        "tokens": F.pad(inputs["tokens"], (0, 4)),
        "parts": F.pad(inputs["parts"], (0, 3, 0, 4)),
    }
    z, more = encoder(inputs), encoder(longer)
    if pool == "none":
        assert not more[:, 5:].any()
        more = more[:, :5]
    torch.testing.assert_close(z, more, atol=1e-12, rtol=0)
    state = longer
    for stage in encoder.stages[:-1]:
        state = stage(state)
        assert torch.equal(state[1], longer["tokens"] > 0)
        assert not state[0][~state[1]].any()


def test_what_fills_up_never_matters():
    torch.manual_seed(0)
    encoder = stirred(Transformer(PARTS, width=8, depth=2, heads=2).double())
    z = encoder(inputs_of(PARTS))
    z.square().sum().backward()
    tokens = encoder.stages[0][0]
    for embedding in (tokens.words, tokens.parts.embedding):
        assert not embedding.weight.grad[0].any()
        assert embedding.weight.grad[1:].any()
        with torch.no_grad():
            embedding.weight[0] = 1e6
    assert torch.equal(encoder(inputs_of(PARTS)), z)


@pytest.mark.parametrize("pool", ["none", "mean"])
def test_a_row_without_tokens_is_finite_and_leaves_the_others_alone(pool):
    assert attention_mask(torch.tensor([[True, False], [False, False]])).tolist() == [
        [True, False],
        [True, True],
    ]
    torch.manual_seed(0)
    encoder = Transformer(PARTS, width=8, depth=2, heads=2, pool=pool).double()
    inputs = {name: torch.cat([x, torch.zeros_like(x[:1])]) for name, x in inputs_of(PARTS).items()}
    z = encoder(inputs)
    assert not z[3].any()
    torch.testing.assert_close(z[:3], encoder(inputs_of(PARTS)), atol=1e-12, rtol=0)
    z.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("shape", [TOKENS, PARTS, DENSE], ids=["tokens", "parts", "dense"])
@pytest.mark.parametrize("pool", ["none", "mean"])
def test_every_parameter_gets_a_gradient_and_rows_are_independent(shape, pool):
    torch.manual_seed(0)
    encoder = Transformer(shape, width=8, depth=2, heads=2, pool=pool).double()
    inputs = inputs_of(shape)
    z = encoder(inputs)
    (z * torch.randn(z.shape, dtype=z.dtype)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if not p.grad.any()] == []
    rows = torch.tensor([2, 0])
    some = (
        inputs[rows]
        if isinstance(inputs, torch.Tensor)
        else {name: x[rows] for name, x in inputs.items()}
    )
    torch.testing.assert_close(encoder(some), z[rows], atol=1e-12, rtol=0)


def test_the_order_of_tokens_matters():
    torch.manual_seed(0)
    encoder = Transformer(TOKENS, width=8, depth=1, heads=2, pool="mean")
    a, b = encoder({"tokens": torch.tensor([[3, 4, 5], [5, 4, 3]])})
    assert (a - b).abs().max() > 1e-3


def test_initial_weights_come_from_torchs_generator_alone():
    def weights(seed):
        torch.manual_seed(seed)
        np.random.seed(None)
        return torch.cat(
            [p.flatten() for p in Transformer(PARTS, width=8, depth=2, heads=2).parameters()]
        )

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))
    words = Transformer(InputShape(tokens=500), width=64).stages[0][0].words.weight
    assert words.std().item() == pytest.approx(1 / 8, rel=0.05)


def test_dropout_is_that_of_the_house_and_nothing_else_is_random():
    torch.manual_seed(0)
    encoder = Transformer(PARTS, width=8, depth=2, heads=2, dropout=0.5)
    kinds = [type(m) for m in encoder.modules() if isinstance(m, nn.Dropout)]
    assert kinds == [Dropout] * 7
    assert torch.equal(encoder.eval()(inputs_of(PARTS)), encoder(inputs_of(PARTS)))
    encoder.train()
    z = []
    for rows in (3, 2):
        torch.manual_seed(5)
        z.append(encoder({name: x[:rows] for name, x in inputs_of(PARTS).items()}))
    torch.testing.assert_close(z[0][:2], z[1])  # a row's mask is its own
    for m in encoder.modules():
        if isinstance(m, Dropout):
            m.p = 0.0
    before = torch.get_rng_state()
    encoder(inputs_of(PARTS))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_block_of_some_rows_is_the_first_rows_of_a_whole_one():
    torch.manual_seed(0)
    block = stirred(Block(12, 3, 0.0).double())
    x = torch.randn(2, 6, 12, dtype=torch.float64)
    whole = block(x)
    block.rows = 2
    torch.testing.assert_close(block(x), whole[:, :2], atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [TOKENS, PARTS, DENSE], ids=["tokens", "parts", "dense"])
@pytest.mark.parametrize("pool", ["none", "mean"])
def test_layouts_and_sharing(shape, pool):
    def make():
        return Transformer(shape, width=8, depth=2, heads=2, pool=pool)

    layouts = make().layouts()
    assert [(found.channels, found.image, found.dims) for found in layouts] == [
        (8, False, 3),
        (8, False, 3),
        (8, False, 3 if pool == "none" else 2),
    ]
    tasks = ["a", "b", "c"]
    copies = Separate(make, tasks)
    assert copies.encoders.stages is not None  # three of them run as one
    for sharing in (
        HardSharing(make, tasks),
        copies,
        HardSharing(make, tasks, until=1),
        HardSharing(make, tasks, until=2),
    ):
        check_owners(sharing, shape.example(4))


def test_copies_that_run_as_one_are_what_each_is():
    def make():
        return Transformer(PARTS, width=8, depth=2, heads=2)

    torch.manual_seed(0)
    each = [make().double() for _ in range(3)]
    torch.manual_seed(0)
    together = Separate(make, ["a", "b", "c"]).double()
    inputs = inputs_of(PARTS, seed=1)
    for encoder, z in zip(each, together(inputs).values(), strict=True):
        torch.testing.assert_close(z, encoder(inputs), atol=1e-10, rtol=0)
    state, apart = inputs, False
    for k in range(3):  # stage by stage too: each encoder has its own mask
        state, apart = together.encoders(state, apart, k, k + 1), True
        assert k == 2 or [x.shape for x in state] == [(3, 3, 5, 8), (3, 3, 5)]
    torch.testing.assert_close(
        state, torch.stack([encoder(inputs) for encoder in each]), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        (InputShape((5,)), {}, r"the data gives inputs of shape \(5,\): use --model.encoder MLP"),
        (InputShape((3, 8, 8)), {}, r"inputs of shape \(3, 8, 8\): use --model.encoder ConvNet"),
        (
            InputShape((3,), (4, 2)),
            {},
            "and 2 categorical columns: use --model.encoder TabularTransformer",
        ),
        (TOKENS, {"width": 10}, "width 10 is not a multiple of heads 4"),
        (TOKENS, {"width": 0}, "width 0"),
        (TOKENS, {"depth": 0}, "depth 0"),
        (TOKENS, {"heads": 0}, "heads 0"),
        (TOKENS, {"dropout": 1.0}, r"dropout 1.0 is outside \[0, 1\)"),
        (TOKENS, {"pool": "max"}, "pool max is neither none nor mean"),
    ],
)
def test_bad_settings_are_named(shape, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        Transformer(shape, **settings)
    assert str(caught.value).startswith("Transformer")
