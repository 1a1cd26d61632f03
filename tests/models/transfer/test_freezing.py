"""Frozen parameters keep their bits and cost nothing; thawed ones train from their epoch on."""

from functools import partial
from itertools import pairwise
from math import inf

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from src.balancing import MoCo, PCGrad, StaticWeights, UPGrad
from src.batch import InputShape
from src.data import MultiTaskDataModule, Rows
from src.errors import UserError
from src.models import MultiTaskModel
from src.models.backward.jacobian import ParameterJacobian
from src.models.dropout import Dropout
from src.models.encoders import MLP, Encoder
from src.models.transfer.finetune import Finetune
from src.models.transfer.freezing import is_bias
from src.models.transfer.parts import select_parameters
from src.tasks import Regression
from tests.models.backward.test_levels import QUIET
from tests.models.test_matrix import SHARINGS
from tests.toy import Toy, bare_trainer

# the others are in the slow tests
FEW = ("HardSharing", "MMoE", "TaskAdapters")
EACH = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in SHARINGS]

ENCODER = partial(MLP, width=6, depth=2, dropout=0.2)
SLOW = partial(AdamW, lr=0.01)


class Keep(L.Callback):
    """Keeps the weights at the start, and at the end of each epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_start(self, trainer, model):
        self.on_train_epoch_end(trainer, model)

    def on_train_epoch_end(self, trainer, model):
        self.epochs.append({name: p.detach().clone() for name, p in model.named_parameters()})


def build(finetune, sharing="HardSharing", balancer=StaticWeights, **more):
    data = Toy()
    settings = {"optimizer": SLOW, "scheduler": None, "encoder": ENCODER, **more}
    model = MultiTaskModel(
        data.tasks, data.input_shape, sharing=SHARINGS[sharing], balancer=balancer, **settings
    )
    model.finetune = finetune
    return model


def fit(model, epochs=3):
    kept = Keep()
    trainer = bare_trainer(1, epochs, callbacks=[kept], precision="64-true")
    trainer.fit(model, Toy())
    return kept.epochs, trainer


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


# -- from which epoch on ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("balancer", "sharing"),
    [
        (StaticWeights, "HardSharing"),
        (PCGrad, "HardSharing"),
        (partial(MoCo, level="parameters"), "HardSharing"),
        (partial(UPGrad, level="parameters"), "PLE"),
    ],
)
def test_parts_train_from_exactly_their_epoch(balancer, sharing):
    finetune = Finetune(["encoder", "heads.deep"], {"stages.2": 1, "encoder": 2, "heads.deep": 1})
    model = build(finetune, sharing, balancer)
    epochs, trainer = fit(model)
    top = select_parameters(model, "stages.2", "")
    encoder = select_parameters(model, "encoder", "")
    deep = select_parameters(model, "heads.deep", "")
    others = {name for name, _ in model.named_parameters()} - encoder - deep

    changes = [moved(*pair) for pair in pairwise(epochs)]
    assert changes == [others, others | top | deep, others | encoder | deep]

    # a state of the optimizer counts the steps since its parameter has begun to train
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = trainer.optimizers[0]
    steps = {names[id(p)]: int(state["step"]) for p, state in optimizer.state.items()}
    assert {steps[name] for name in others} == {42}
    assert {steps[name] for name in top | deep} == {28}
    assert {steps[name] for name in encoder - top} == {14}


@pytest.mark.parametrize("sharing", EACH)
def test_a_frozen_encoder_keeps_its_bits_under_every_architecture(sharing):
    level = StaticWeights if sharing in ("Separate", "Groups") else None
    balancer = level or partial(UPGrad, level="parameters")
    model = build(Finetune(["encoder", "heads.number"]), sharing, balancer)
    epochs, trainer = fit(model, epochs=1)
    frozen = select_parameters(model, "encoder", "") | select_parameters(model, "heads.number", "")
    others = {name for name, _ in model.named_parameters()} - frozen
    assert not moved(*epochs) & frozen
    assert moved(*epochs) & others
    assert all(model.get_parameter(name).grad is None for name in frozen)
    listed = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert listed == {id(model.get_parameter(name)) for name in others}


def test_only_biases_train():
    model = build(Finetune(bias_only=True))
    epochs, _ = fit(model, epochs=1)
    encoder = select_parameters(model, "encoder", "")
    biases = {name for name in encoder if name.endswith("bias")}
    heads = select_parameters(model, "heads", "")
    assert len(biases) == 8  # five of linear layers, one of each block's norm, and the last norm's
    assert moved(*epochs) == biases | heads
    assert is_bias("a.bias_ih_l0")
    assert is_bias("a.in_proj_bias")
    assert not is_bias("bias.weight")


def test_a_trained_head_on_frozen_features_by_hand():
    """Least squares on the features of evaluation: three steps of SGD, in float64."""

    class Line(MultiTaskDataModule):
        tasks = property(lambda _: {"y": Regression(mean=(0.0,), std=(1.0,))})
        input_shape = property(lambda _: InputShape((3,)))

        def split(self, name):
            draw = torch.Generator().manual_seed(0)
            x = torch.randn(8, 3, generator=draw)
            return Rows(x, {"y": x.sum(1)})

    data = Line(batch_size=8)
    model = MultiTaskModel(
        data.tasks, data.input_shape, ENCODER, optimizer=partial(SGD, lr=0.1), scheduler=None
    )
    model.finetune = Finetune("encoder")
    model.configure_model()
    model.double()
    rows = data.split("train")
    x, y = rows.inputs.double(), rows.targets["y"].double()
    with torch.no_grad():
        z = model.eval().sharing(x)["y"]
    model.train()
    head = model.heads["y"].linears[0]
    W, b = (p.detach().clone() for p in head.parameters())
    trainer = bare_trainer(1, 3, precision="64-true")
    trainer.fit(model, data)
    for _ in range(3):
        error = z @ W.T + b - y[:, None]
        W, b = W - 0.1 * 2 / 8 * error.T @ z, b - 0.1 * 2 / 8 * error.sum(0)
    torch.testing.assert_close(head.weight.detach(), W, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head.bias.detach(), b, rtol=1e-12, atol=1e-12)


# -- modes -----------------------------------------------------------------------------------------
class Normed(Encoder):
    """A stage with BatchNorm and dropout, and another one."""

    def __init__(self, shape):
        super().__init__(shape)
        size = shape.dense[0]
        self.stages = nn.Sequential(
            nn.Sequential(nn.Linear(size, 4), nn.BatchNorm1d(4), Dropout(0.5)),
            nn.Sequential(nn.Linear(4, 4), Dropout(0.5)),
        )
        self.features = 4


def test_frozen_modules_are_in_evaluation_until_they_train():
    model = build(Finetune("stages.0", {"stages.0": 1}), encoder=Normed)
    model.configure_model()
    frozen, other = model.sharing.encoder.stages
    assert not any(module.training for module in frozen.modules())
    assert all(module.training for module in other.modules())
    model.eval()
    assert not any(module.training for module in other.modules())
    model.train()
    assert not any(module.training for module in frozen.modules())

    norm = frozen[1]
    statistics = norm.running_mean.clone()

    class Look(L.Callback):
        seen = []

        def on_train_epoch_end(self, trainer, model):
            self.seen.append((frozen.training, torch.equal(norm.running_mean, statistics)))

    bare_trainer(1, 2, callbacks=[Look()]).fit(model, Toy())
    assert Look.seen == [(False, True), (True, False)]


def test_features_of_a_frozen_encoder_have_no_graph():
    for part, has_graph in (("encoder", False), ("stages.0", True), ("stages.2", True)):
        model = build(Finetune(part))
        model.configure_model()
        z = model.sharing(Toy().split("train")[torch.arange(4)].inputs)["number"]
        assert z.requires_grad == has_graph


# -- gradients -------------------------------------------------------------------------------------
@pytest.mark.parametrize("level", ["features", "parameters"])
@pytest.mark.parametrize("frozen", [["heads.number", "heads.deep", "heads.class"], ["stages.0"]])
def test_gradients_beside_frozen_parts(level, frozen):
    """Each gradient that is left is the one of a network in which everything trains."""
    found = []
    for finetune in (Finetune(frozen), Finetune()):
        encoder = partial(MLP, width=6, depth=2)
        model = build(finetune, balancer=partial(UPGrad, level=level), encoder=encoder)
        model._trainer = L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, use_distributed_sampler=False, **QUIET
        )
        model.configure_model()
        model.double()
        batch = Toy().split("train")[torch.arange(16)]
        batch.inputs = batch.inputs.double()
        for name, target in batch.targets.items():
            batch.targets[name] = target.double() if target.is_floating_point() else target
        if level == "parameters" and frozen == ["stages.0"]:
            # methods see the gradients in what trains alone
            for name, p in model.named_parameters():
                p.requires_grad_(p.requires_grad and ".stages.0." not in name)
            model.freezing.first |= dict.fromkeys(select_parameters(model, "stages.0", ""), inf)
        model.training_step(batch, 0).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    ours, theirs = found
    trained = {name for name, gradient in ours.items() if gradient is not None}
    frozen_names = set.union(*(select_parameters(model, part, "") for part in frozen))
    assert trained == ours.keys() - frozen_names
    for name in trained:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-12)


def test_a_jacobian_has_zeros_for_what_does_not_train_yet():
    draw = torch.Generator().manual_seed(0)
    shared = [nn.Parameter(torch.randn(3, 2, generator=draw, dtype=torch.float64)) for _ in "abc"]
    private = [nn.Parameter(torch.randn(2, generator=draw, dtype=torch.float64)) for _ in "ab"]
    x = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    ups = [torch.randn(4, 2, generator=draw, dtype=torch.float64) for _ in range(2)]

    def rows():
        tops = [sum(x @ p for p in shared) * q for q in private]
        jacobian = ParameterJacobian(shared, private)
        return (
            jacobian.rows(tops, ups, torch.zeros(2, 2, dtype=torch.float64), full_rows=True),
            jacobian.of_private(tops, ups),
        )

    whole, own = rows()
    shared[1].requires_grad_(False)
    private[0].requires_grad_(False)
    part, part_own = rows()
    torch.testing.assert_close(part[:, :6], whole[:, :6], rtol=1e-12, atol=0)
    torch.testing.assert_close(part[:, 12:], whole[:, 12:], rtol=1e-12, atol=0)
    assert not part[:, 6:12].any()
    assert not part_own[0].any()
    torch.testing.assert_close(part_own[1], own[1], rtol=1e-12, atol=0)

    # nothing shared trains, and one task's features have no graph
    for p in shared:
        p.requires_grad_(False)
    part, part_own = rows()
    assert not part.any()
    assert part.shape == whole.shape
    torch.testing.assert_close(part_own[1], own[1], rtol=1e-12, atol=0)


# -- rates -----------------------------------------------------------------------------------------
def test_rates_of_stages_do_not_depend_on_what_is_frozen():
    settings = {"stage_decay": 0.5, "lr_multipliers": {"encoder": 0.1, "deep": 3.0}}
    for frozen in ("stages.2", "stages.0", None):
        model = build(
            Finetune(frozen, {"stages.2": 1} if frozen == "stages.2" else None), **settings
        )
        model.configure_model()
        rates = {group["name"]: group["lr"] for group in model.parameter_groups(1.0)}
        expected = {"encoder.2": 0.1, "encoder.1": 0.05, "encoder.0": 0.025}
        if frozen == "stages.0":
            del expected["encoder.0"]
        assert rates == pytest.approx(expected | {"heads": 1.0, "deep": 3.0})


# -- what is refused -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("finetune", "says"),
    [
        (Finetune("nothing"), "finetune.freeze names 'nothing', which is no part"),
        (Finetune("stages.0", {"stages.1": 1}), "names 'stages.1', which is not frozen"),
        (Finetune("stages.0", {"stage.1": 1}), "finetune.thaw_at names 'stage.1', which is no"),
        (Finetune(["encoder", "heads"]), "nothing would train in epoch 0"),
        (Finetune(["encoder", "heads"], {"heads": 1}), "nothing would train in epoch 0"),
    ],
)
def test_what_fits_no_network_is_refused(finetune, says):
    with pytest.raises(UserError) as error:
        build(finetune).configure_model()
    assert says in str(error.value)


def test_a_part_that_does_not_train_anyway(tmp_path):
    class Bare(Encoder):
        def __init__(self, shape):
            super().__init__(shape)
            self.stages = nn.Sequential(nn.Linear(shape.dense[0], 3, bias=False), nn.ReLU())
            self.stages[0].requires_grad_(False)
            self.features = 3

    with pytest.raises(UserError, match=r"'stages\.0', which does not train anyway"):
        build(Finetune("stages.0"), encoder=Bare).configure_model()
    with pytest.raises(UserError, match="Bare has no biases that train"):
        build(Finetune(bias_only=True), encoder=Bare).configure_model()


def test_a_thaw_that_never_comes_warns():
    with pytest.warns(UserWarning, match="thaw_at.encoder is 2, but the run ends after 2 epochs"):
        fit(build(Finetune("encoder", {"encoder": 2})), epochs=2)


def test_what_trains_in_words():
    model = build(Finetune(["stages.0", "heads.rare"], {"stages.0": 3}), "MMoE")
    model.configure_model()
    (line,) = model.freezing.describe(model)
    everything = sum(p.numel() for p in model.parameters())
    frozen = sum(
        model.get_parameter(name).numel()
        for part in ("stages.0", "heads.rare")
        for name in select_parameters(model, part, "")
    )
    assert line.startswith(f"finetune trains {everything - frozen:,} of {everything:,} parameters:")
    assert "heads.rare 0 of 7" in line
    assert line.endswith("; stages.0 +108 from epoch 3")
    with model.freezing.after_thaw(model):
        assert all(
            model.get_parameter(n).requires_grad for n in select_parameters(model, "stages.0", "")
        )
    assert not any(
        model.get_parameter(n).requires_grad for n in select_parameters(model, "stages.0", "")
    )

    plain = build(Finetune())
    plain.configure_model()
    assert plain.freezing.describe(plain) == []
