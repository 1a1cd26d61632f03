"""Weights that count beside weights that train: in evaluation, in checkpoints, and back."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from src.checkpoint import load_checkpoint
from src.models import MultiTaskModel
from src.models.encoders import MLP
from src.models.optimisation.averaging import KEY, switch
from tests.cli.calling import call, refused
from tests.launching import only_run, read_json
from tests.toy import Toy

extra = pytest.importorskip("pytorch_optimizer")
BETA = 0.9
FLAGS = ("--data", "tests.toy.Toy", "--model.encoder.width", 8, "--watch.figures_every", 0)
FREE = ("--model.optimizer", "ScheduleFreeAdamW", "--model.scheduler", "null")


def weights(model: L.LightningModule) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


class Looks(L.Callback):
    """Keeps the weights in validations, around them, and the averages by their definition."""

    def __init__(self) -> None:
        self.around: list[dict[str, Tensor]] = []
        self.within: list[dict[str, Tensor]] = []
        self.wanted: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: L.Trainer, model: Any, *args: Any) -> None:
        self.latest = weights(model)
        state = trainer.optimizers[0].state
        # y = beta x + (1 - beta) z
        self.averages = {
            name: (p.detach() - (1 - BETA) * state[p]["z"]) / BETA
            for name, p in model.named_parameters()
        }

    def on_validation_epoch_end(self, trainer: L.Trainer, model: Any) -> None:
        self.around.append(self.latest)
        self.wanted.append(self.averages)
        self.within.append(weights(model))

    def on_train_epoch_end(self, trainer: L.Trainer, model: Any) -> None:
        for name, p in model.named_parameters():
            assert torch.equal(p, self.around[-1][name])


def fit(*callbacks: L.Callback, **settings: Any) -> tuple[L.Trainer, MultiTaskModel]:
    data = Toy()
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(MLP, width=8),
        optimizer=partial(extra.ScheduleFreeAdamW, lr=0.01),
        scheduler=None,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **settings,
    )
    trainer.fit(model, data)
    return trainer, model


def test_validation_sees_averages_and_changes_no_bit_of_the_training() -> None:
    looks = Looks()
    _, model = fit(looks)
    assert len(looks.within) == 2
    for within, wanted, around in zip(looks.within, looks.wanted, looks.around, strict=True):
        for name in within:
            torch.testing.assert_close(within[name], wanted[name], rtol=1e-5, atol=1e-6)
            assert not torch.equal(within[name], around[name])

    # the last weights count, too; and without validations the training is the same
    _, other = fit(limit_val_batches=0)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), looks.wanted[-1][name], rtol=1e-5, atol=1e-6)
        assert torch.equal(p, other.get_parameter(name))


def test_a_parameter_that_rests_gets_no_state() -> None:
    p, q = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = extra.ScheduleFreeAdamW([p, q])
    p.grad = torch.ones(2)
    optimizer.step()
    switch(optimizer, "eval")
    assert set(optimizer.state) == {p}


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback")
def test_a_second_average_is_refused() -> None:
    with pytest.raises(ValueError, match="averages weights itself: leave out WeightAveraging"):
        fit(WeightAveraging())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = tmp_path_factory.mktemp("logs")
    ended = call("train", *FLAGS, *FREE, "--max_epochs", 3, "--logs", logs, "--name", "free")
    assert ended.code == 0, ended.err
    return only_run(logs / "free")


def test_checkpoints_hold_the_weights_that_count(run: Path) -> None:
    last = load_checkpoint(run / "checkpoints" / "last.ckpt")
    best = load_checkpoint(run / "checkpoints" / "best.ckpt")
    assert KEY not in best
    names = list(last[KEY])
    state = last["optimizer_states"][0]["state"]
    groups = last["optimizer_states"][0]["param_groups"]
    assert len(state) == len(names)
    shapes = sorted(tuple(entry["z"].shape) for entry in state.values())
    assert shapes == sorted(tuple(last[KEY][name].shape) for name in names)
    assert all(group["train_mode"] for group in groups)

    # each pair of x and y lies on a line with one z
    zs = [entry["z"] for entry in state.values()]
    for name in names:
        x, y = last["state_dict"][name], last[KEY][name]
        z = (y - BETA * x) / (1 - BETA)
        assert any(z.shape == one.shape and torch.allclose(z, one, atol=1e-4) for one in zs), name


def test_evaluation_of_the_run_tests_what_was_selected(run: Path, tmp_path: Path) -> None:
    tested = read_json(run / "metrics.json")["test"]
    ended = call("evaluate", "--run", run, "--checkpoint", "best", "--out", tmp_path / "out.json")
    assert ended.code == 0, ended.err
    again = read_json(tmp_path / "out.json")
    found = again.get("test", again)
    for key, value in tested.items():
        assert found[key] == pytest.approx(value, rel=1e-6), key


def test_its_schedule_is_refused(tmp_path: Path) -> None:
    refused(
        call("train", *FLAGS, "--model.optimizer", "ScheduleFreeAdamW", "--logs", tmp_path),
        ["ScheduleFreeAdamW averages weights", "--model.scheduler null"],
    )
    assert not any(tmp_path.iterdir())
