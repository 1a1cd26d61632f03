"""The gradients that a step leaves are those that the papers define: against one backward pass per
task, in float64.
"""

from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim import SGD

from src.balancing import (
    AutoLambda,
    GradDrop,
    GradientBalancer,
    GramianBalancer,
    NashMTL,
    PCGrad,
    StaticWeights,
    UPGrad,
)
from src.models import MultiTaskModel
from src.models.backward.head_gradients import HeadActivations
from src.models.backward.jacobian import scale_for_half
from src.models.backward.levels import SurrogateLoss
from src.models.encoders import MLP
from src.models.heads import Heads
from src.models.sharing import HardSharing, Owned, Sharing
from src.rng import draw_uniform
from src.tasks import Regression
from src.tasks.head import Head
from tests.toy import Toy


class Halves(GramianBalancer):
    """Weights that depend on the whole Gramian, and on nothing else."""

    def weigh(self, problem):
        return 0.5 + np.tanh(problem.G).sum(1)


class Squares(GradientBalancer):
    """A direction that is no combination of the gradients."""

    def combine(self, rows_TN, losses, where):
        return rows_TN.sum(0) * rows_TN.abs().max()


class OwnHead(Head):
    """A head of another make, which runs by itself."""


class Bent(Regression):
    def head(self, features):
        return OwnHead(features, 1, depth=1, width=4)


class TwoFeatures(Sharing):
    """A shared layer, then an encoder of its own for every other task."""

    def __init__(self, encoder, tasks):
        super().__init__(encoder, tasks)
        self.shared, self.private = nn.Linear(5, 5), nn.ModuleList(encoder() for _ in range(2))
        self.feature_sizes = dict.fromkeys(tasks, self.private[0].features)

    def forward(self, inputs):
        x = self.shared(inputs).tanh()
        both = [encoder(x) for encoder in self.private]
        return {name: both[i % 2] for i, name in enumerate(self.tasks)}

    def owners(self):
        yield Owned(self.tasks, list(self.shared.parameters()))
        for i, encoder in enumerate(self.private):
            yield Owned(self.tasks[i::2], list(encoder.parameters()))


QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
TASKS = Toy().tasks | {"bent": Bent(mean=(0.0,), std=(1.0,))}


class Data(Toy):
    @property
    def tasks(self):
        return TASKS

    def split(self, name):
        rows = super().split(name)
        rows.targets["bent"] = rows.targets["number"] * 0.5
        return rows


def model_of(balancer, sharing=HardSharing, depth=1, **settings):
    data = Data()
    encoder = partial(MLP, width=12, depth=depth)
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        encoder,
        sharing,
        balancer,
        partial(SGD, lr=0.1),
        None,
        **settings,
    )
    model._trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, use_distributed_sampler=False, **QUIET
    )
    model.configure_model()
    return model.double()


def batch_of(first=0, last=24):
    batch = Data().split("train")[torch.arange(first, last)]
    batch.inputs = batch.inputs.double()
    batch.targets = {
        k: v.double() if v.is_floating_point() else v for k, v in batch.targets.items()
    }
    return batch


def task_losses(model, batch, features):
    """One task after the other, from their definition."""
    losses = []
    for name in model.names:
        task, target = model.tasks[name], batch.targets[name]
        elements = task.losses(model.heads[name](features[name]), target)
        count = (~target.isnan()).sum() if target.is_floating_point() else (target != -100).sum()
        losses.append(model.weights[name] * elements.sum() / count.clamp(min=1))
    return losses


def factors(model):
    """T times the preference of the step, by which what tasks share and their heads are weighed."""
    preference = model.step.preference_T
    return torch.ones(len(model.names)) if preference is None else len(preference) * preference


def reference(model, batch, level):
    """{parameter: gradient} by one backward pass per task over everything."""
    features = model.sharing(batch.inputs)
    losses = task_losses(model, batch, features)
    shared = (
        list(model.sharing.parameters())
        if level == "features"
        else list(model.sharing.shared_parameters())
    )
    ids = {id(p) for p in shared}
    own = [p for p in (*model.sharing.parameters(), *model.heads.parameters()) if id(p) not in ids]
    gradients = {
        id(p): g
        for p, g in zip(
            own,
            torch.autograd.grad(
                sum(f * loss for f, loss in zip(factors(model), losses, strict=True)),
                own,
                retain_graph=True,
                allow_unused=True,
            ),
            strict=True,
        )
    }
    places = [features[model.names[0]]] if level == "features" else shared
    rows = []
    for loss in losses:
        parts = (
            torch.autograd.grad(loss, places, retain_graph=True, materialize_grads=True)
            if places
            else [loss.new_zeros(0)]
        )
        rows.append(torch.cat([part.flatten() for part in parts]))
    J = torch.stack(rows)
    present = torch.tensor([bool(loss > 0) for loss in losses])
    if isinstance(model.balancer, Squares):
        d = J.sum(0) * J.abs().max()
    else:
        G = (J @ J.T).numpy()
        here = present.numpy() & (G.diagonal() > 0)
        w = torch.zeros(len(J), dtype=torch.float64)
        w[here] = torch.from_numpy(0.5 + np.tanh(G[np.ix_(here, here)]).sum(1))
        d = (factors(model) * w) @ J
    if level == "features":
        found = torch.autograd.grad(places[0], shared, d.view_as(places[0]))
    else:
        found = [
            part.view_as(p)
            for part, p in zip(d.split([p.numel() for p in shared]), shared, strict=True)
        ]
    return gradients | {id(p): g for p, g in zip(shared, found, strict=True)}


