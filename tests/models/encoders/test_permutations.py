"""The orders of units in which encoders compute the same, and the way back from one of them."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from src.analysis.merging.alignment import match_weights, permute, permute_state
from src.analysis.merging.average import average
from src.batch import InputShape
from src.models.encoders import MLP, ConvNet, Encoder, LeNet
from src.models.encoders.permutations import UnitOrder, find_unit_order

pytest.importorskip("scipy")
TABLE = InputShape((3,), categories=(4, 6))
IMAGE = InputShape((1, 12, 12))
ENCODERS = {
    "mlp": lambda: MLP(TABLE, width=12, depth=2),
    "mlp without blocks": lambda: MLP(TABLE, width=12, depth=0),
    "mlp with dropout": lambda: MLP(TABLE, width=8, depth=1, dropout=0.3),
    "groups of one channel": lambda: ConvNet(IMAGE, width=4, depth=2),
    "groups of 2 and 4 channels": lambda: ConvNet(IMAGE, width=16, depth=2),
}


def make_encoder(name: str, seed: int) -> Encoder:
    """An encoder in float64 whose norms have learnt something, too."""
    torch.manual_seed(seed)
    encoder = ENCODERS[name]().double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def shuffle(encoder: Encoder, order: UnitOrder, seed: int) -> dict[str, Tensor]:
    """Draws a permutation of each group that keeps its blocks."""
    generator = torch.Generator().manual_seed(seed)
    state = encoder.state_dict()
    found: dict[str, Tensor] = {}
    for name, groups in order.axes.items():
        for size, group in zip(state[name].shape, groups, strict=True):
            if group is None or group in found:
                continue
            blocks = order.blocks.get(group, 1)
            if blocks == 1:
                found[group] = torch.randperm(size, generator=generator)
                continue
            inner = size // blocks
            outer = torch.randperm(blocks, generator=generator)
            rows = [b * inner + torch.randperm(inner, generator=generator) for b in outer]
            found[group] = torch.cat(rows)
    return found


def run(encoder: Encoder, state: dict[str, Tensor]) -> Tensor:
    inputs = encoder.shape.example(rows=6)
    if isinstance(inputs, dict):
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    else:
        inputs = inputs.double()
    return functional_call(encoder, state, (inputs,))


@pytest.mark.parametrize("name", ENCODERS)
def test_units_in_another_order_compute_the_same_features(name: str) -> None:
    encoder = make_encoder(name, 0)
    order = find_unit_order(encoder)
    assert order is not None
    shuffled = shuffle(encoder, order, 1)
    state = encoder.state_dict()
    moved = permute_state(state, order.axes, shuffled)
    assert any(not moved[key].equal(state[key]) for key in state)
    wanted = permute(run(encoder, state), (None, order.features), shuffled)
    torch.testing.assert_close(run(encoder, moved), wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_copy_in_another_order_is_aligned_exactly(name: str) -> None:
    encoder = make_encoder(name, 0)
    order = find_unit_order(encoder)
    assert order is not None
    state = encoder.state_dict()
    copy = permute_state(state, order.axes, shuffle(encoder, order, 1))
    found = match_weights(state, copy, order.axes, order.blocks)
    back = permute_state(copy, order.axes, found)
    assert all(back[key].equal(state[key]) for key in state)
    assert run(encoder, average([state, back])).equal(run(encoder, state))


@pytest.mark.parametrize("name", ENCODERS)
def test_networks_of_other_seeds_are_nearer_in_one_order(name: str) -> None:
    encoder = make_encoder(name, 0)
    other = make_encoder(name, 1).state_dict()
    order = find_unit_order(encoder)
    assert order is not None
    state = encoder.state_dict()
    found = match_weights(state, other, order.axes, order.blocks)
    aligned = permute_state(other, order.axes, found)

    def distance(theirs: dict[str, Tensor]) -> float:
        return sum(float((state[key] - theirs[key]).square().sum()) for key in order.axes)

    assert distance(aligned) < distance(other)
    # what it computes is what it did
    features = permute(run(encoder, other), (None, order.features), found)
    torch.testing.assert_close(run(encoder, aligned), features, rtol=1e-11, atol=1e-11)


def test_other_encoders_have_no_known_order() -> None:
    assert find_unit_order(LeNet(InputShape((1, 28, 28)))) is None
