from functools import partial

import pytest
import torch
import torch.nn.functional as F

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders import MLP, Transformer
from src.models.sharing import AITM, check_owners

SHAPE = InputShape((5,))
TASKS = ["view", "cart", "buy"]


def made(**settings):
    torch.manual_seed(0)
    return AITM(partial(MLP, SHAPE, width=4), TASKS, **settings).double()


def test_features_are_those_of_the_paper():
    sharing = made(width=3)
    x = SHAPE.example(6).double()
    shared = sharing.encoder(x)
    features = sharing(x)
    assert sharing.feature_sizes == {"view": 3, "cart": 3, "buy": 3}

    z = F.gelu(sharing.towers[0](shared))
    torch.testing.assert_close(features["view"], z)
    for task, tower, transfer in zip(TASKS[1:], sharing.towers[1:], sharing.transfers, strict=True):
        p = F.gelu(transfer.information(z))
        q = F.gelu(tower(shared))
        scores = [(transfer.query(u) * transfer.key(u)).sum(1) / 3**0.5 for u in (p, q)]
        a = torch.stack(scores).exp()
        a = a / a.sum(0)
        z = a[0, :, None] * transfer.value(p) + a[1, :, None] * transfer.value(q)
        torch.testing.assert_close(features[task], z)


def test_the_chain_may_have_another_order_than_the_tasks():
    sharing = made(order=["buy", "view", "cart"])
    x = SHAPE.example(6).double()
    features = sharing(x)
    assert list(features) == TASKS
    torch.testing.assert_close(features["buy"], F.gelu(sharing.towers[0](sharing.encoder(x))))
    check_owners(sharing.float(), SHAPE.example())
    # a task reaches the towers of the tasks before it
    owners = {id(p): owned.tasks for owned in sharing.owners() for p in owned.parameters}
    of_towers = [owners[id(tower.weight)] for tower in sharing.towers]
    assert of_towers == [("buy", "view", "cart"), ("view", "cart"), ("cart",)]


def test_a_single_task_is_a_tower():
    sharing = AITM(partial(MLP, SHAPE, width=4), ["view"])
    z = sharing.eval()(SHAPE.example(6))["view"]
    assert z.shape == (6, 4)
    assert sharing.observe() == {}
    assert sharing.summary({}) == []


def test_attention_is_the_mean_over_real_tokens():
    shape = InputShape(tokens=9)
    torch.manual_seed(0)
    sharing = AITM(partial(Transformer, shape, width=4, depth=1, heads=2), TASKS[:2]).eval()
    tokens = torch.tensor([[3, 4, 5], [6, 7, 0]])
    features = sharing({"tokens": tokens})
    assert not features["cart"][1, 2].any()
    (together,) = sharing.observe().values()

    # a shorter padding changes nothing
    sharing({"tokens": tokens[1:, :2]})
    (alone,) = sharing.observe().values()
    torch.testing.assert_close(together[1:], alone)
    means = {"transfer": together.mean(0)}
    share = float(means["transfer"][0])
    assert sharing.summary(means) == [f"attention to the task before: view -> cart {share:.2f}"]
    assert sharing.figures(means)["transfer"].loc["attention", "view -> cart"] == share
    # training keeps nothing
    sharing.train()({"tokens": tokens})
    assert sharing.observe() == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"order": ["view", "card", "buy"]}, "names 'card', which is no task: did you mean 'cart'"),
        ({"order": ["view", "buy"]}, "each task stands once: view, cart, buy"),
        ({"width": 0}, "width 0 must be at least 1"),
    ],
)
def test_wrong_settings(settings, words):
    with pytest.raises(UserError, match=words):
        made(**settings)
