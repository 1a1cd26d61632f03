"""The plans by which devices compute layers of an encoder together."""

from functools import partial

import pytest
from torch import nn

from src.batch import InputShape
from src.models.encoders import MLP, ConvNet, Encoder, TabularTransformer, Transformer, mlp
from src.models.encoders.tensor_parallel import find_plan
from src.models.sharing import MTAN, HardSharing, Separate

VECTORS = InputShape((5,))


class WiderBlock(mlp.Block):
    """A block of a fork, with the layers of ours."""


class Inherited(MLP):
    def __init__(self, shape):
        super().__init__(shape, width=8, depth=1)
        self.stages.append(WiderBlock(8, 0.0))


class Stated(Encoder):
    """An encoder of a fork that names its own layers."""

    def __init__(self, shape):
        super().__init__(shape)
        self.stages = nn.Sequential(
            nn.Linear(5, 4), nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        )
        self.features = 4

    def tensor_parallel_plan(self):
        return {"stages.1.0": ("columns", 6), "stages.1.2": ("rows", 6)}


def test_blocks_are_found_in_every_stage():
    plan = find_plan(MLP(VECTORS, width=8, depth=2))
    assert plan == {
        "stages.1.body.1": ("columns", 8),
        "stages.1.body.3": ("units", 8),
        "stages.1.body.4": ("rows", 8),
        "stages.2.0.body.1": ("columns", 8),
        "stages.2.0.body.3": ("units", 8),
        "stages.2.0.body.4": ("rows", 8),
    }


@pytest.mark.parametrize(
    "encoder",
    [
        MLP(VECTORS, width=8),
        Transformer(InputShape((4, 5)), width=8, depth=2, heads=2),
        TabularTransformer(VECTORS, width=8, depth=2, heads=2),
        Inherited(VECTORS),
        Stated(VECTORS),
    ],
    ids=lambda encoder: type(encoder).__name__,
)
def test_sizes_are_multiples_of_the_pieces(encoder):
    plan = find_plan(encoder)
    assert {split for split, _ in plan.values()} >= {"columns", "rows"}
    for path, (split, pieces) in plan.items():
        layer = encoder.get_submodule(path)
        if split == "units":
            assert isinstance(layer, nn.Dropout)
        else:
            size = layer.out_features if split == "columns" else layer.in_features
            assert size % pieces == 0


def test_a_subclass_of_a_block_inherits_its_plan():
    assert find_plan(Inherited(VECTORS))["stages.2.body.1"] == ("columns", 8)


def test_stages_that_an_architecture_leaves_out_have_no_plan():
    sharing = HardSharing(partial(Stated, VECTORS), ["a", "b"], until=1)
    assert sharing.tensor_parallel_plan() == {}


def test_an_encoder_without_a_plan():
    assert find_plan(ConvNet(InputShape((1, 4, 4)), width=4, depth=1)) == {}


def test_architectures_hand_on_the_plan_of_one_encoder_alone():
    make = partial(MLP, VECTORS, width=8, depth=1)
    for kind in (HardSharing, MTAN):
        plan = kind(make, ["a", "b"]).tensor_parallel_plan()
        assert plan["encoder.stages.1.0.body.4"] == ("rows", 8)
    assert Separate(make, ["a", "b"]).tensor_parallel_plan() == {}
