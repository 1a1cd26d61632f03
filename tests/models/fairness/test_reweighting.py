from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.batch import PADDING, SENSITIVE
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.fairness import Reweighting
from src.models.fairness.reweighting import independent_weights
from src.tasks import Regression
from tests.toy import bare_trainer
from tests.toy_groups import GroupedToy


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(2, 4))
def test_weighted_rows_have_groups_and_labels_that_are_independent(
    seed: int, groups: int, classes: int
) -> None:
    counts = np.random.default_rng(seed).integers(1, 50, (groups, classes))
    weights = independent_weights(torch.from_numpy(counts).double()).numpy()
    joint = counts * weights / counts.sum()
    np.testing.assert_allclose(joint, np.outer(joint.sum(1), joint.sum(0)), rtol=1e-12)
    # the shares of groups and of labels stay
    np.testing.assert_allclose(joint.sum(1), counts.sum(1) / counts.sum())
    np.testing.assert_allclose(joint.sum(0), counts.sum(0) / counts.sum())


def test_rows_of_a_run_have_the_weights_of_their_group_and_label() -> None:
    data = GroupedToy()
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        encoder=partial(MLP, width=8, depth=1),
        fairness=Reweighting,
        groups=data.sensitive_groups,
    )
    bare_trainer(1, 1).fit(model, data)
    rows = data.split("train")
    y, g = rows.targets["binary"], rows.extras[SENSITIVE]
    known = ~y.isnan()
    batch = rows[torch.tensor([*range(len(rows)), PADDING])]
    batch.weights = {"binary": torch.full((len(rows) + 1,), 2.0)}
    assert model.fairness is not None
    model.fairness.weigh_rows(batch)

    found = batch.weights["binary"][:-1]
    for group in range(3):
        for label in (0, 1):
            cell = known & (g == group) & (y == label)
            share = (known & (g == group)).sum() * (known & (y == label)).sum() / known.sum()
            wanted = torch.full_like(found[cell], float(2 * share / cell.sum()))
            torch.testing.assert_close(found[cell], wanted)
    assert (found[~known] == 2).all()
    # numbers and several labels keep their weights, padding counts nowhere
    assert "number" not in batch.weights
    assert "labels" not in batch.weights
    assert float(batch.weights["binary"][-1]) == 0
    assert "binary" in model.fairness.summary()[0]


def test_tasks_without_classes_alone_are_refused() -> None:
    with pytest.raises(UserError, match="no task has one class a row"):
        Reweighting({"number": Regression()}, ("a", "b"))
