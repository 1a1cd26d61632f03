"""Tasks that train no longer: the step of the others is as if they had no labels."""

from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from src.balancing import PCGrad, StaticWeights, UPGrad
from src.batch import Batch
from src.data import Rows, Split
from src.models import MultiTaskModel
from src.models.stopped import drop_gradients, remove_labels
from src.tasks import is_labelled
from tests.toy import Toy, bare_trainer


def take_batch(rows: int = 16) -> Batch:
    """The first rows of training."""
    split = Toy().split("train")
    targets = {name: target[:rows] for name, target in split.targets.items()}
    return Batch(cast(Tensor, split.inputs)[:rows], targets, torch.arange(rows))


def test_labels_are_removed_from_the_batch_alone() -> None:
    batch = take_batch()
    targets = batch.targets
    remove_labels(batch, ("class", "labels"))
    for name, target in batch.targets.items():
        if name not in ("class", "labels"):
            assert target is targets[name]
            continue
        assert (target.shape, target.dtype) == (targets[name].shape, targets[name].dtype)
        assert not is_labelled(target).any()
        # the rows of the data set keep theirs
        assert is_labelled(targets[name]).any()


def test_momentum_and_decay_leave_a_head_without_gradients_alone() -> None:
    head, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW([*head.parameters(), *other.parameters()], lr=0.1)
    for stopped in (False, True):
        before = head.weight.detach().clone(), other.weight.detach().clone()
        optimizer.zero_grad()
        (head(torch.ones(1, 2)) * (not stopped) + other(torch.ones(1, 2))).sum().backward()
        if stopped:
            drop_gradients([head])
        optimizer.step()
        assert torch.equal(head.weight, before[0]) is stopped
        assert not torch.equal(other.weight, before[1])


STOPPED = ("class", "rare", "deep")


class Missing(Toy):
    """The toy without the labels of the tasks that stop."""

    def split(self, name: Split) -> Rows:
        rows = super().split(name)
        batch = rows[torch.arange(len(rows))]
        remove_labels(batch, STOPPED)
        return Rows(rows.inputs, batch.targets)


@pytest.mark.parametrize(
    ("balancer", "settings"),
    [
        (StaticWeights, {}),
        (UPGrad, {}),
        (partial(PCGrad, level="parameters"), {"accumulate_grad_batches": 2}),
    ],
    ids=["losses", "features", "parameters, two micro-batches"],
)
def test_stopped_tasks_are_to_the_others_like_tasks_without_labels(
    balancer: Any, settings: dict[str, int]
) -> None:
    trained = []
    for data, stopped in ((Missing(), ()), (Toy(), STOPPED)):
        model = MultiTaskModel(Toy().tasks, Toy().input_shape, balancer=balancer)
        model.configure_model()
        model.stop_tasks(stopped)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        bare_trainer(1, 1, **settings).fit(model, data)
        trained.append({k: v for k, v in model.state_dict().items() if "metrics" not in k})
    expected, found = trained
    for name, value in found.items():
        if any(name.startswith(f"heads.{task}.") for task in STOPPED):
            # decay moves the heads of tasks without labels, but not of stopped ones
            assert torch.equal(value, start[name]), name
        else:
            assert torch.equal(value, expected[name]), name
    assert not torch.equal(found["heads.number.0.weight"], start["heads.number.0.weight"])
