import pytest
import torch
from torch import nn

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet, Encoder
from src.models.encoders.encoder import top, with_top
from src.models.sharing import Separate, check_owners
from src.models.sharing.cross_stitch import CrossStitch
from src.models.sharing.feature_exchange import mostly_own

TASKS = ["a", "b", "c"]


class Skip(nn.Module):
    """x -> (tanh(W x), x)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x).tanh(), x


class Close(nn.Module):
    """(x, skip) -> W x + skip."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, state):
        x, skip = state
        return self.linear(x) + skip


class Skipping(Encoder):
    """Its second stage puts aside what it reads, for the third."""

    def __init__(self):
        super().__init__(InputShape((5,)))
        self.stages = nn.Sequential(nn.Linear(5, 4), Skip(), Close())
        self.features = 4


class Embed(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)

    def forward(self, inputs):
        return self.embedding(inputs["tokens"]), inputs["tokens"] > 0


class Neighbours(nn.Module):
    """Each token adds a map of the mean over its sentence's tokens."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, state):
        x, mask = state
        mean = (x * mask[..., None]).sum(-2, keepdim=True) / mask.sum(-1)[..., None, None]
        return x + self.linear(mean).tanh(), mask


class Unmask(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.linear, self.pool = nn.Linear(4, 4), pool

    def forward(self, state):
        x, mask = state
        x = self.linear(x).tanh() * mask[..., None]
        return x.sum(-2) / mask.sum(-1)[..., None] if self.pool else x


class Tokens(Encoder):
    def __init__(self, pool=False):
        super().__init__(InputShape(tokens=7))
        self.stages = nn.Sequential(Embed(), Neighbours(), Unmask(pool))
        self.features = 4


class Images(Encoder):
    """Features of each pixel."""

    def __init__(self):
        super().__init__(InputShape((2, 5, 4)))
        self.stages = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Sequential(nn.Tanh(), nn.Conv2d(4, 6, 3, padding=1, stride=2)),
            ToPixels(),
        )
        self.features = 4


class ToPixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        return self.linear(nn.functional.interpolate(x, (5, 4)).movedim(1, -1)).tanh()


ENCODERS = {
    "vectors": lambda: MLP(InputShape((5,)), width=8, depth=2),
    "table": lambda: MLP(InputShape((3,), (4, 2)), width=8, depth=1),
    "one stage": lambda: MLP(InputShape((5,)), width=8, depth=0),
    "images": lambda: ConvNet(InputShape((2, 7, 8)), width=4, depth=3),
    "pixels": Images,
    "skip": Skipping,
    "tokens": Tokens,
    "sentences": lambda: Tokens(pool=True),
}


def seeded(kind, make, tasks=TASKS, **settings):
    torch.manual_seed(3)
    return kind(make, tasks, **settings)


def separate_encoders(make, count):
    """The encoders that an architecture made with the same seed holds, in float64."""
    torch.manual_seed(3)
    return [make().double() for _ in range(count)]


def rows_of(make, rows=3, double=True):
    inputs = make().shape.example(rows)
    return inputs.double() if double and isinstance(inputs, torch.Tensor) else inputs


def stir(module, scale=0.3):
    """Other parameters than the initial ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p += scale * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
    return module


