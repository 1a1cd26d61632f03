"""Any sharing x any kind of balancer on labels of tokens, predicted apart and together: the
gradients of a step are those of its definition.
"""

from functools import partial

import lightning as L
import pytest
import torch
from torch.optim import SGD

from src.balancing import StaticWeights
from src.models import MultiTaskModel
from src.models.encoders import Transformer
from tests.integration.grid import Losses, cells, model_of
from tests.models.backward.test_levels import QUIET, Halves, factors, reference, task_losses
from tests.models.test_matrix import SHARINGS, gradients_of
from tests.toy import bare_trainer
from tests.toy_words import ToyWords

BALANCERS = {
    "losses": StaticWeights,
    "parameters": partial(Halves, level="parameters"),
    "features": partial(Halves, level="features"),
}


def make_model(data, sharing, balancer, encoder=None, **settings):
    encoder = encoder or partial(Transformer, width=4, depth=2, heads=2)
    parts = encoder, sharing, balancer, partial(SGD, lr=0.1), None
    model = MultiTaskModel(data.tasks, data.input_shape, *parts, **settings)
    model._trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, use_distributed_sampler=False, **QUIET
    )
    model.configure_model()
    with torch.no_grad():
        draw = torch.Generator().manual_seed(1)
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return model.double()


@pytest.mark.parametrize("sharing", list(SHARINGS))
def test_gradients_of_a_step(sharing):
    data = ToyWords()
    for level, balancer in BALANCERS.items():
        model = make_model(data, SHARINGS[sharing], balancer)
        if level == "features" and not model.sharing.one_feature:
            continue
        # the last row only fills the batch up
        batch = data.split("train")[torch.tensor([0, 1, 2, 3, 4, -1])]
        torch.manual_seed(3)
        model.training_step(batch, 0).backward()
        torch.manual_seed(3)
        if level == "losses":
            losses = task_losses(model, batch, model.sharing(batch.inputs))
            total = sum(f * loss for f, loss in zip(factors(model), losses, strict=True))
            expected = gradients_of(total, model)
        else:
            expected = reference(model, batch, level)
        torch.manual_seed(3)
        model.sharing(batch.inputs)
        if (penalty := model.sharing.penalty()) is not None:
            of_penalty = gradients_of(penalty, model)
            expected = {key: value + of_penalty[key] for key, value in expected.items()}
        for name, p in (*model.sharing.named_parameters(), *model.heads.named_parameters()):
            assert p.grad is not None, name
            torch.testing.assert_close(
                p.grad, expected[id(p)], rtol=1e-5, atol=1e-9, msg=f"{name} at {level}"
            )


BALANCING = [
    pytest.param(cell, marks=() if cell[1] in ("GradNorm", "Nash") else pytest.mark.slow)
    for cell in cells()
    if cell[0] == "balancing"
]


@pytest.mark.parametrize("cell", BALANCING, ids=lambda cell: "-".join(cell[1:]))
def test_every_balancer_trains_heads_of_tokens(cell):
    data = ToyWords()
    model = model_of(cell, data, encoder=partial(Transformer, width=8, depth=1, heads=2))
    model.configure_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = Losses()
    bare_trainer(1, 1, callbacks=[losses]).fit(model, data)
    assert torch.stack(losses.steps).isfinite().all()
    for name, p in model.named_parameters():
        if name.startswith("heads."):
            assert not torch.equal(p, before[name]), name


def test_alike_tasks_share_one_product():
    data = ToyWords()
    model = make_model(data, SHARINGS["HardSharing"], StaticWeights)
    groups = {group.names for group in model.heads.groups}
    assert groups == {("upos", "xpos"), ("deep",), ("tags",), ("genre",)}


def test_a_compiled_encoder_has_the_same_gradients():
    data = ToyWords()
    batch = data.split("train")[torch.arange(6)]
    found = []
    for compiles in (False, True):
        encoder = partial(Transformer, width=4, depth=1, heads=2)
        model = make_model(data, SHARINGS["HardSharing"], BALANCERS["features"], encoder)
        if compiles:
            # the graphs alone: no compiler of C++ is taken for granted
            model.sharing.encoder.compile(backend="aot_eager")
        model.training_step(batch, 0).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name)
