"""One network over several devices gives the numbers of one device, with few copies."""

from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest
import torch
import yaml
from torch import Tensor
from torch.optim import SGD, AdamW

from src.balancing import PCGrad, StaticWeights
from src.batch import InputShape
from src.launch.topology import resolve_topology
from src.models import MultiTaskModel
from src.models.encoders import MLP, ConvNet
from src.models.sharing import MTAN, PLE, CrossStitch, HardSharing, Separate, SoftSharing
from src.monitoring.checkpoints import LastCheckpoint
from src.parallel import DDPPlacement, Placement
from src.parallel.device_transfer import DeviceTransfer
from src.parallel.placement_paths import flatten_placement, resolve_paths
from src.planning.measure import REST
from tests.cli.calling import call, refused
from tests.launching import furthest, only_run, read_json, train, weights
from tests.toy import Toy, bare_trainer
from tests.virtual_device import OnVirtual, Virtual, crossings

ROOT, OTHER = torch.device("cpu"), torch.device("vdev:0")


def model_of(
    sharing: Any = HardSharing, balancer: Any = StaticWeights, **more: Any
) -> MultiTaskModel:
    data = Toy()
    settings: dict[str, Any] = {
        "encoder": partial(MLP, width=16, depth=3, dropout=0.3),
        "optimizer": partial(AdamW, lr=0.01),
    } | more
    model = MultiTaskModel(
        data.tasks, data.input_shape, sharing=sharing, balancer=balancer, scheduler=None, **settings
    )
    model.configure_model()
    return model


def on_two(**settings: Any) -> Placement:
    """A strategy whose second device raises where devices mix."""
    strategy = Placement(**settings)
    strategy.parallel_devices = [ROOT, OTHER]
    return strategy


def there_and_back(model: MultiTaskModel) -> dict[str, int]:
    """Returns a placement of stages on both devices by turns of two, and of every second head."""
    parts = list(model.parts())
    stages = [path for path in parts if path.startswith("sharing.")]
    heads = [path for path in parts if path.startswith("heads.")]
    return {path: (0, 1, 1, 0)[k % 4] for k, path in enumerate(stages)} | {
        path: k % 2 for k, path in enumerate(heads)
    }


class Crossings(L.Callback):
    """Keeps the copies between devices in the last step."""

    def on_train_batch_start(self, *args: Any) -> None:
        crossings.clear()

    def on_train_batch_end(self, *args: Any) -> None:
        self.last = list(crossings)


