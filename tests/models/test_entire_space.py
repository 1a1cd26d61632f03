"""A chain of probabilities over all rows: its outputs, gradients, and what it is for."""

from functools import partial

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch.optim import SGD, AdamW

from src.balancing import PCGrad, StaticWeights
from src.batch import Batch, InputShape
from src.data import MultiTaskDataModule, Rows
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.heads import Heads
from src.models.sharing import HardSharing, Separate
from src.tasks import BinaryClassification, Regression
from tests.models.backward import test_levels
from tests.models.backward.test_levels import QUIET, Halves, Squares, reference
from tests.toy import bare_trainer


def binary(**settings):
    return BinaryClassification(classes=("no", "yes"), **settings)


TASKS = {
    # a head with a hidden layer is no neighbour of the others
    "buy": binary(depends_on="cart", entire_space=True, depth=1, width=3),
    "number": Regression(mean=(0.0,), std=(1.0,)),
    "cart": binary(depends_on="click", entire_space=True),
    "click": binary(),
}


def test_outputs_and_gradients_are_those_of_the_product():
    torch.manual_seed(0)
    heads = Heads(TASKS, dict.fromkeys(TASKS, 4)).double()
    assert heads.factors == {"cart": "click", "buy": "cart"}
    z = torch.randn(6, 4, dtype=torch.float64)
    features = dict.fromkeys(TASKS, z)
    outputs = heads(features)
    targets = {
        "click": torch.tensor([1.0, 0, 1, 0, 1, 1]),
        "cart": torch.tensor([1.0, 0, 0, 0, 1, 1]),
        "buy": torch.tensor([1.0, 0, 0, 0, 0, torch.nan]),
        "number": torch.randn(6),
    }
    sums_T, counts_T = heads.loss_sums(outputs, {k: y.double() for k, y in targets.items()})
    names = [name for group in heads.groups for name in group.names]

    p = heads["click"](z).sigmoid()
    wanted = F.binary_cross_entropy(p.squeeze(1), targets["click"].double(), reduction="sum")
    p = p * heads["cart"](z).sigmoid()
    wanted += F.binary_cross_entropy(p.squeeze(1), targets["cart"].double(), reduction="sum")
    p = p * heads["buy"](z).sigmoid()
    wanted += F.binary_cross_entropy(p[:5, 0], targets["buy"][:5].double(), reduction="sum")
    ours = [sums_T[names.index(name)] for name in ("click", "cart", "buy")]
    torch.testing.assert_close(sum(ours), wanted)
    assert counts_T[names.index("buy")] == 5
    torch.testing.assert_close(torch.logit(p), heads.split(outputs)["buy"])

    parameters = [q for name in ("click", "cart", "buy") for q in heads[name].parameters()]
    got = torch.autograd.grad(sum(ours), parameters, retain_graph=True)
    torch.testing.assert_close(got, torch.autograd.grad(wanted, parameters))
    # the last loss reaches the first head
    (first,) = torch.autograd.grad(ours[2], heads["click"].linears[0].weight)
    assert first.any()


def model_of(balancer, tasks=TASKS, sharing=HardSharing):
    make = partial(MLP, width=6, depth=1)
    parts = make, sharing, balancer, partial(SGD, lr=0.1), None
    model = MultiTaskModel(tasks, InputShape((4,)), *parts)
    model._trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, use_distributed_sampler=False, **QUIET
    )
    model.configure_model()
    return model.double()


def batch_of():
    draw = torch.Generator().manual_seed(1)
    click, cart, buy = torch.rand(3, 24, generator=draw, dtype=torch.float64) < 0.7
    targets = {"click": click, "cart": click & cart, "buy": click & cart & buy}
    targets = {name: target.double() for name, target in targets.items()}
    targets["number"] = torch.randn(24, generator=draw, dtype=torch.float64)
    targets["buy"][:5] = torch.nan
    return Batch(torch.randn(24, 4, generator=draw, dtype=torch.float64), targets, torch.arange(24))


def product_losses(model, batch, features):
    """One task after the other, from their definition."""
    losses = []
    for name in model.names:
        task, target = model.tasks[name], batch.targets[name]
        outputs = model.heads[name](features[name])
        parent = getattr(task, "depends_on", None)
        while parent is not None:
            factor = model.heads[parent](features[parent])
            outputs = torch.logit(outputs.sigmoid() * factor.sigmoid())
            parent = model.tasks[parent].depends_on
        losses.append(task.losses(outputs, target).sum() / (~target.isnan()).sum())
    return losses