@pytest.mark.parametrize("balancer", [Halves, Squares])
@pytest.mark.parametrize(
    ("level", "sharing"),
    [("features", HardSharing), ("parameters", HardSharing), ("parameters", TwoFeatures)],
)
def test_gradients_of_a_step(balancer, level, sharing):
    """Heads batched and single, linear and hidden, of another make; labels missing; a task absent;
    fixed weights, one of them 0.
    """
    model = model_of(
        partial(balancer, level=level), sharing, weights={"vector": 0.3, "labels": 0.0}
    )
    batch = batch_of()
    batch.targets["binary"].fill_(torch.nan)
    model.training_step(batch, 0).backward()
    expected = reference(model, batch, level)
    for name, p in (*model.sharing.named_parameters(), *model.heads.named_parameters()):
        tolerance = {"rtol": 1e-5, "atol": 1e-9}  # a balancer's weights are handed back in fp32
        np.testing.assert_allclose(p.grad, expected[id(p)], **tolerance, err_msg=name)


def test_the_sign_of_features_reaches_graddrop():
    """Algorithm 1 of its paper, on the features and the gradients of each loss."""
    model, batch = model_of(GradDrop), batch_of()
    model.training_step(batch, 0).backward()
    z = model.sharing(batch.inputs)[model.names[0]]
    losses = task_losses(model, batch, dict.fromkeys(model.names, z))
    g = torch.stack(
        [torch.autograd.grad(x, z, retain_graph=True, materialize_grads=True)[0] for x in losses]
    )
    G = (g * z.detach().sign()).sum(1)
    P = (1 + G.sum(0) / G.abs().sum(0)) / 2
    U = draw_uniform(model.seed * 1_000_003, 0, len(P), torch.device("cpu"))
    kept = torch.where(U < P, G > 0, G < 0)
    assert 0.2 < kept.double().mean() < 0.8
    wanted = torch.autograd.grad(z, list(model.sharing.parameters()), (g * kept[:, None]).sum(0))
    for p, gradient in zip(model.sharing.parameters(), wanted, strict=True):
        np.testing.assert_allclose(p.grad, gradient, rtol=1e-5, atol=1e-9)


def test_the_value_shown_is_the_weighted_sum():
    model = model_of(partial(Halves, level="features"))
    loss = model.training_step(batch_of(), 0)
    assert loss.item() == pytest.approx(
        torch.dot(model.step.weights_T.double(), model.step.losses_T).item(), rel=1e-6
    )


@pytest.mark.parametrize("groups", ["outputs", "rows"])
def test_both_ways_to_the_gramian_agree(groups):
    """Few outputs: from the outputs alone; hidden layers as wide as the features: from the
    gradients.
    """
    wide = {"depth": 1, "width": 40} if groups == "rows" else {}
    tasks = {
        f"t{i}": Regression(
            mean=(0.0,) * (i % 2 + 1),
            std=(1.0,) * (i % 2 + 1),
            names=("u", "v") if i % 2 else (),
            **wide,
        )
        for i in range(5)
    }
    torch.manual_seed(0)
    heads = Heads(tasks, dict.fromkeys(tasks, 6)).double()
    z = torch.randn(9, 6, dtype=torch.float64)
    activations = HeadActivations()
    outputs, _ = heads.record(dict.fromkeys(tasks, z), activations)
    gradients = activations.backward(sum((out**3).sum() for out in outputs))
    rows = torch.stack(gradients.per_task()).flatten(1)
    gram_TT = gradients.gramian(gradients.stack_weights())
    np.testing.assert_allclose(gram_TT, rows @ rows.T, rtol=1e-4)
    z.requires_grad_()
    names = [name for group in heads.groups for name in group.names]
    for name, row in zip(names, gradients.per_task(), strict=True):
        (expected,) = torch.autograd.grad((heads[name](z) ** 3).sum(), z)
        np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-12)


