from functools import partial

import pytest
import torch
from torch import nn

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet, Encoder
from src.models.sharing.gates import GateInput, Gates, make_example, make_table, mix, pool_states
from src.models.sharing.sharing import check_owners

TABLE, IMAGE, WORDS = InputShape((3,), (4, 2)), InputShape((2, 8, 8)), InputShape(tokens=11)


class Put(nn.Module):
    """Puts a skip aside for a later stage: (x, skip, mask) from tokens or from a state."""

    def __init__(self, tokens, width):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.side = nn.Linear(width, 2)

    def forward(self, inputs):
        tokens = inputs["tokens"]
        x = self.embedding(tokens)
        return x, self.side(x), tokens > 0


class Middle(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, state):
        x, skip, mask = state
        return torch.tanh(self.linear(x)) * mask[..., None], skip, mask


class Take(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width + 2, width)

    def forward(self, state):
        x, skip, mask = state
        return torch.tanh(self.linear(torch.cat([x, skip], -1))) * mask[..., None]


class Riding(Encoder):
    """Tokens -> features of each, with a skip connection and a mask that ride along."""

    def __init__(self, shape=WORDS, width=4):
        super().__init__(shape)
        self.stages = nn.Sequential(
            Put(shape.tokens, width), Middle(width), Middle(width), Take(width)
        )
        self.features = width


ENCODERS = {
    "vector": partial(MLP, InputShape((5,)), width=6),
    "table": partial(MLP, TABLE, width=6),
    "image": partial(ConvNet, IMAGE, width=4, depth=2),
    "words": Riding,
}


def rows(inputs, chosen):
    return (
        inputs[chosen]
        if isinstance(inputs, torch.Tensor)
        else {key: value[chosen] for key, value in inputs.items()}
    )


def doubled(inputs):
    if isinstance(inputs, torch.Tensor):
        return inputs.double()
    return {key: x.double() if x.is_floating_point() else x for key, x in inputs.items()}


def example(encoder, count=6):
    return doubled(encoder().shape.example(count))


def check_contract(make):
    """Checks owners, gradients for all, rows by themselves, and a resumed state."""
    for kind, encoder in ENCODERS.items():
        inputs = example(encoder)
        for tasks in (["a", "b", "c"], ["a"]):
            torch.manual_seed(1)
            sharing = make(encoder, tasks).double()
            check_owners(sharing, inputs)
            z = torch.stack(list(sharing(inputs).values()))
            assert z.shape[-1] == sharing.feature_sizes["a"]
            loss = (z * torch.randn(z.shape, dtype=z.dtype)).sum()
            missing = [
                name
                for name, p in sharing.named_parameters()
                if torch.autograd.grad(loss, p, None, True, allow_unused=True)[0] is None
            ]
            assert missing == [], (kind, missing)

            sharing.eval()
            found = sharing(inputs)
            chosen = torch.tensor([4, 1])
            alone = sharing(rows(inputs, chosen))
            other = make(encoder, tasks).double().eval()
            other.load_state_dict(sharing.state_dict())
            for task, same in other(inputs).items():
                torch.testing.assert_close(alone[task], found[task][chosen], rtol=1e-10, atol=1e-12)
                assert torch.equal(same, found[task])


def short(inputs):
    """The same sequences, with one place more that is filled up."""
    return {key: nn.functional.pad(x, (0, 1)) for key, x in inputs.items()}


@pytest.mark.parametrize(
    ("shape", "features"),
    [
        (InputShape((5,)), 5),
        (InputShape((4, 3)), 12),
        (InputShape((2, 8, 8)), 128),
        (InputShape((3, 20, 5)), 120),
        (TABLE, 3 + 3 + 2),
        (InputShape((0,), (4,)), 3),
        (WORDS, 6),
        (InputShape(tokens=11, parts=7), 6),
    ],
)
def test_a_gate_reads_a_vector_of_every_kind_of_input(shape, features):
    read = GateInput(shape)
    assert read.features == features
    x = read(shape.example(3))
    assert x.shape == (3, features)
    assert torch.equal(read(rows(shape.example(3), [2]))[0], x[2])