@pytest.mark.parametrize("balancer", [Halves, Squares])
@pytest.mark.parametrize("level", ["features", "parameters"])
def test_gradients_of_tasks_are_those_of_products(balancer, level, monkeypatch):
    monkeypatch.setattr(test_levels, "task_losses", product_losses)
    model = model_of(partial(balancer, level=level))
    batch = batch_of()
    model.check(1)
    model.training_step(batch, 0).backward()
    expected = reference(model, batch, level)
    for name, p in (*model.sharing.named_parameters(), *model.heads.named_parameters()):
        torch.testing.assert_close(p.grad, expected[id(p)], rtol=1e-7, atol=1e-10, msg=name)


def test_the_gramian_is_that_of_products(monkeypatch):
    model = model_of(StaticWeights)
    batch = batch_of()
    z = model.sharing(batch.inputs)["click"].detach().requires_grad_()
    losses = product_losses(model, batch, dict.fromkeys(TASKS, z))
    rows = [torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses]
    J = torch.stack(rows)
    torch.testing.assert_close(model.task_gramian(batch), J @ J.T, rtol=1e-8, atol=1e-12)


def test_heads_that_cannot_be_told_apart_are_refused():
    words = "with entire_space the loss of 'cart' reads the head of 'click', too"
    with pytest.raises(UserError, match=words):
        model_of(partial(PCGrad, level="parameters"), sharing=Separate).check(1)
    pooled = TASKS | {"click": binary(pooled=True)}
    with pytest.raises(UserError, match="with HardSharing and without pooled alone: choose these"):
        model_of(PCGrad, pooled).check(1)
    model_of(StaticWeights, pooled, Separate).check(1)


class Shop(MultiTaskDataModule):
    """Clicks rise with the first input, purchases among them fall with it.

    Args:
        kind: entire, or where to learn purchases from clicked rows alone.
    """

    def __init__(self, kind):
        super().__init__(batch_size=256, eval_batch_size=1000)
        self.kind = kind
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(4000, 3, generator=draw)
        odds = torch.stack([3 * self.x[:, 0] - 1, self.x[:, 1] - 1.5 * self.x[:, 0]])
        self.odds = odds
        click, wish = torch.rand(2, 4000, generator=draw) < odds.sigmoid()
        self.labels = {"click": click.float(), "buy": (click & wish).float()}

    @property
    def tasks(self):
        dependence = {"depends_on": "click", "entire_space": True}
        if self.kind == "where":
            dependence = {"where": "click"}
        return {"click": binary(), "buy": binary(**dependence)}

    @property
    def input_shape(self):
        return InputShape((3,))

    def split(self, name):
        rows = slice(0, 2000) if name == "train" else slice(2000, None)
        return Rows(self.x[rows], {key: y[rows] for key, y in self.labels.items()})


def fit(kind):
    data = Shop(kind)
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        encoder=partial(MLP, width=16, depth=1),
        optimizer=partial(AdamW, lr=0.02),
        scheduler=None,
    )
    bare_trainer(1, 15).fit(model, data)
    with torch.no_grad():
        outputs = model.eval()(data.x[2000:])
    return data, {name: output.squeeze(1) for name, output in outputs.items()}


def test_the_entire_space_ranks_all_rows_where_clicked_rows_alone_mislead():
    data, outputs = fit("entire")
    bought = data.labels["buy"][2000:]
    entire = roc_auc_score(bought, outputs["buy"])
    _, biased = fit("where")
    alone = roc_auc_score(bought, biased["buy"])
    true = roc_auc_score(bought, data.odds[:, 2000:].sigmoid().prod(0))
    assert alone < true - 0.1
    assert entire > true - 0.02

    # the factors are what they are called
    error = outputs["click"].sigmoid() - data.odds[0, 2000:].sigmoid()
    assert error.abs().mean() < 0.05
    assert (outputs["buy"] < outputs["click"]).all()


def test_the_stream_of_batches_has_the_labels_that_count():
    data = Shop("where")
    (batch,) = list(data.val_dataloader())[:1]
    assert isinstance(batch, Batch)
    assert (batch.targets["buy"].isnan() == (batch.targets["click"] == 0)).all()
    # the labels as they are read stay
    assert not data.split("val").targets["buy"].isnan().any()
    other = data.other_batch("val", 3)
    assert (other.targets["buy"].isnan() == (other.targets["click"] == 0)).all()
