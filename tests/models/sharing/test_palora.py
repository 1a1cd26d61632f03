"""Training by preferences: what a step draws, and how it weighs."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from src.balancing import COSMOS, FAMO, AutoLambda, Balancer, PCGrad, StaticWeights
from src.checkpoint import SafeCheckpointIO
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.sharing import HardSharing, PaLoRA
from tests.toy import Toy, bare_trainer


def make_model(sharing: Any = PaLoRA, balancer: Any = StaticWeights, **settings: Any) -> Any:
    data = Toy()
    return MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(MLP, width=8, depth=1),
        sharing,
        balancer,
        partial(SGD, lr=0.05),
        None,
        **settings,
    )


class Watcher(L.Callback):
    """Keeps what each batch draws, its losses and weights."""

    def __init__(self) -> None:
        self.preferences: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.values: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, *args: Any
    ) -> None:
        step = pl_module.step
        self.preferences.append(step.preference_T.clone())
        self.weights.append(step.weights_T.clone())
        self.values.append(step.losses_T.clone())


def fit(model: Any, epochs: int = 1, start: Path | None = None, **settings: Any) -> Watcher:
    watcher = Watcher()
    trainer = bare_trainer(1, epochs, callbacks=[watcher], plugins=[SafeCheckpointIO()], **settings)
    trainer.fit(model, Toy(), ckpt_path=start)
    if start is None and "max_steps" in settings:
        trainer.save_checkpoint(Path(settings["default_root_dir"]) / "some.ckpt")
    return watcher


def test_losses_are_weighed_by_the_preference_of_the_step() -> None:
    model = make_model()
    seen = fit(model)
    drawn = torch.stack(seen.preferences)
    assert len(torch.unique(drawn, dim=0)) == len(drawn) == 14
    torch.testing.assert_close(drawn.sum(1), torch.ones(14).double())
    # the order of T is another one than that of the tasks
    names = list(model.sharing.tasks)
    latest = dict(zip(model.names, drawn[-1].tolist(), strict=True))
    assert [latest[name] for name in names] == model.sharing.drawn_T.tolist()
    for preference, weights in zip(drawn, seen.weights, strict=True):
        torch.testing.assert_close(weights.double(), 8 * preference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("annealing", [None, 2.0])
def test_a_run_that_resumes_draws_and_ends_the_same(
    tmp_path: Path, annealing: float | None
) -> None:
    sharing = partial(PaLoRA, annealing=annealing)
    whole = make_model(sharing)
    every = fit(whole, 2)

    # broken off in the second epoch; the length of the training stays what it was
    first = make_model(sharing)

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.global_step == 20:
                trainer.save_checkpoint(tmp_path / "some.ckpt")
                raise KeyboardInterrupt

    trainer = bare_trainer(1, 2, callbacks=[Stop()], plugins=[SafeCheckpointIO()])
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        trainer.fit(first, Toy())
    second = make_model(sharing)
    rest = fit(second, 2, start=tmp_path / "some.ckpt")
    assert torch.equal(torch.stack(rest.preferences), torch.stack(every.preferences[20:]))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_annealing_goes_from_even_to_spread_out() -> None:
    seen = fit(make_model(partial(PaLoRA, annealing=4.0)), 4)
    spread = torch.stack(seen.preferences).std(1)
    assert float(spread[0]) == pytest.approx(0, abs=1e-12)
    assert spread[:14].mean() < spread[14:28].mean() < spread[42:].mean()


def test_micro_batches_of_a_step_have_one_preference() -> None:
    seen = fit(make_model(), accumulate_grad_batches=3)
    drawn = torch.stack(seen.preferences)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[2], drawn[3])


@pytest.mark.parametrize("balancer", [COSMOS, FAMO, AutoLambda, PCGrad])
def test_other_balancers_train_by_preferences(balancer: type[Balancer]) -> None:
    model = make_model(balancer=balancer)
    seen = fit(model)
    assert torch.stack(seen.values).isfinite().all()
    for term in model.sharing.terms.values():
        assert term.up.any()


def test_tasks_alone_move_their_own_term_most() -> None:
    """At a preference for one task the terms of the others have no gradient."""
    model = make_model()
    model._trainer = bare_trainer(1, 1)
    model.configure_model()
    batch = Toy().split("train")[torch.arange(24)]
    model.sharing.drawn_T.copy_(torch.eye(8)[2])
    outputs = model(batch.inputs)
    sum(value.sum() for value in outputs.values()).backward()
    for term in model.sharing.terms.values():
        assert term.up.grad[2].any()
        assert not term.up.grad[[0, 1, 3, 4, 5, 6, 7]].any()


def test_an_even_preference_is_hard_sharing() -> None:
    """At the first step, when terms are 0, with T times 1 / T for every task."""
    hard = make_model(HardSharing)
    ours = make_model()
    losses = []
    for model in (hard, ours):
        model._trainer = bare_trainer(1, 1)
        model.configure_model()
        model.load_state_dict(hard.state_dict(), strict=False)
        if model is ours:
            even = torch.full((8,), 1 / 8).double()
            model.sharing.draw_preference = lambda key, progress, even=even: even
        loss = model.training_step(Toy().split("train")[torch.arange(24)], 0)
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses)
    gradients = dict(ours.named_parameters())
    for name, p in hard.named_parameters():
        torch.testing.assert_close(gradients[name].grad, p.grad, msg=name)