def test_images_are_averaged_and_flattened():
    x = torch.randn(2, 3, 16, 6, dtype=torch.float64)
    expected = torch.stack(
        [
            torch.stack([x[..., 2 * i : 2 * i + 2, j].mean(-1) for j in range(6)], -1)
            for i in range(8)
        ],
        -2,
    )
    torch.testing.assert_close(GateInput(InputShape((3, 16, 6)))(x), expected.flatten(1))


def test_sequences_are_averaged_over_real_tokens():
    read = GateInput(WORDS).double()
    tokens = torch.tensor([[3, 5, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]])
    v = read.stem.weight
    expected = torch.stack([(v[3] + v[5]) / 2, v[7], torch.zeros(6, dtype=torch.float64)])
    torch.testing.assert_close(read({"tokens": tokens}), expected)
    torch.testing.assert_close(read(short({"tokens": tokens})), expected)


def test_gates_are_linear_and_nearly_even_at_first():
    torch.manual_seed(0)
    gates = Gates(3, 4, 100)
    x = torch.randn(50, 100)
    logits = gates(x)
    assert logits.shape == (50, 3, 4)
    assert 0.08 < logits.std() < 0.12
    own = torch.randn(3, 50, 100)
    for t in range(3):
        torch.testing.assert_close(logits[:, t], x @ gates.weight[t].T + gates.bias[t])
        torch.testing.assert_close(gates(own)[:, t], own[t] @ gates.weight[t].T + gates.bias[t])
    assert torch.equal(Gates(3, 4, 0)(None), torch.zeros(3, 4))
    assert [name for name, _ in Gates(3, 4, 0).named_parameters()] == ["bias"]


def test_states_are_mixed_with_what_rides_along():
    x, skip = (
        torch.randn(3, 5, 4, dtype=torch.float64),
        torch.randn(3, 5, 2, 7, 7, dtype=torch.float64),
    )
    mask = torch.tensor([True, False, True, True, False]).expand(3, 5)
    size = torch.zeros(3, 5, 0, 7, 7, dtype=torch.float64)
    per_row, fixed = torch.rand(5, 2, 3, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    for weights in (per_row, fixed):
        mixed = mix(weights, (x, skip, mask, size))
        assert [tuple(part.shape) for part in mixed] == [
            (2, 5, 4),
            (2, 5, 2, 7, 7),
            (2, 5),
            (2, 5, 0, 7, 7),
        ]
        assert torch.equal(mixed[2], mask[:2])
        for t in range(2):
            for b in range(5):
                w = weights[b, t] if weights.ndim == 3 else weights[t]
                torch.testing.assert_close(mixed[0][t, b], sum(w[e] * x[e, b] for e in range(3)))
                torch.testing.assert_close(mixed[1][t, b], sum(w[e] * skip[e, b] for e in range(3)))


def test_places_are_averaged():
    x = torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(pool_states(x, True, x), x.mean((-2, -1)))
    torch.testing.assert_close(pool_states(x, False, x), x.mean((2, 3)))
    torch.testing.assert_close(pool_states(x[:, :, 0, 0], False, x), x[:, :, 0, 0])
    tokens = torch.tensor([[1, 2, 0, 0], [3, 4, 5, 6], [7, 0, 0, 0]])
    found = pool_states(x[..., 0, :], False, {"tokens": tokens})
    for b, length in enumerate((2, 4, 1)):
        torch.testing.assert_close(found[:, b], x[:, b, :length, 0].mean(1))
    torch.testing.assert_close(
        pool_states(x[..., 0, :], False, {"tokens": tokens[:, :2]}), x[..., 0, :].mean(2)
    )


def test_an_example_encoder_leaves_the_initial_weights_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert make_example(ENCODERS["vector"]).shape == InputShape((5,))
    assert torch.equal(torch.rand(2), expected)


def test_a_table_has_names():
    frame = make_table(torch.tensor([[1, 2], [3, 4]]), ["a", "b"], ["x", "y"])
    assert frame.loc["b", "x"] == 3
    assert frame.to_numpy().dtype.kind == "i"
