"""A chain of probabilities over all rows: its outputs, gradients, and what it is for."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch.optim import AdamW

from src.balancing import PCGrad, StaticWeights
from src.batch import Batch, InputShape
from src.data import MultiTaskDataModule, Rows
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.heads import Heads
from src.models.settings import refuse_factors
from src.tasks import BinaryClassification, Regression
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


def test_gradients_of_tasks_are_refused():
    data = Shop("entire")
    model = MultiTaskModel(data.tasks, data.input_shape, balancer=PCGrad)
    with pytest.raises(UserError, match="the loss of 'buy' reads the head of 'click', too: choose"):
        model.check(1)
    MultiTaskModel(data.tasks, data.input_shape, balancer=StaticWeights).check(1)
    refuse_factors({}, "none")


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
