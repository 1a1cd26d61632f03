"""What every architecture says of its parameters is proved by trying."""

from functools import partial

import pytest
import torch
from torch import nn

from src.batch import InputShape
from src.models.encoders import MLP, ResNet
from src.models.sharing import HardSharing, Owned, Separate, check_owners

SHAPE = InputShape((5,))
MAKE = partial(MLP, SHAPE, width=4, depth=1)


class Claims(Separate):
    """Says of its owners what a test tells it to."""

    says = staticmethod(lambda sharing: iter(()))

    def owners(self):
        return self.says(sharing=self)


def sliced(sharing, tasks):
    return Owned(tasks, list(sharing.parameters()), slices=True)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (lambda sharing: [], r"leaves out encoders\.stages\.0"),
        (lambda sharing: [sliced(sharing, ("a", "b"))] * 2, "twice, or one that it does not hold"),
        (
            lambda sharing: [Owned(("a",), [*sharing.parameters(), nn.Parameter(torch.ones(2))])],
            r"shape \(2,\) twice, or one",
        ),
        (
            lambda sharing: [
                Owned(("a", "b"), list(sharing.parameters())[:1]),
                Owned(("a",), list(sharing.parameters())[1:]),
            ],
            "reaches",
        ),
        (
            lambda sharing: [sliced(sharing, ("b", "a"))],
            r"task 'a' reaches encoders\.stages\.\d.*\[0\]",
        ),
    ],
)
def test_wrong_claims_are_found(says, message):
    sharing = Claims(MAKE, ["a", "b"])
    sharing.says = says
    with pytest.raises(ValueError, match=f"Claims.owners.*({message})"):
        check_owners(sharing, SHAPE.example())


def test_a_parameter_that_a_task_does_not_reach_is_found():
    class Half(HardSharing):
        def forward(self, inputs):
            features = dict(super().forward(inputs))
            return features | {"b": features["b"].detach().requires_grad_()}

    with pytest.raises(ValueError, match=r"task 'b' does not reach encoder\.stages"):
        check_owners(Half(MAKE, ["a", "b"]), SHAPE.example())


def test_checking_leaves_running_statistics_alone():
    sharing = HardSharing(partial(ResNet, InputShape((1, 8, 8)), width=2, norm="batch"), ["a", "b"])
    before = {name: buffer.clone() for name, buffer in sharing.named_buffers()}
    assert before
    check_owners(sharing, InputShape((1, 8, 8)).example())
    assert all(torch.equal(buffer, before[name]) for name, buffer in sharing.named_buffers())


def test_checking_leaves_weights_random_numbers_and_frozen_parameters_alone():
    sharing = HardSharing(MAKE, ["a", "b"])
    before = {name: p.clone() for name, p in sharing.state_dict().items()}
    next(sharing.parameters()).requires_grad_(False)
    torch.manual_seed(5)
    check_owners(sharing, SHAPE.example())
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    assert all(
        torch.equal(p, before[name]) and p.grad is None for name, p in sharing.named_parameters()
    )


def test_a_single_task_shares_everything_with_itself():
    for sharing in (
        HardSharing(MAKE, ["a"]),
        Separate(MAKE, ["a"]),
        HardSharing(MAKE, ["a"], until=1),
    ):
        check_owners(sharing, SHAPE.example())
        assert {id(p) for p in sharing.shared_parameters()} == {id(p) for p in sharing.parameters()}


def test_separate_networks_share_nothing_and_are_their_own():
    torch.manual_seed(0)
    sharing = Separate(MAKE, ["a", "b"]).double()
    torch.manual_seed(0)
    alone = [MAKE().double() for _ in range(2)]
    assert not list(sharing.shared_parameters())
    x = SHAPE.example(6).double()
    for encoder, z in zip(alone, sharing(x).values(), strict=True):
        torch.testing.assert_close(z, encoder(x), rtol=1e-12, atol=1e-12)


def test_sharing_up_to_a_stage():
    torch.manual_seed(0)
    sharing = HardSharing(MAKE, ["a", "b"], until=1).double()
    torch.manual_seed(0)
    trunk, *tops = (MAKE().double() for _ in range(3))
    assert not sharing.one_feature
    check_owners(sharing.float(), SHAPE.example())
    sharing.double()
    x = SHAPE.example(6).double()
    for top, z in zip(tops, sharing(x).values(), strict=True):
        torch.testing.assert_close(z, top.stages[1](trunk.stages[0](x)), rtol=1e-12, atol=1e-12)
    assert len(list(sharing.shared_parameters())) == len(list(trunk.stages[0].parameters()))
    assert HardSharing(MAKE, ["a", "b"], until=2).one_feature
    for wrong in (0, 3):
        with pytest.raises(
            ValueError, match=rf"HardSharing: until {wrong} is outside 1 ... 2, the stages of MLP"
        ):
            HardSharing(MAKE, ["a", "b"], until=wrong)