def test_steering_obeys_scaling_and_types():
    x = torch.zeros(3, dtype=torch.bfloat16, requires_grad=True)
    (SurrogateLoss.apply(torch.tensor(7.0), [torch.tensor([1.0, 2.0, 3.0])], x) * 4).backward()
    assert x.grad.dtype == torch.bfloat16
    assert x.grad.tolist() == [4, 8, 12]


def test_scale_for_half_brings_numbers_into_the_middle_of_fp16():
    for value in (1e-9, 3e-5, 1.0, 700.0, 1e6):
        up = scale_for_half(torch.tensor([value, -value / 2]))
        assert 512 <= value * up <= 2048
        assert np.log2(up) == round(np.log2(up))
    assert scale_for_half(torch.zeros(2)) == 1.0


ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16 needs a GPU")


@pytest.mark.parametrize("precision", ["bf16-mixed", pytest.param("16-mixed", marks=ON_GPU)])
@pytest.mark.parametrize("level", ["features", "parameters"])
def test_mixed_precision_gives_nearly_the_same_step(precision, level):
    """Weights of the tasks agree to what bfloat16 and fp16 features allow, for losses far below the
    range of fp16 too.
    """
    weights = {}
    for kind in ("32-true", precision):
        data = Data()
        tiny = dict.fromkeys(data.tasks, 1e-6)
        balancer = partial(UPGrad, level=level)
        model = MultiTaskModel(
            data.tasks,
            data.input_shape,
            partial(MLP, width=12),
            balancer=balancer,
            weights=tiny,
            scheduler=None,
        )
        settings = {
            "accelerator": "auto",
            "devices": 1,
            "precision": kind,
            "max_steps": 1,
            "use_distributed_sampler": False,
            **QUIET,
        }
        L.Trainer(limit_val_batches=0, **settings).fit(model, data)
        weights[kind] = model.step.weights_T
    assert float(weights["32-true"].std()) > 0.01
    np.testing.assert_allclose(weights[precision], weights["32-true"], rtol=0.1, atol=0.02)


# -- accumulation ----------------------------------------------------------------------------------
class Noted(PCGrad):
    """Keeps the Gramians that it was asked about."""

    def weigh(self, problem):
        self.seen = [*getattr(self, "seen", []), problem.G]
        return super().weigh(problem)


def trained(balancer, **settings):
    data = Data()
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(MLP, width=12),
        balancer=balancer,
        optimizer=partial(SGD, lr=0.05),
        scheduler=None,
    )
    L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        **QUIET,
        **settings,
    ).fit(model, data)
    return model


def test_accumulation_balances_the_whole_step_once():
    """14 batches: 4 steps of 3, and one of 2 that Lightning divides by 3 all the same."""
    model = trained(partial(Noted, level="parameters"), accumulate_grad_batches=3)
    assert len(model.balancer.seen) == 5
    assert model.step.micro_batches.rows_TP is None


def test_accumulated_gradients_are_the_mean_of_those_of_the_micro_batches():
    one, several = (model_of(partial(Halves, level="parameters")) for _ in range(2))
    parts = [batch_of(0, 12), batch_of(12, 24)]
    several._trainer.accumulate_grad_batches = 2
    for batch_idx, part in enumerate(parts):
        (several.training_step(part, batch_idx) / 2).backward()
    rows_T = torch.zeros(
        len(one.names), sum(p.numel() for p in one.sharing.parameters()), dtype=torch.float64
    )
    for part in parts:
        losses = task_losses(one, part, one.sharing(part.inputs))
        for i, loss in enumerate(losses):
            if loss.requires_grad:
                g = torch.autograd.grad(loss, list(one.sharing.parameters()), retain_graph=True)
                rows_T[i] += torch.cat([x.flatten() for x in g]) / 2
    rows_T = rows_T[rows_T.any(1)]  # a task without labels in both is not there
    expected = (0.5 + (rows_T @ rows_T.T).tanh().sum(1)).numpy() @ rows_T.numpy()
    found = torch.cat([p.grad.flatten() for p in several.sharing.parameters()])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("balancer", "words"),
    [
        (
            partial(PCGrad, level="features"),
            "PCGrad would balance each micro-batch by itself.*level parameters",
        ),
        (partial(GradDrop, level="features"), "GradDrop would balance"),
        ("LogSum", "LogSum would balance.*set accumulate_grad_batches 1"),
        ("FAMO", "FAMO would balance"),
        ("GradNorm", "GradNorm would balance"),
    ],
)
def test_what_accumulation_would_make_wrong_is_refused(balancer, words):
    import src.balancing

    with pytest.raises(ValueError, match=words):
        trained(
            getattr(src.balancing, balancer) if isinstance(balancer, str) else balancer,
            accumulate_grad_batches=2,
        )