def check_contract(sharing, make):
    """Owners are right, features have their size, each parameter gets a gradient in each step."""
    inputs = rows_of(make, double=False)
    check_owners(sharing, inputs)
    features = sharing(inputs)
    assert list(features) == list(sharing.tasks)
    assert {task: z.shape[-1] for task, z in features.items()} == sharing.feature_sizes
    assert not sharing.one_feature
    loss = sum(
        (z * torch.randn(z.shape, generator=torch.Generator().manual_seed(i))).sum()
        for i, z in enumerate(features.values())
    )
    penalty = sharing.penalty()
    (loss if penalty is None else loss + penalty).backward()
    assert [
        name for name, p in sharing.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def gradients(sharing, inputs):
    sharing.zero_grad()
    z = torch.stack(list(sharing(inputs).values()))
    (z * torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view_as(z)).sum().backward()
    return z, [p.grad for p in sharing.encoders.parameters()]


def same_as_separate(sharing, make):
    inputs = rows_of(make)
    ours, theirs = sharing.double(), seeded(Separate, make).double()
    for x, y in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tasks", [TASKS, ["only"]])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_contract_over_every_kind_of_encoder(name, per_channel, tasks):
    check_contract(
        seeded(CrossStitch, ENCODERS[name], tasks, per_channel=per_channel), ENCODERS[name]
    )


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_identities_are_separate_encoders(name, per_channel):
    same_as_separate(
        seeded(CrossStitch, ENCODERS[name], own=1.0, per_channel=per_channel), ENCODERS[name]
    )


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", ["table", "images", "skip", "tokens"])
def test_against_sums_by_hand(name, per_channel):
    make = ENCODERS[name]
    sharing = seeded(CrossStitch, make, TASKS[:2], per_channel=per_channel).double()
    stir(sharing.exchanges)
    states = [rows_of(make)] * 2
    encoders = separate_encoders(make, 2)
    for k, layout in enumerate(sharing.encoders.layouts):
        a = sharing.exchanges[k].weight
        states = [encoder.stages[k](state) for encoder, state in zip(encoders, states, strict=True)]
        x, y = (top(state) for state in states)
        wide = (lambda w: w.view(-1, 1, 1) if layout.image else w) if per_channel else lambda w: w  # noqa: B023
        states = [
            with_top(states[0], wide(a[0, 0]) * x + wide(a[0, 1]) * y),
            with_top(states[1], wide(a[1, 0]) * x + wide(a[1, 1]) * y),
        ]
    found = sharing(rows_of(make))
    torch.testing.assert_close(found["a"], states[0])
    torch.testing.assert_close(found["b"], states[1])


def test_who_reaches_what():
    sharing = seeded(CrossStitch, ENCODERS["vectors"])
    first, _, last = (stitch.weight for stitch in sharing.exchanges)
    sharing(rows_of(ENCODERS["vectors"], double=False))["b"].sum().backward()
    assert last.grad.any(1).tolist() == [False, True, False]
    assert first.grad.all()
    assert {id(p) for p in sharing.shared_parameters()} == {id(p) for p in sharing.parameters()} - {
        id(last)
    }


def test_initial_weights():
    expected = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
    torch.testing.assert_close(mostly_own(0.6, 3), expected)
    assert mostly_own(0.6, 1).tolist() == [[1.0]]
    sharing = seeded(CrossStitch, ENCODERS["vectors"], own=0.6, per_channel=True)
    for stitch in sharing.exchanges:
        torch.testing.assert_close(stitch.weight, expected[..., None].expand(3, 3, 8))


@pytest.mark.parametrize("per_channel", [False, True])
def test_figures(per_channel):
    sharing = stir(seeded(CrossStitch, ENCODERS["images"], per_channel=per_channel))
    figures = sharing.figures({})
    assert list(figures) == ["stitches of stage 1", "stitches of stage 2", "stitches of stage 3"]
    for table, stitch in zip(figures.values(), sharing.exchanges, strict=True):
        assert (list(table.index), list(table.columns)) == (TASKS, TASKS)
        number = stitch.weight[2, 0].mean() if per_channel else stitch.weight[2, 0]
        assert table.loc["c", "a"] == pytest.approx(number.item(), abs=1e-6)


@pytest.mark.parametrize("own", [-0.1, 1.1, float("nan")])
def test_bad_settings_are_named(own):
    with pytest.raises(ValueError, match=rf"CrossStitch: own {own} is outside \[0, 1\]"):
        seeded(CrossStitch, ENCODERS["vectors"], own=own)
