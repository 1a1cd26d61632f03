import warnings
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from src.balancing import UncertaintyWeights
from src.batch import Batch, InputShape
from src.data import MultiTaskDataModule, Rows
from src.models import MultiTaskModel, WarmupCosine
from src.models.encoders import MLP
from src.models.sharing import MTAN, CrossStitch, HardSharing, MMoE, Separate
from src.tasks import (
    MISSING,
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
)
from src.tasks.decisions import find_best_threshold

NAN = float("nan")
TASKS = {
    "kind": Classification(classes=("a", "b", "c"), class_weights=(1.0, 2.0, 0.5)),
    "other": Classification(classes=("x", "y", "z"), class_weights=(1.0, 2.0, 0.5), weight=0.25),
    "flag": BinaryClassification(classes=(0, 1), pos_weight=2.0),
    "size": Regression(mean=(1.0,), std=(2.0,)),
    "tags": MultilabelClassification(labels=("u", "v")),
}
SMALL = partial(MLP, width=8, depth=1)


class Tiny(MultiTaskDataModule):
    """22 rows to train in 3 global batches of 8, 11 to validate."""

    def __init__(self, tasks=None, **settings):
        super().__init__(**{"batch_size": 8, "eval_batch_size": 4, **settings})
        self._tasks = tasks or TASKS

    @property
    def tasks(self):
        return self._tasks

    @property
    def input_shape(self):
        return InputShape((5,))

    def split(self, name):
        rng = np.random.default_rng(len(name))
        n = 22 if name == "train" else 11
        gone = rng.random((5, n)) < 0.3
        gone[:, :2] = False
        targets = {
            "kind": torch.tensor(np.where(gone[0], MISSING, np.arange(n) % 3)),
            "other": torch.tensor(np.where(gone[1], MISSING, np.arange(n) % 3)),
            "flag": torch.tensor(np.where(gone[2], NAN, np.arange(n) % 2), dtype=torch.float32),
            "size": torch.tensor(np.where(gone[3], NAN, rng.normal(size=n)), dtype=torch.float32),
            "tags": torch.tensor(
                np.where(gone[4][:, None], NAN, np.arange(2 * n).reshape(n, 2) // 2 % 2),
                dtype=torch.float32,
            ),
        }
        x = torch.tensor(rng.normal(size=(n, 5)), dtype=torch.float32)
        return Rows(x, {task: targets[task] for task in self.tasks})


def model_of(tasks=None, **settings):
    return MultiTaskModel(tasks or TASKS, InputShape((5,)), **{"encoder": SMALL, **settings})


def built(**settings):
    model = model_of(**settings)
    model.configure_model()
    return model


def trainer_of(**settings):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "use_distributed_sampler": False,
            **quiet,
            **settings,
        }
    )


def fit(model, data=None, callbacks=(), **settings):
    trainer = trainer_of(callbacks=list(callbacks), **settings)
    trainer.fit(model, data or Tiny())
    return trainer


