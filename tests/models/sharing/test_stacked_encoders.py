"""Several encoders as one give what each of them gives."""

from functools import partial

import pytest
import torch
from torch import nn

from src.batch import InputShape
from src.models.dropout import Dropout
from src.models.encoders import MLP, ConvNet, Encoder, Transformer
from src.models.encoders.stem import VectorStem
from src.models.sharing import stacked_layers
from src.models.sharing.stacked_encoders import StackedEncoders, select_state, stack_states


class StemAlone(Encoder):
    """A first stage without parameters."""

    def __init__(self, shape, width=3):
        super().__init__(shape)
        stem = VectorStem(shape)
        self.stages = nn.Sequential(stem, nn.Sequential(nn.Linear(stem.features, width), nn.Tanh()))
        self.features = width


class Sequence(Encoder):
    """States (B, S, C), with a norm before the first product and no bias."""

    def __init__(self, shape, width=4):
        super().__init__(shape)
        size = shape.dense[-1]
        self.stages = nn.Sequential(
            nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width, bias=False)), nn.GELU()
        )
        self.features = width


class Transposed(Encoder):
    """Code that takes the leading dimension for another one: stacked, it mixes up its rows."""

    def __init__(self, shape):
        super().__init__(shape)
        self.stages = nn.Sequential(nn.Linear(3, 3), Turned())
        self.features = 3


class Turned(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Dropped(Encoder):
    def __init__(self, shape, kind=nn.Dropout):
        super().__init__(shape)
        self.stages = nn.Sequential(nn.Sequential(nn.Linear(3, 3), kind(0.5)))
        self.features = 3


class Skipping(Encoder):
    """A state that is a tuple."""

    def __init__(self, shape):
        super().__init__(shape)
        self.stages = nn.Sequential(Both(), Sum())
        self.features = 3


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        y = self.a(x)
        return y, y * 2


class Sum(nn.Module):
    def forward(self, state):
        return state[0] + state[1]


KINDS = {
    "mlp": (partial(MLP, width=6), InputShape((5,)), True),
    "image as vector": (partial(MLP, width=6, depth=0), InputShape((1, 2, 2)), True),
    "table": (partial(MLP, width=6), InputShape((3,), (4, 2)), True),
    "categories alone": (partial(MLP, width=6), InputShape((0,), (4,)), True),
    "stem alone": (StemAlone, InputShape((5,)), True),
    "sequence": (Sequence, InputShape((4, 5)), True),
    "tuple": (Skipping, InputShape((3,)), True),
    "convolutions": (partial(ConvNet, width=4), InputShape((2, 8, 8)), False),
    "mixed rows": (Transposed, InputShape((3,)), False),
    "torch's dropout": (Dropped, InputShape((3,)), False),
}


def both(kind, count=3, **cut):
    """The copies, and encoders of the same initial weights."""
    make, shape, as_one = KINDS[kind]
    torch.manual_seed(1)
    copies = StackedEncoders(partial(make, shape), count, **cut).double().eval()
    torch.manual_seed(1)
    encoders = [make(shape).double().eval() for _ in range(count)]
    assert (copies.stages is not None) == as_one
    return copies, encoders, inputs_of(shape)


def inputs_of(shape, rows=7):
    inputs = shape.example(rows)
    if isinstance(inputs, torch.Tensor):
        return inputs.double()
    return {
        key: value.double() if value.is_floating_point() else value for key, value in inputs.items()
    }


def by_name(copies, encoders):
    """Pairs of a gradient of the copies and the same one of the encoders."""
    for k, encoder in enumerate(encoders):
        for name, p in encoder.named_parameters():
            if copies.stages is None:
                yield copies.encoders[k].get_parameter(name).grad, p.grad
            else:
                yield copies.get_parameter(name).grad[k], p.grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 3])
def test_values_and_gradients_are_those_of_the_encoders(kind, count):
    copies, encoders, x = both(kind, count)
    assert (copies.count, copies.features, len(copies)) == (count, encoders[0].features, count)
    ours, theirs = copies(x), torch.stack([encoder(x) for encoder in encoders])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weights = torch.randn(theirs.shape, dtype=torch.float64)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for one, other in by_name(copies, encoders):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "table", "stem alone", "sequence"])
def test_wide_layers_run_network_by_network_with_the_same_results(kind, monkeypatch):
    monkeypatch.setattr(stacked_layers, "LOOP_FROM", 1)
    test_values_and_gradients_are_those_of_the_encoders(kind, 3)
    test_stage_by_stage_with_each_its_own_state(kind)


def test_frozen_layers_stay_frozen():
    def make():
        encoder = MLP(InputShape((5,)), width=6)
        encoder.stages[0].requires_grad_(False)
        return encoder

    copies = StackedEncoders(make, 2)
    assert copies.stages is not None
    trained = {name for name, p in copies.named_parameters() if p.requires_grad}
    assert trained
    assert not any(name.startswith("stages.0") for name in trained)