def test_features_that_no_two_tasks_share_are_refused():
    model = MultiTaskModel(TASKS, Data().input_shape, partial(MLP, width=8), TwoFeatures, NashMTL)
    with pytest.raises(
        ValueError,
        match=r"TwoFeatures gives each task its own: set --model.balancer.level parameters",
    ):
        L.Trainer(accelerator="cpu", max_epochs=1, use_distributed_sampler=False, **QUIET).fit(
            model, Data()
        )


# -- what goes over the wire -----------------------------------------------------------------------
@pytest.fixture
def two_ranks():
    """This process as the first of two, whose collectives do nothing but are counted."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    sent: list[int] = []
    real = dist.all_reduce
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            dist,
            "all_reduce",
            lambda tensor, *args, **kwargs: (
                sent.append(tensor.numel()),
                real(tensor, *args, **kwargs),
            ),
        )
        yield sent
    dist.destroy_process_group()


@pytest.mark.parametrize("level", [None, "features", "parameters"])
def test_a_step_needs_one_collective_besides_that_of_the_gradients(two_ranks, level):
    """At features level T x T numbers more than a plain step sends, at parameters level the T x P
    rows.
    """
    model = model_of(StaticWeights if level is None else partial(UPGrad, level=level))
    T, P = len(model.names), sum(p.numel() for p in model.sharing.parameters())
    model.training_step(batch_of(), 0)
    assert two_ranks == [{None: 2 * T, "features": 2 * T + T * T, "parameters": T * (P + 2)}[level]]


# -- compiled encoders -----------------------------------------------------------------------------
class Compiled(MLP):
    """An encoder whose stages are compiled, with a backend that needs no compiler of C."""

    def __init__(self, shape, width=12):
        super().__init__(shape, width=width)
        self.stages = torch.compile(self.stages, backend="aot_eager")


@pytest.mark.parametrize("level", [None, "features", "parameters"])
def test_a_compiled_encoder_gets_the_same_gradients(level):
    """Several backward passes through one compiled graph need its buffers kept."""
    balancer = StaticWeights if level is None else partial(UPGrad, level=level)
    data = Data()
    gradients = []
    for encoder in (partial(MLP, width=12), Compiled):
        model = MultiTaskModel(data.tasks, data.input_shape, encoder, balancer=balancer)
        model._trainer = L.Trainer(
            accelerator="cpu", devices=1, use_distributed_sampler=False, **QUIET
        )
        model.configure_model()
        batch = data.split("train")[torch.arange(24)]
        model.training_step(batch, 0).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)


# -- one step ahead --------------------------------------------------------------------------------
def test_auto_lambda_learns_from_the_derivative_of_another_batch_after_the_step():
    """Against differences of that loss, after steps that were taken with slightly other weights."""
    data = Data()
    model = model_of(partial(AutoLambda, first=0.5))
    model._trainer.datamodule = data
    optimizer = SGD(model.parameters(), lr=0.2)
    model._trainer.optimizers = [optimizer]
    batch, other = batch_of(), batch_of(30, 54)
    data.other_batch = lambda name, step: other
    seen = []
    model.balancer.learn_from_lookahead = lambda slopes_T, rate: seen.append((slopes_T, rate))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.training_step(batch, 0)
    assert all(
        torch.equal(value, before[key]) for key, value in model.state_dict().items()
    )  # the weights are as they were
    ((slopes_T, rate),) = seen
    assert rate == 0.2

    def after(weights):
        losses = task_losses(model, batch, model.sharing(batch.inputs))
        step = torch.autograd.grad(
            sum(w * x for w, x in zip(weights, losses, strict=True)),
            list(model.parameters()),
            allow_unused=True,
        )
        with torch.no_grad():
            for p, g in zip(model.parameters(), step, strict=True):
                if g is not None:
                    p -= rate * g
            value = float(sum(task_losses(model, other, model.sharing(other.inputs))))
        model.load_state_dict(before)
        return value

    for i in range(len(model.names)):
        low, high = (
            [0.5 + side * (j == i) for j in range(len(model.names))] for side in (-1e-4, 1e-4)
        )
        assert -rate * slopes_T[i].item() == pytest.approx(
            (after(high) - after(low)) / 2e-4, rel=1e-4, abs=1e-7
        )


def test_another_batch_is_a_function_of_the_step():
    data = Data()
    first, again, later = (data.other_batch("train", step).ids.tolist() for step in (3, 3, 4))
    assert first == again != later
    assert (
        len({row for step in range(14) for row in data.other_batch("train", step).ids.tolist()})
        == 211
    )