class Rates(L.Callback):
    """Keeps the learning rates of each step."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append([group["lr"] for group in optimizer.param_groups])


# -- the network -----------------------------------------------------------------------------------
def test_initial_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = built(seed=7)
    assert torch.equal(torch.get_rng_state(), before)  # and leave the global generator as it was
    torch.manual_seed(2)
    torch.rand(100)
    again, other = built(seed=7), built(seed=8)
    for (name, p), q, r in zip(
        first.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(p, q), name
        assert not torch.equal(p, r) or not p.any() or bool((p == 1).all()), (
            name
        )  # norms begin at 1 and 0
    built_twice = first.heads
    first.configure_model()
    assert first.heads is built_twice


def test_outputs():
    out = built()(torch.randn(6, 5))
    assert {name: tuple(o.shape) for name, o in out.items()} == {
        "kind": (6, 3),
        "other": (6, 3),
        "flag": (6, 1),
        "size": (6, 1),
        "tags": (6, 2),
    }


def test_a_model_without_tasks_and_bad_names_are_refused():
    with pytest.raises(ValueError, match="at least one task"):
        MultiTaskModel({}, InputShape((5,)))
    for name in ("a.b", ""):
        with pytest.raises(ValueError, match=f"cannot be named '{name}'"):
            model_of({name: Regression()})


# -- losses ----------------------------------------------------------------------------------------
def plain_loop(model, batch):
    """Mean element loss per task over its labels, one task after the other."""
    z = model.sharing.encoder(batch.inputs)
    losses = {}
    for name, task in model.tasks.items():
        target = batch.targets[name]
        elements = task.losses(model.heads[name](z), target)
        count = int(
            (~target.isnan()).sum() if target.is_floating_point() else (target != MISSING).sum()
        )
        losses[name] = elements.sum() / max(count, 1)
    return losses


def test_loss_and_gradients_of_a_step_are_those_of_a_plain_loop():
    model = built()
    batch = Tiny().split("train")[torch.arange(12)]
    model._trainer = trainer_of()
    model.zero_grad()
    loss = model.training_step(batch, 0)
    loss.backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    losses = plain_loop(model, batch)
    total = sum(TASKS[name].weight * value for name, value in losses.items())
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-6)
    np.testing.assert_allclose(
        model.step.losses_T,
        [TASKS[name].weight * losses[name].item() for name in model.names],
        rtol=1e-6,
    )
    for name, p in model.named_parameters():
        np.testing.assert_allclose(got[name], p.grad, rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_task_without_labels_has_loss_0_and_finite_gradients():
    model = built()
    batch = Tiny().split("train")[torch.arange(12)]
    batch.targets["flag"].fill_(NAN)
    batch.targets["other"].fill_(MISSING)
    model._trainer = trainer_of()
    model.training_step(batch, 0).backward()
    values = dict(zip(model.names, model.step.losses_T.tolist(), strict=True))
    present = dict(zip(model.names, (model.step.sums_2T[1] > 0).tolist(), strict=True))
    assert present == {"kind": True, "other": False, "flag": False, "size": True, "tags": True}
    assert values["flag"] == values["other"] == 0
    for name in ("flag", "other"):
        assert all(p.grad is not None and not p.grad.any() for p in model.heads[name].parameters())
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert any(p.grad.any() for p in model.sharing.parameters())


def test_padding_rows_change_nothing():
    rows = Tiny().split("train")
    values = []
    for ids in ([3, 5, 7], [3, 5, 7, -1, -1]):
        model = built()
        model._trainer = trainer_of()
        loss = model.training_step(rows[torch.tensor(ids)], 0)
        loss.backward()
        values.append([loss.item(), *(p.grad.square().sum().item() for p in model.parameters())])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5, atol=1e-12)


class Penalised(HardSharing):
    """Hard sharing with half the square of the first weight for a penalty."""

    def penalty(self):
        return self.encoder.stages[0][1].weight[0, 0].square() / 2


def test_a_penalty_is_added_to_the_step():
    batch = Tiny().split("train")[torch.arange(12)]
    plain, penalised = built(), built(sharing=Penalised)
    losses = []
    for model in (plain, penalised):
        model._trainer = trainer_of()
        loss = model.training_step(batch, 0)
        loss.backward()
        losses.append(loss.item())
    weight = plain.sharing.encoder.stages[0][1].weight
    other = penalised.sharing.encoder.stages[0][1].weight
    assert losses[1] - losses[0] == pytest.approx(weight[0, 0].item() ** 2 / 2, abs=1e-6)
    assert (other.grad - weight.grad)[0, 0].item() == pytest.approx(weight[0, 0].item(), abs=1e-6)


# -- optimisation ----------------------------------------------------------------------------------
def test_parameter_groups_hold_every_parameter_once():
    model = built(
        lr_multipliers={"encoder": 0.1, "size": 3.0, "balancer": 2.0}, balancer=UncertaintyWeights
    )
    groups = model.parameter_groups(0.5)
    assert [(g["name"], g["lr"]) for g in groups] == [
        ("encoder", 0.05),
        ("heads", 0.5),
        ("size", 1.5),
        ("balancer", 1.0),
    ]
    assert [group.get("weight_decay") for group in groups] == [None, None, None, 0.0]
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}
    assert {id(p) for p in groups[2]["params"]} == {id(p) for p in model.heads["size"].parameters()}
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.sharing.parameters()}
    assert {id(p) for p in groups[3]["params"]} == {id(model.balancer.log_variances_T)}


def test_heads_that_all_have_a_multiplier_leave_no_empty_group():
    groups = built(lr_multipliers=dict.fromkeys(TASKS, 2.0)).parameter_groups(1.0)
    assert [group["name"] for group in groups] == ["encoder", *TASKS]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sise", "; did you mean 'size'?"),
        ("encoders", "; did you mean 'encoder'?"),
        ("qqqqq", "nor a task$"),
    ],
)
def test_an_unknown_multiplier_is_named_with_the_nearest_name(name, hint):
    with pytest.raises(
        ValueError, match=f"model.lr_multipliers names '{name}'.*{hint.replace('?', '[?]')}"
    ):
        model_of(lr_multipliers={name: 2.0})


@pytest.mark.parametrize("name", ["encoder", "heads"])
def test_a_task_with_the_name_of_a_group(name):
    tasks = {name: TASKS["size"], "flag": TASKS["flag"]}
    model = built(tasks=tasks)
    ids = [id(p) for group in model.parameter_groups(1.0) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    with pytest.raises(ValueError, match=f"'{name}', a task with a parameter group's name"):
        model_of(tasks, lr_multipliers={name: 2.0})


def test_one_step_of_sgd_by_hand_at_each_groups_own_rate():
    model = model_of(
        optimizer=partial(SGD, lr=0.1),
        scheduler=None,
        lr_multipliers={"encoder": 0.5, "tags": 0.0, "size": 4.0},
    )
    data = Tiny(batch_size=22)
    reference = built()
    total = sum(
        TASKS[name].weight * value
        for name, value in plain_loop(reference, data.split("train")[torch.arange(22)]).items()
    )
    total.backward()
    fit(model, data, max_epochs=1, limit_val_batches=0)
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        rate = (
            0.05
            if name.startswith("sharing")
            else {"size": 0.4, "tags": 0.0}.get(name.split(".")[1], 0.1)
        )
        np.testing.assert_allclose(
            p.detach(), (q - rate * q.grad).detach(), rtol=1e-4, atol=1e-6, err_msg=name
        )


SCHEDULES = {
    "constant": (None, None, [1.0] * 6),
    "per epoch": (partial(StepLR, step_size=1, gamma=0.1), None, [1.0] * 3 + [0.1] * 3),
    "per step": (partial(StepLR, step_size=2, gamma=0.1), "step", [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
    "cosine": (partial(CosineAnnealingLR, T_max=2), None, [1.0] * 3 + [0.5] * 3),
    "warmup cosine": (
        partial(WarmupCosine, warmup=0.34),
        None,
        [0.5, 1.0, 1.0, (1 + np.cos(np.pi / 4)) / 2, 0.5, (1 + np.cos(3 * np.pi / 4)) / 2],
    ),
    "warmup cosine per epoch": (
        partial(WarmupCosine, warmup=0.0, total_steps=4),
        "epoch",
        [1.0] * 3 + [(1 + np.cos(np.pi / 4)) / 2] * 3,
    ),
}


@pytest.mark.parametrize(("scheduler", "interval", "wanted"), SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_in_a_real_run(scheduler, interval, wanted):
    rates = Rates()
    optimizer = partial(SGD, lr=0.2)
    model = model_of(
        optimizer=optimizer,
        scheduler=scheduler,
        scheduler_interval=interval,
        lr_multipliers={"encoder": 0.5},
    )
    fit(model, callbacks=[rates], limit_val_batches=0)
    np.testing.assert_allclose(rates.steps, [[0.1 * w, 0.2 * w] for w in wanted], rtol=1e-9)


def test_one_cycle_in_a_real_run():
    rates = Rates()
    scheduler = partial(OneCycleLR, max_lr=1.0, total_steps=6, cycle_momentum=False)
    fit(
        model_of(optimizer=partial(SGD, lr=0.1), scheduler=scheduler, scheduler_interval="step"),
        callbacks=[rates],
        limit_val_batches=0,
    )
    probe = OneCycleLR(
        SGD([nn.Parameter(torch.zeros(1))], lr=0.1), max_lr=1.0, total_steps=6, cycle_momentum=False
    )
    wanted = []
    for _ in range(6):
        wanted.append(probe.get_last_lr() * 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no optimizer stepped
            if len(wanted) < 6:
                probe.step()
    np.testing.assert_allclose(rates.steps, wanted, rtol=1e-9)


def test_plateau_watches_the_score_and_wants_mode_max():
    rates = Rates()
    plateau = partial(
        ReduceLROnPlateau, mode="max", patience=0, factor=0.1, threshold=1e9
    )  # nothing is ever better
    fit(
        model_of(optimizer=partial(SGD, lr=0.2), scheduler=plateau), callbacks=[rates], max_epochs=3
    )
    assert [lr for lr, _ in rates.steps[::3]] == pytest.approx([0.2, 0.2, 0.02])
    with pytest.raises(ValueError, match=r"--model.scheduler.mode max"):
        fit(model_of(scheduler=ReduceLROnPlateau))


def test_what_torch_cannot_take_is_named():
    with pytest.raises(ValueError, match=r"model.optimizer: Invalid momentum"):
        fit(model_of(optimizer=partial(SGD, lr=0.1, momentum=-1)))
    with pytest.raises(ValueError, match=r"model.optimizer or model.scheduler: .*pct_start"):
        fit(model_of(scheduler=partial(OneCycleLR, max_lr=1.0, total_steps=6, pct_start=2.0)))


def test_a_run_without_end_needs_another_schedule():
    with pytest.raises(ValueError, match="WarmupCosine needs an end"):
        fit(model_of(), max_epochs=-1)
    endless = partial(WarmupCosine, warmup=0.5, total_steps=4)
    rates = Rates()
    fit(
        model_of(optimizer=partial(SGD, lr=1.0), scheduler=endless),
        callbacks=[rates],
        max_epochs=-1,
        max_steps=5,
        limit_val_batches=0,
    )
    np.testing.assert_allclose(np.array(rates.steps)[:, 0], [0.5, 1, 1, 0.5, 0], atol=1e-12)


def test_a_run_is_a_function_of_its_seed():
    """Dropout and batches do not depend on earlier draws from the global generator either."""

    def weights(seed):
        torch.rand(int(seed) + 3)
        model = model_of(
            encoder=partial(MLP, width=8, depth=1, dropout=0.5),
            optimizer=partial(Adam, lr=0.01),
            seed=seed,
        )
        fit(model, Tiny(seed=seed))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = weights(1)
    torch.manual_seed(99)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


# -- evaluation ------------------------------------------------------------------------------------
@pytest.mark.parametrize("eval_batch_size", [4, 11, 100])
def test_validation_metrics_do_not_depend_on_the_batches(eval_batch_size):
    model = model_of()
    data = Tiny(eval_batch_size=eval_batch_size)
    trainer = trainer_of()
    (logged,) = trainer.validate(model, data, verbose=False)
    batch = data.split("val")[torch.arange(11)]
    with torch.no_grad():
        outputs, losses = model(batch.inputs), plain_loop(model, batch)
    scores = []
    for name, task in TASKS.items():
        metrics = task.build_metrics()
        metrics.update(**task.measure(outputs[name], batch.targets[name]))
        computed = task.choose(metrics).compute(metrics)
        scores.append(task.score(computed))
        assert logged[f"val/{name}/loss"] == pytest.approx(losses[name].item(), rel=1e-5)
        for metric, value in computed.items():
            assert logged[f"val/{name}/{metric}"] == pytest.approx(
                value.item(), rel=1e-5, nan_ok=True
            ), f"{name} {metric}"
    assert logged["val/score"] == pytest.approx(np.mean(scores), rel=1e-5)
    (again,) = trainer.test(model, data, verbose=False)
    assert {key for key in again if "/" in key} == {
        key.replace("val/", "test/") for key in logged if "/" in key
    }


def test_a_task_without_labels_has_no_metrics_and_leaves_the_score():
    tasks = {"flag": TASKS["flag"], "size": TASKS["size"]}

    class Unlabelled(Tiny):
        def split(self, name):
            rows = super().split(name)
            rows.targets["flag"].fill_(NAN)
            return rows

    (logged,) = trainer_of().validate(model_of(tasks), Unlabelled(tasks), verbose=False)
    assert np.isnan(
        [logged[f"val/{key}"] for key in ("flag/loss", "flag/auroc", "flag/accuracy")]
    ).all()
    assert logged["val/score"] == pytest.approx(logged["val/size/r2"])


RARE = {
    "fraud": BinaryClassification(classes=("no", "yes")),
    "tags": MultilabelClassification(labels=("u", "v"), per_label=True),
}


class Rare(Tiny):
    """Few positives, in other rows of each split, that the first input gives away."""

    def split(self, name):
        rng = np.random.default_rng(len(name))
        x = torch.tensor(rng.normal(size=(60, 5)), dtype=torch.float32)
        fraud = (x[:, 0] > 1).float()
        return Rows(x, {"fraud": fraud, "tags": torch.stack([fraud, (x[:, 1] > 1.2).float()], 1)})


def learnt(**settings):
    """A model after four epochs, when it still gives every row less than 0.5."""
    model = model_of(RARE, optimizer=partial(Adam, lr=0.005), scheduler=None)
    return model, fit(model, Rare(RARE), max_epochs=4, **settings)


def test_a_threshold_is_chosen_by_validation_and_kept_for_the_test():
    model, trainer = learnt()
    rows = Rare(RARE).split("val")
    with torch.no_grad():
        outputs = model.eval()(rows.inputs)
    scores, labels = outputs["fraud"].double().sigmoid().flatten(), rows.targets["fraud"]
    threshold = model.chosen_tasks["fraud"].threshold
    assert threshold == pytest.approx(find_best_threshold(scores, labels == 1), rel=1e-5)
    assert threshold < 0.4
    assert model.tasks["fraud"].threshold is None
    f1 = f1_score(labels, scores > threshold)
    assert trainer.callback_metrics["val/fraud/f1"].item() == pytest.approx(f1)
    assert f1 > f1_score(labels, scores > 0.5)

    (test,) = trainer.test(model, Rare(RARE), verbose=False)
    rows = Rare(RARE).split("test")
    with torch.no_grad():
        outputs = model.eval()(rows.inputs)
    guess = np.array(model.decode("fraud", outputs["fraud"])[""]) == "yes"
    assert test["test/fraud/f1"] == pytest.approx(f1_score(rows.targets["fraud"], guess))
    assert test["test/fraud/accuracy"] == pytest.approx(
        (guess == rows.targets["fraud"].numpy()).mean()
    )
    assert guess.any()
    assert model.chosen_tasks["fraud"].threshold == threshold
    tags = model.decode("tags", outputs["tags"])
    for label, column in zip("uv", rows.targets["tags"].T, strict=True):
        assert test[f"test/tags/f1/{label}"] == pytest.approx(
            f1_score(column, tags[label], zero_division=NAN), nan_ok=True
        )
    u, v = model.chosen_tasks["tags"].thresholds
    assert model.summary() == [
        f"threshold of fraud: {threshold:.4g}, chosen on validation rows",
        f"thresholds of tags: u {u:.4g}, v {v:.4g}, chosen on validation rows",
    ]


def test_thresholds_come_with_the_checkpoint(tmp_path):
    model, trainer = learnt()
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = model_of(RARE)
    trainer_of().test(
        other, Rare(RARE), ckpt_path=tmp_path / "a.ckpt", verbose=False, weights_only=False
    )
    assert other.chosen_tasks == model.chosen_tasks
    by_hand = model_of(
        {**RARE, "fraud": BinaryClassification(classes=("no", "yes"), threshold=0.25)}
    )
    by_hand.on_load_checkpoint(torch.load(tmp_path / "a.ckpt", weights_only=False))
    assert by_hand.chosen_tasks["fraud"].threshold == 0.25
    assert by_hand.chosen_tasks["tags"] == model.chosen_tasks["tags"]
    by_hand.configure_model()
    assert by_hand.summary() == model.summary()[1:]


def test_only_validation_chooses_thresholds():
    model = model_of(RARE)
    trainer = trainer_of(limit_val_batches=0, max_epochs=1)
    trainer.fit(model, Rare(RARE))
    trainer.test(model, Rare(RARE), verbose=False)
    assert model.chosen_tasks == RARE
    assert model.summary() == []
    sanity = model_of(RARE)
    fit(sanity, Rare(RARE), num_sanity_val_steps=2, max_steps=0)
    assert sanity.chosen_tasks == RARE


# names that mean something elsewhere: stages, keys, attributes, parts of the model, metrics
NAMES = (
    *(
        "loss",
        "score",
        "test",
        "val",
        "id",
        "step",
        "epoch",
        "f1",
        "r2",
        "train",
        "penalty",
        "weight",
        "lr",
        "metrics",
    ),
    *(
        "heads",
        "encoder",
        "balancer",
        "sharing",
        "tasks",
        "names",
        "gradient",
        "throughput",
        "type",
        "training",
        "forward",
    ),
)


@pytest.mark.parametrize("sharing", [HardSharing, MMoE, Separate, CrossStitch, MTAN])
def test_tasks_of_any_name_have_values_of_their_own(sharing):
    """Task k's label is k + 1 wherever its input is positive, so that each one's values can be told
    from the others'.
    """
    tasks = {name: Regression(mean=(0.0,), std=(1.0,)) for name in NAMES}

    class Named(Tiny):
        def split(self, name):
            x = torch.tensor(
                np.random.default_rng(len(name)).normal(size=(16, 5)), dtype=torch.float32
            )
            targets = {name: (k + 1) * (x[:, 0] > 0).float() for k, name in enumerate(NAMES)}
            return Rows(x, targets)

    model, data = model_of(tasks, sharing=sharing), Named(tasks)
    trainer = fit(model, data, max_epochs=1)
    validation = dict(trainer.callback_metrics)
    (test,) = trainer.test(model, data, verbose=False)
    for stage, logged in (("val", validation), ("test", test)):
        rows = data.split(stage)
        with torch.no_grad():
            outputs = model.eval()(rows.inputs)
        for name in NAMES:
            error = (outputs[name].squeeze(-1) - rows.targets[name]).double()
            assert float(logged[f"{stage}/{name}/loss"]) == pytest.approx(
                error.square().mean().item(), rel=1e-4
            ), name
            assert float(logged[f"{stage}/{name}/mae"]) == pytest.approx(
                error.abs().mean().item(), rel=1e-4
            ), name
        scores = [max(-1.0, float(logged[f"{stage}/{name}/r2"])) for name in NAMES]
        assert float(logged[f"{stage}/score"]) == pytest.approx(np.mean(scores), rel=1e-4)
        assert {key for key in logged if "/" in key} == {
            f"{stage}/score",
            *(
                f"{stage}/{name}/{metric}"
                for name in NAMES
                for metric in ("loss", "mae", "rmse", "r2")
            ),
        }
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    assert set(checkpoint["tasks"]) == set(NAMES)


def test_the_score_is_not_ruled_by_one_hopeless_task():
    tasks = {"size": TASKS["size"], "tiny": Regression(mean=(0.0,), std=(1.0,))}

    class Hopeless(Tiny):
        def split(self, name):
            x = torch.tensor(
                np.random.default_rng(len(name)).normal(size=(11, 5)), dtype=torch.float32
            )
            tiny = torch.full((11,), NAN)
            tiny[:2] = torch.tensor([50.0, 50.1])
            return Rows(x, {"size": x[:, 0], "tiny": tiny})

    (logged,) = trainer_of().validate(model_of(tasks), Hopeless(tasks), verbose=False)
    assert logged["val/tiny/r2"] < -1000
    assert -1 < logged["val/size/r2"] < 1
    assert logged["val/score"] == pytest.approx((logged["val/size/r2"] - 1) / 2)


def test_prediction_gives_row_numbers_and_outputs():
    model, data = model_of(), Tiny()
    parts = trainer_of().predict(model, data)
    ids = torch.cat([part[0] for part in parts])
    assert ids.tolist() == list(range(11))
    outputs = torch.cat([part[1]["size"] for part in parts])
    with torch.no_grad():
        np.testing.assert_allclose(
            outputs, model.eval()(data.split("predict").inputs)["size"], rtol=1e-5, atol=1e-6
        )


def test_training_learns():
    class Easy(Tiny):
        def split(self, name):
            x = super().split(name).inputs
            return Rows(x, {"size": x[:, 0] - x[:, 1]})

    tasks = {"size": TASKS["size"]}
    model = model_of(tasks, optimizer=partial(Adam, lr=0.03), scheduler=None)
    trainer = fit(model, Easy(tasks), max_epochs=25)
    assert trainer.callback_metrics["val/size/r2"] > 0.8
    assert trainer.global_step == 75


# -- checkpoints -----------------------------------------------------------------------------------
def test_a_checkpoint_of_other_tasks_is_refused():
    model = built()
    plain = {"tasks": {name: task.describe() for name, task in TASKS.items()}}
    model.on_load_checkpoint(plain)
    with pytest.raises(
        ValueError, match=r"the checkpoint is of the tasks kind, .*, but this run has size"
    ):
        built(tasks={"size": TASKS["size"]}).on_load_checkpoint(plain)
    swapped = TASKS | {
        "kind": Classification(classes=("b", "a", "c"), class_weights=(1.0, 2.0, 0.5))
    }
    with pytest.raises(ValueError, match="task 'kind' has classes"):
        built(tasks=swapped).on_load_checkpoint(plain)
    with pytest.raises(ValueError, match=r"task 'size' has kind Regression"):
        built(tasks=TASKS | {"size": BinaryClassification(classes=(0, 1))}).on_load_checkpoint(
            plain
        )


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_weights_after_a_resume_are_those_of_an_uninterrupted_run(tmp_path, stop):
    """Three batches an epoch: stopped in the first one, at its end, and in the second one."""

    def run(steps, resume=None):
        model = model_of(
            encoder=partial(MLP, width=8, depth=1, dropout=0.3), optimizer=partial(Adam, lr=0.01)
        )
        trainer = trainer_of(max_steps=steps)
        trainer.fit(model, Tiny(), ckpt_path=resume, weights_only=False)
        return model, trainer

    # a step's rate is WarmupCosine's at the planned number of steps, so the first run plans for all
    # of them, too
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == stop:
                trainer.save_checkpoint(tmp_path / "a.ckpt")
                trainer.should_stop = True

    whole, _ = run(6)
    half = model_of(
        encoder=partial(MLP, width=8, depth=1, dropout=0.3), optimizer=partial(Adam, lr=0.01)
    )
    trainer_of(max_steps=6, callbacks=[Stop()]).fit(half, Tiny())
    resumed, trainer = run(6, tmp_path / "a.ckpt")
    assert trainer.global_step == 6
    for (name, p), q in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q), name
    assert not torch.equal(
        half.heads["size"].linears[0].weight, whole.heads["size"].linears[0].weight
    )


def test_batches_move_as_a_whole():
    batch = Batch(
        {"dense": torch.ones(2, 1), "categorical": torch.ones(2, 1)},
        {"y": torch.ones(2)},
        torch.arange(2),
    )
    moved = batch.to(torch.float64)
    assert moved.inputs["dense"].dtype == moved.targets["y"].dtype == torch.float64
    assert batch.inputs["dense"].dtype == torch.float32
    assert len(moved) == 2


def test_an_optimizer_is_fused_unless_something_else_was_asked_for():
    """The same steps but for rounding."""
    states = []
    for settings in ({}, {"foreach": True}, {"fused": False}):
        model = model_of(optimizer=partial(AdamW, lr=0.01, **settings), scheduler=None)
        trainer = fit(model, max_epochs=2)
        assert [bool(group["fused"]) for group in trainer.optimizers[0].param_groups] == [
            not settings
        ] * 2
        states.append(model.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-5, atol=1e-6)


def test_a_run_in_double_precision_starts_from_the_same_numbers():
    """Also where Lightning builds the network, with double precision by default."""
    model = model_of()
    fit(model, precision="64-true", max_epochs=0)
    for p, double in zip(built().parameters(), model.parameters(), strict=True):
        assert double.dtype == torch.float64
        assert torch.equal(p.double(), double)
