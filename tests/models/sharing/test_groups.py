"""Each group of tasks is a hard-sharing network of its own."""

from functools import partial

import pytest
import torch

from src.batch import InputShape
from src.models.encoders import MLP
from src.models.sharing import Groups, HardSharing, Separate, check_owners
from tests.cli.calling import call, refused

SHAPE = InputShape((5,))
MAKE = partial(MLP, SHAPE, width=4, depth=1)
GROUPS = [["b", "d"], ["a"], ["c"]]


def seeded(build):
    torch.manual_seed(0)
    return build().double()


def test_each_group_is_a_network_of_its_own():
    sharing = seeded(lambda: Groups(MAKE, list("abcd"), GROUPS))
    torch.manual_seed(0)
    alone = [MAKE().double() for _ in GROUPS]
    x = SHAPE.example(6).double()
    features = sharing(x)
    assert list(features) == list("abcd")
    assert features["b"] is features["d"]
    for group, encoder in zip(GROUPS, alone, strict=True):
        for task in group:
            torch.testing.assert_close(features[task], encoder(x), rtol=0, atol=0)
    check_owners(sharing.float(), SHAPE.example())
    assert not sharing.one_feature

    # an encoder of one task is that task's own
    shared = {id(p) for p in sharing.shared_parameters()}
    assert shared == {id(p) for p in sharing.encoders[0].parameters()}


def test_one_group_is_hard_sharing_and_groups_of_one_are_separate():
    x = SHAPE.example(6).double()
    tasks = list("abc")
    for groups, other in (([tasks], HardSharing), ([["a"], ["b"], ["c"]], Separate)):
        ours = seeded(lambda groups=groups: Groups(MAKE, tasks, groups))
        theirs = seeded(lambda other=other: other(MAKE, tasks))
        assert ours.one_feature == theirs.one_feature
        assert len(list(ours.shared_parameters())) == len(list(theirs.shared_parameters()))
        for task in tasks:
            torch.testing.assert_close(ours(x)[task], theirs(x)[task], rtol=1e-12, atol=1e-12)


def test_devices_split_the_layers_of_each_encoder():
    plan = Groups(partial(MLP, SHAPE, width=4, depth=2), ["a", "b"], [["a"], ["b"]])
    one = HardSharing(partial(MLP, SHAPE, width=4, depth=2), ["a", "b"]).tensor_parallel_plan()
    found = plan.tensor_parallel_plan()
    assert one
    assert len(found) == 2 * len(one)
    for path, entry in one.items():
        for g in range(2):
            assert found[path.replace("encoder.", f"encoders.{g}.", 1)] == entry
            plan.get_submodule(path.replace("encoder.", f"encoders.{g}.", 1))


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ("[[digit, od], [ink, quadrants]]", ["names 'od'", "did you mean 'odd'?"]),
        ("[[digit, zebra], [ink]]", ["names 'zebra'", "there are digit, odd"]),
        ("[[digit, odd], [ink, odd, quadrants]]", ["names 'odd' twice"]),
        ("[[digit, odd], [ink]]", ["leaves out task quadrants", "[quadrants]"]),
        ("[[digit]]", ["leaves out the tasks odd"]),
        ("[[digit, odd], [], [ink, quadrants]]", ["has an empty group"]),
        ("[]", ["leaves out the tasks digit"]),
        ("[digit, odd]", ["model.sharing.groups"]),
        (None, ["model.sharing.groups"]),
    ],
)
def test_groups_that_are_no_partition_are_refused(tmp_path, groups, says):
    words = ["--logs", tmp_path, "--model.sharing", "Groups"]
    if groups is not None:
        words += ["--model.sharing.groups", groups]
    refused(call("train", *words), says)


def test_groups_train_from_the_command_line(tmp_path):
    words = ("--model.sharing", "Groups", "--max_epochs", 1, "--model.encoder.width", 8)
    groups = "[[digit, odd], [ink, quadrants]]"
    ended = call("train", "--logs", tmp_path, *words, "--model.sharing.groups", groups)
    assert ended.code == 0, ended.err
    assert "sharing Groups: " in ended.out
    assert "(2.0 times hard sharing)" in ended.out