@pytest.mark.parametrize("kind", KINDS)
def test_stage_by_stage_with_each_its_own_state(kind):
    copies, encoders, x = both(kind)
    state, states = x, [x] * 3
    for k in range(len(copies.names)):
        state = copies(state, apart=k > 0, first=k, last=k + 1)
        states = [encoder.stages[k](s) for encoder, s in zip(encoders, states, strict=True)]
    torch.testing.assert_close(state, torch.stack(states), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "kind", ["mlp", "table", "stem alone", "sequence", "tuple", "convolutions"]
)
def test_upper_stages_read_what_one_trunk_puts_out(kind):
    copies, encoders, x = both(kind, first=1)
    for encoder in encoders[1:]:
        encoder.stages[0] = encoders[0].stages[0]
    state = encoders[0].stages[0](x)
    torch.testing.assert_close(
        copies(state), torch.stack([encoder(x) for encoder in encoders]), rtol=1e-12, atol=1e-12
    )
    names = [name for name, _ in encoders[0].stages.named_children()][1:]
    assert copies.names == names
    # of the first stage, which all encoders have in common, none is kept
    held = sum(p.numel() for p in copies.parameters())
    above = list(encoders[0].stages)[1:]
    assert held == len(encoders) * sum(p.numel() for stage in above for p in stage.parameters())


@pytest.mark.parametrize("kind", ["mlp", "convolutions", "tuple", "stem alone"])
def test_other_parameters_and_another_number_of_encoders(kind):
    """Sums of all encoders' parameters, run as two."""
    copies, encoders, x = both(kind)
    A = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.0, -1.0]], dtype=torch.float64)
    state = x
    for k in range(len(copies.names)):
        mixed = {name: torch.tensordot(A, p, 1) for name, p in copies.stack_parameters(k).items()}
        state = copies.run_stage_with(k, mixed, state, k > 0, 2)
    for row, ours in zip(A, state, strict=True):
        theirs = {
            name: sum(
                a * encoder.get_parameter(name) for a, encoder in zip(row, encoders, strict=True)
            )
            for name, _ in encoders[0].named_parameters()
        }
        torch.testing.assert_close(
            ours, torch.func.functional_call(encoders[0], theirs, (x,)), rtol=1e-10, atol=1e-12
        )


def test_a_stage_reads_one_state_of_all_higher_up_too():
    """As shared experts of a second level do."""
    copies, encoders, x = both("mlp")
    state = encoders[1].stages[0](x)
    ours = copies(state, first=1, last=2)
    torch.testing.assert_close(
        ours,
        torch.stack([encoder.stages[1](state) for encoder in encoders]),
        rtol=1e-12,
        atol=1e-12,
    )


def test_dropout_of_copies_belongs_to_rows_and_encoders():
    make = partial(MLP, InputShape((5,)), width=40, dropout=0.5)
    copies = StackedEncoders(make, 3)
    assert copies.stages is not None
    x = torch.ones(6, 5)

    def masks(rows):
        torch.manual_seed(3)
        for module in copies.modules():
            if isinstance(module, Dropout):
                return module(torch.ones(3, rows, 40)) != 0
        raise AssertionError

    kept = masks(6)
    assert 0.4 < kept.float().mean() < 0.6
    assert not torch.equal(kept[0], kept[1])  # another mask for each encoder
    assert not torch.equal(kept[:, 0], kept[:, 1])  # and for each row
    assert torch.equal(masks(4), kept[:, :4])  # which does not depend on the rows beside it
    assert (copies(x) - copies(x)).abs().max() > 0
    copies.eval()
    assert torch.equal(copies(x), copies(x))


def test_owners_name_slices_where_encoders_run_as_one():
    for kind, slices in (("mlp", True), ("convolutions", False)):
        copies, _, _ = both(kind)
        mine = list(copies.owners([("a",), ("b",), ("c",)]))
        assert [owned.slices for owned in mine] == [slices] * (1 if slices else 3)
        assert [owned.tasks for owned in mine] == (
            [("a", "b", "c")] if slices else [("a",), ("b",), ("c",)]
        )
        assert sum(len(owned.parameters) for owned in mine) == len(list(copies.parameters()))
        one_stage = [
            p for owned in copies.owners([("a", "b", "c")] * 3, stage=1) for p in owned.parameters
        ]
        assert 0 < len(one_stage) < len(list(copies.parameters()))
        assert all(
            owned.tasks == ("a", "b", "c") and not owned.slices
            for owned in copies.owners([("a", "b", "c")] * 3)
        )


def test_states_are_stacked_and_shared_out():
    states = [(torch.ones(2), torch.zeros(2)), (torch.full((2,), 3.0), torch.ones(2))]
    assert select_state(stack_states(states), 1)[0].tolist() == [3, 3]


def test_dropout_of_a_token_does_not_depend_on_the_padding_behind_it():
    """Devices pad sequences to their own longest one."""
    torch.manual_seed(0)
    make = partial(Transformer, InputShape(tokens=9), width=8, depth=2, heads=2, dropout=0.4)
    encoders = StackedEncoders(make, 3)
    assert encoders.stages is not None
    tokens = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])
    found = []
    for inputs in (tokens[:, :3], tokens):
        torch.manual_seed(1)
        found.append(encoders({"tokens": inputs}))
    torch.testing.assert_close(found[0], found[1][:, :, :3], rtol=1e-5, atol=1e-6)