def fit(model: MultiTaskModel, strategy: Any = "auto", **settings: Any) -> dict[str, Tensor]:
    """Trains for four steps, with clipping, and returns the weights.

    Later a ReLU may take rounding for a reason to switch.
    """
    if strategy != "auto":
        strategy.check(model)
    settings = {"gradient_clip_val": 2.0, "limit_train_batches": 4} | settings
    trainer = bare_trainer(1 if strategy == "auto" else 2, 1, strategy=strategy, **settings)
    with OnVirtual():
        trainer.fit(model, Toy())
    return {
        name: value.double()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference of a tensor, relative to its norm where that is not tiny."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[k] - theirs[k]).norm() / theirs[k].norm().clamp(min=1e-2)) for k in ours)


CASES: dict[str, dict[str, Any]] = {
    "static": {},
    "PCGrad, features": {"balancer": PCGrad},
    "PCGrad, parameters": {"balancer": partial(PCGrad, level="parameters")},
    "recomputed": {"checkpoint_activations": True},
    "MTAN": {"sharing": MTAN},
    "CrossStitch": {"sharing": CrossStitch},
    "PLE": {"sharing": partial(PLE, shared=1, own=1)},
    "until 2, parameters": {
        "sharing": partial(HardSharing, until=2),
        "balancer": partial(PCGrad, level="parameters"),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_one_device(case: str) -> None:
    settings = {"optimizer": partial(SGD, lr=0.05), **CASES[case]}
    model = model_of(**settings)
    assert (
        apart(fit(model, on_two(placement=there_and_back(model))), fit(model_of(**settings))) < 1e-5
    )
    assert not any(isinstance(p, Virtual) for p in model.parameters())  # home again


def test_an_architecture_that_cannot_be_cut_lies_in_one_piece() -> None:
    settings = {"sharing": partial(SoftSharing, strength=0.1), "optimizer": partial(SGD, lr=0.05)}
    assert (
        apart(
            fit(model_of(**settings), on_two(placement={"sharing": 1})), fit(model_of(**settings))
        )
        < 1e-5
    )


class Where(L.Callback):
    """Notes where parameters are while the model trains."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.places = {name: p.device for name, p in pl_module.named_parameters()}


def test_parts_lie_where_they_are_told_to() -> None:
    where = Where()
    fit(
        model_of(),
        on_two(placement={"encoder.stages.*": 1, "encoder.stages.0": 0, "heads.deep": 1}),
        callbacks=[where],
    )
    for name, device in where.places.items():
        away = name.startswith(
            (
                "sharing.encoder.stages.1",
                "sharing.encoder.stages.2",
                "sharing.encoder.stages.3",
                "heads.deep",
            )
        )
        assert device == (OTHER if away else ROOT), name


@pytest.mark.parametrize(
    ("placement", "there", "slices"),
    [
        (
            {"encoder.stages.1": 1, "encoder.stages.2": 1},
            1,
            1,
        ),  # from stage 1 to stage 2 nothing crosses
        ({"encoder.stages.1": 1, "encoder.stages.3": 1}, 2, 1),
        ({"encoder.stages.1": 1, "heads.deep": 1}, 2, 1),
        ({"encoder.stages.1": 1, "encoder.stages.2": 1}, 1, 4),
        ({}, 0, 1),
    ],
)
def test_nothing_is_copied_without_need(placement: dict[str, int], there: int, slices: int) -> None:
    watch = Crossings()
    fit(
        model_of(),
        on_two(placement=placement, micro_batches=slices),
        callbacks=[watch],
        gradient_clip_val=None,
    )
    assert len(watch.last) == 4 * there * slices  # there and back, and gradients likewise


SLICED: dict[str, dict[str, Any]] = {
    "hard": {},
    "recomputed": {"checkpoint_activations": True},
    "until 2": {"sharing": partial(HardSharing, until=2)},
    "separate": {"sharing": Separate},
    "PCGrad": {"balancer": partial(PCGrad, level="parameters")},
}


@pytest.mark.parametrize("case", SLICED)
def test_slices_give_the_numbers_of_the_whole_dropout_included(case: str) -> None:
    settings = {"optimizer": partial(SGD, lr=0.05), **SLICED[case]}
    model = model_of(**settings)
    sliced = fit(
        model, on_two(placement=there_and_back(model), micro_batches=3)
    )  # 16 rows: 6, 5 and 5
    assert apart(sliced, fit(model_of(**settings))) < 1e-5
    assert "forward" not in vars(
        model.sharing.get_submodule("encoders" if case == "separate" else "encoder")
    )


def test_slices_of_encoders_in_a_loop() -> None:
    """Convolutions stay in a loop: each encoder may lie elsewhere."""
    data = Toy()
    shape, tasks = InputShape((2, 8, 8)), {name: data.tasks[name] for name in ("class", "number")}
    inputs = shape.example(5)
    results = []
    for slices in (None, 1, 3):
        model = MultiTaskModel(
            tasks, shape, encoder=partial(ConvNet, width=4, depth=3), sharing=Separate
        )
        model.configure_model()
        stages = [path for path in model.parts() if path.startswith("sharing.")]
        assert len(stages) == 6
        if slices is not None:
            places = {
                path: (ROOT, OTHER, ROOT, OTHER, OTHER, ROOT)[k] for k, path in enumerate(stages)
            }
            transfer = DeviceTransfer(
                model, places | {"heads.class": ROOT, "heads.number": OTHER}, ROOT, slices
            )
        with OnVirtual():
            loss = sum(out.square().mean() for out in model(inputs).values())
            loss.backward()
            results.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
        if slices is not None:
            transfer.remove()
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-6)


def test_a_checkpoint_knows_of_no_devices(tmp_path: Path) -> None:
    """Saved on two devices, on the CPU; resumed there to the bit, and on one device."""

    def go(strategy: Any, epochs: int, ckpt: Path | None = None) -> dict[str, Tensor]:
        model = model_of()
        trainer = bare_trainer(
            1 if strategy == "auto" else 2, epochs, strategy=strategy, limit_train_batches=5
        )
        if epochs == 1:
            cast(Any, trainer).callbacks.append(LastCheckpoint(tmp_path))
        with OnVirtual():
            trainer.fit(model, Toy(), ckpt_path=ckpt)
        return model.state_dict()

    placement = {
        "encoder.stages.1": 1
    }  # with heads there, autograd's two threads would add up in either order
    go(on_two(placement=placement), 1)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    leaves = [t for t in torch.utils._pytree.tree_leaves(kept) if isinstance(t, Tensor)]
    assert len(leaves) > 100
    assert {t.device for t in leaves} == {ROOT}
    assert not any(isinstance(t, Virtual) for t in leaves)
    there, whole = (
        go(on_two(placement=placement), 2, tmp_path / "last.ckpt"),
        go(on_two(placement=placement), 2),
    )
    here = go("auto", 2, tmp_path / "last.ckpt")
    for name, value in whole.items():
        assert there[name].equal(value), name
        torch.testing.assert_close(here[name], value, rtol=1e-4, atol=1e-6)


def test_auto_deals_stages_and_heads() -> None:
    strategy, model = on_two(), model_of()
    strategy.check(model)
    held = strategy.holds(model, 2)
    assert all(held)
    assert sorted(part for device in held for part in device) == sorted([*model.parts(), *REST])
    assert (
        apart(
            fit(model_of(optimizer=partial(SGD, lr=0.05)), on_two()),
            fit(model_of(optimizer=partial(SGD, lr=0.05))),
        )
        < 1e-5
    )


def test_the_most_specific_entry_counts() -> None:
    model = model_of()
    nested: dict[str, Any] = {
        "encoder": {"stages": {"1": 1}},
        "encoder.stages.*": "0",
        "heads": 1,
        "heads.r*": 0,
    }
    plan = resolve_paths(model, dict(flatten_placement(nested)), 2)
    assert [plan[f"sharing.encoder.stages.{k}"] for k in range(4)] == [0, 1, 0, 0]
    assert [plan[f"heads.{task}"] for task in ("class", "rare", "vector")] == [1, 0, 1]
    assert plan["sharing"] == 0
    assert set(resolve_paths(model, {"sharing": 1}, 2).values()) == {0, 1}
    assert resolve_paths(model, {"sharing": 1}, 2)["sharing.encoder.stages.2"] == 1


@pytest.mark.parametrize(
    ("model", "settings", "says"),
    [
        (
            {},
            {"placement": {"encoder.stages.9": 1}},
            "encoder.stages.9', which is no part that can be placed; did you mean",
        ),
        ({}, {"placement": {"heads.clas": 1}}, "did you mean 'heads.class'"),
        ({}, {"placement": {"balancer": 1}}, "no part that can be placed"),
        (
            {},
            {"placement": {"encoder": 2}},
            "placement.encoder is 2, but there are 2 devices, 0 to 1",
        ),
        ({}, {"placement": {"encoder": "elsewhere"}}, "or a name such as cpu or cuda:0"),
        ({}, {"placement": {"encoder": True}}, "or a name such as cpu or cuda:0"),
        ({}, {"micro_batches": 0}, "micro_batches is 0; it must be at least 1"),
        (
            {"sharing": CrossStitch},
            {"micro_batches": 2},
            "CrossStitch acts between the stages of its encoders",
        ),
        (
            {"sharing": SoftSharing},
            {"micro_batches": 2},
            "SoftSharing reads the weights of its encoders",
        ),
        (
            {"sharing": SoftSharing},
            {"placement": {"encoders.stages.0": 1}},
            "cannot be cut: place 'sharing' as a whole",
        ),
        ({}, {"save": "/nowhere/plan.yaml"}, "there is no folder /nowhere"),
        ({}, {"save": "/tmp/plan.txt"}, "the name must end in .yaml"),
    ],
)
def test_what_cannot_be_is_refused(
    model: dict[str, Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        on_two(**settings).check(model_of(**model))
    assert says in str(error.value)


def test_ddp_over_copies_that_lie_on_several_devices() -> None:
    strategy, model = DDPPlacement(devices_per_replica=2, placement={"heads": 1}), model_of()
    strategy.parallel_devices = [torch.device("cpu")] * 4
    assert (strategy.replicas, strategy.num_processes, len(strategy.own_devices)) == (2, 2, 2)
    strategy.check(model)
    held = strategy.holds(model, 4)
    assert len(held) == 4
    assert held[:2] == held[2:]
    assert [part for part in held[1] if not part.startswith("heads.")] == []
    strategy.parallel_devices = [torch.device("cpu")] * 3
    with pytest.raises(
        ValueError,
        match="--devices is 3, which does not divide into replicas of 2: use --devices 2",
    ):
        _ = strategy.replicas
    mixed = DDPPlacement(placement={"heads": "vdev:0"})
    with pytest.raises(ValueError, match="cpu and vdev, between which ddp cannot average"):
        mixed.check(model)


def test_torchrun_starts_processes_of_several_devices() -> None:
    from jsonargparse import Namespace

    environment = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}
    asked = {"accelerator": "cpu", "devices": 1, "num_nodes": 1}
    each = Namespace(class_path="x", init_args=Namespace(devices_per_replica=3, placement="auto"))
    assert resolve_topology(asked | {"strategy": each}, environment) == {
        "devices": 6,
        "num_nodes": 2,
    }
    one = Namespace(class_path="x", init_args=Namespace(placement="auto"))
    with pytest.raises(ValueError, match="use --strategy ddp_placement"):
        resolve_topology(asked | {"strategy": one}, environment)
    assert (
        resolve_topology(
            asked | {"strategy": one}, environment | {"LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1"}
        )
        == {}
    )


WORDS = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    2,
    "--model.encoder.width",
    16,
    "--model.encoder.dropout",
    0.1,
)


@pytest.mark.slow
def test_a_plan_from_the_command_line_is_a_file_that_it_reads(tmp_path: Path) -> None:
    logs = ("--logs", tmp_path / "logs")
    plan = tmp_path / "plan.yaml"
    first = call(
        "train",
        *logs,
        "--name",
        "a",
        *WORDS,
        "--strategy",
        "placement",
        "--devices",
        2,
        "--strategy.save",
        plan,
    )
    assert first.code == 0, first.err
    assert "optimizer" in first.out  # the table
    kept = yaml.safe_load(plan.read_text())
    assert set(kept["strategy"]["placement"].values()) == {0, 1}
    for name, flag in (("b", "--config"), ("c", "--trainer")):
        again = call(
            "train", *logs, "--name", name, *WORDS, flag, plan, "--strategy.micro_batches", 2
        )
        assert again.code == 0, again.err
    ended = call(
        "train",
        *logs,
        "--name",
        "d",
        *WORDS,
        "--config",
        plan,
        "--strategy.placement.heads.nothing",
        1,
    )
    refused(ended, ["'heads.nothing'", "no part that can be placed"])
    run = only_run(tmp_path / "logs" / "b")
    assert furthest(weights(run), weights(only_run(tmp_path / "logs" / "a"))) < 1e-5
    here = call("evaluate", "--run", run, "--out", tmp_path / "here.json")
    there = call(
        "evaluate",
        "--run",
        run,
        "--strategy",
        "placement",
        "--devices",
        2,
        "--out",
        tmp_path / "there.json",
    )
    assert (here.code, there.code) == (0, 0), there.err
    assert read_json(tmp_path / "here.json") == pytest.approx(
        read_json(tmp_path / "there.json"), rel=1e-6
    )


@pytest.mark.slow
def test_ddp_placement_from_the_command_line(tmp_path: Path) -> None:
    one = train(tmp_path, *WORDS, name="one")
    words = (
        "--strategy",
        "ddp_placement",
        "--devices",
        4,
        "--strategy.devices_per_replica",
        2,
        "--strategy.micro_batches",
        2,
    )
    assert furthest(weights(train(tmp_path, *WORDS, *words, name="four")), weights(one)) < 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("slices", [1, 2])
def test_a_gpu_and_the_cpu(slices: int) -> None:
    settings = {"optimizer": partial(SGD, lr=0.05), "balancer": partial(PCGrad, level="parameters")}
    model = model_of(**settings)
    strategy = Placement(
        there_and_back(model) | {"encoder.stages.1": "cuda:0", "heads.deep": "cuda:0"},
        micro_batches=slices,
    )
    strategy.parallel_devices = [ROOT, torch.device("cuda:0")]
    assert furthest(fit(model, strategy), fit(model_of(**settings))) < 1e-3
