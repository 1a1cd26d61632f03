"""Missing labels that an earlier network fills in."""

import numpy as np
import torch

from src.batch import PADDING
from src.models.transfer.teacher import Teacher
from src.tasks import is_labelled
from tests.models.test_heads import NAN, model_of, targets_for, tasks_of
from tests.toy import Toy


def outputs_of(model, x):
    return model.heads.split(model.heads(model.sharing(x)))


def test_losses_are_those_of_labels_where_they_are_known_and_of_the_teacher_elsewhere():
    rng = np.random.default_rng(0)
    tasks = tasks_of()
    model = model_of(tasks).double()
    x = torch.randn(12, 6, dtype=torch.float64)
    targets = targets_for(tasks, rng, 0.5, 12)
    targets = {k: y.double() if y.is_floating_point() else y for k, y in targets.items()}
    taught = {
        name: torch.randn(12, task.out_features, dtype=torch.float64)
        for name, task in tasks.items()
        if name in ("a", "d", "e", "f", "g")
    }
    taught["a"][3] = NAN  # a row that nobody is taught
    grouped = model.heads(model.sharing(x))
    model.heads.temperature = 2.0
    sums_T, counts_T = model.heads.loss_sums(grouped, targets, None, taught)

    outputs = outputs_of(model, x)
    for k, name in enumerate(model.names):
        task, y = tasks[name], targets[name]
        elements = task.losses(outputs[name], y)
        known = is_labelled(y)
        if name in taught:
            own = task.distil(outputs[name], taught[name].nan_to_num(), y, 2.0)
            here = ~taught[name].isnan().any(-1)
            fills = ~known & here.view(-1, *[1] * (y.ndim - 1))
            elements = torch.where(fills, own, elements)
            known = known | fills
        torch.testing.assert_close(sums_T[k], elements.sum(), rtol=1e-9, atol=1e-12)
        assert counts_T[k] == known.sum()


def test_nobody_is_taught_at_rows_that_fill_up_a_batch():
    data = Toy()
    model = model_of({"class": data.tasks["class"], "number": data.tasks["number"]})
    teacher = Teacher(model, model.state_dict(), ["number"], 1.0)
    teacher.prepare(model)
    batch = data.split("train")[torch.tensor([0, 5, PADDING])]
    batch.inputs = torch.randn(3, 6)
    teacher.teach(batch)
    assert list(batch.taught) == ["number"]
    assert batch.taught["number"][:, 0].isnan().tolist() == [False, False, True]


def test_the_teacher_stays_as_the_model_moves():
    data = Toy()
    model = model_of(data.tasks)
    teacher = Teacher(model, model.state_dict(), ["number", "labels"], 1.0)
    teacher.prepare(model)
    batch = data.split("train")[torch.arange(4)]
    batch.inputs = torch.randn(4, 6)
    before = outputs_of(model.eval(), batch.inputs)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    teacher.teach(batch)
    for name in ("number", "labels"):
        assert torch.equal(batch.taught[name], before[name])
    assert not any(p.requires_grad for p in teacher.heads.parameters())
    assert all(p.requires_grad for p in model.parameters())
