"""Graphs: same run on any topology, to the bit after a resume, with every balancer and head."""

from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.optim import SGD

from src.balancing import UncertaintyWeights
from src.models import MultiTaskModel
from src.models.encoders import MessagePassing
from src.models.encoders.message_passing import Pool
from src.models.sharing import MMoE
from tests.cli.calling import call
from tests.data.molecules.made_molecules import write_molecules
from tests.integration.grid import Cell, Losses, cells, model_of
from tests.integration.test_resume import assert_same
from tests.integration.test_sharing import SaveAt
from tests.launching import curves, furthest, only_run, read_json, train, weights
from tests.toy import bare_trainer
from tests.toy_graphs import FakeGraphs

GRAPHS = (
    *("--data", "tests.toy_graphs.FakeGraphs", "--max_epochs", 3, "--trainer.log_every_n_steps", 1),
    *("--model.encoder", "MessagePassing", "--model.encoder.width", 8, "--model.encoder.depth", 2),
    *("--model.encoder.dropout", 0.1, "--model.optimizer", "SGD", "--lr", 0.1),
)
RUNS: dict[str, tuple[object, ...]] = {
    "plain": (),
    "PCGrad": ("--model.balancer", "PCGrad"),
    "gat": ("--model.encoder.layer", "gat"),
    "sum": ("--model.encoder.pool", "sum", "--lr", 0.001),
    "PLE": (
        *("--model.sharing", "PLE", "--model.balancer", "PCGrad"),
        *("--model.balancer.level", "parameters"),
    ),
    "MTAN": ("--model.sharing", "MTAN"),
}
PLACES: dict[str, tuple[object, ...]] = {
    "ddp": ("--devices", 2),
    "fsdp": ("--devices", 2, "--strategy", "fsdp"),
    "pipeline": ("--devices", 2, "--strategy", "pipeline"),
    "placement": ("--devices", 2, "--strategy", "placement"),
}
SLOW = [(kind, "ddp") for kind in RUNS if kind != "plain"]
SLOW += [("plain", place) for place in PLACES if place != "ddp"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of one process, each made when it is first asked for."""
    logs = tmp_path_factory.mktemp("graphs")

    class Runs(dict[str, Path]):
        def __missing__(self, kind: str) -> Path:
            ended = call("train", "--logs", logs, "--name", kind, *GRAPHS, *RUNS[kind])
            assert ended.code == 0, ended.err
            self[kind] = only_run(logs / kind)
            return self[kind]

    return Runs()


@pytest.mark.parametrize(
    ("kind", "place"),
    [("plain", "ddp"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_topologies_agree(runs: dict[str, Path], tmp_path: Path, kind: str, place: str) -> None:
    """Each process pads its graphs to its own longest."""
    one = runs[kind]
    other = train(tmp_path, *GRAPHS, *RUNS[kind], *PLACES[place])
    assert furthest(weights(other), weights(one)) < 1e-5
    ours, theirs = curves(other), curves(one)
    for task in ("class", "size"):
        tag = f"train/{task}/loss"
        assert len(theirs[tag]) == 12
        assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5)
    for stage in ("validation", "test"):
        values = read_json(one / "metrics.json")[stage]
        found = read_json(other / "metrics.json")[stage]
        # an R2 near 0 is a difference of numbers near 1
        assert found == pytest.approx(values, rel=1e-5, abs=1e-6, nan_ok=True)


@pytest.mark.slow
def test_molecules_with_two_processes_and_workers(tmp_path: Path) -> None:
    path = write_molecules(tmp_path, broken=(7,))
    words = (
        *("--data", "Molecules", "--data.path", path, "--data.targets", "[ring, acid, atoms]"),
        *("--data.features", "graph", "--data.on_error", "skip", "--max_epochs", 2),
        *("--model.encoder", "MessagePassing", "--model.encoder.width", 8),
        *("--model.optimizer", "SGD", "--lr", 0.1),
    )
    one = train(tmp_path, *words, name="one")
    two = train(tmp_path, *words, "--devices", 2, "--data.num_workers", 1, name="two")
    assert furthest(weights(two), weights(one)) < 1e-5
    ours, theirs = (read_json(run / "metrics.json")["test"] for run in (two, one))
    known = {key: value for key, value in theirs.items() if value is not None}
    assert {key: ours[key] for key in known} == pytest.approx(known, rel=1e-5, abs=1e-6)


def fit(resume: Path | None = None, *callbacks: L.Callback) -> L.Trainer:
    """A short run with dropout, a balancer that learns, and an architecture with gates."""
    data = FakeGraphs()
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        partial(MessagePassing, width=8, depth=2, dropout=0.2),
        partial(MMoE, experts=2),
        UncertaintyWeights,
        partial(SGD, lr=0.1, momentum=0.9),
    )
    trainer = bare_trainer(1, 3, callbacks=list(callbacks))
    trainer.fit(model, data, ckpt_path=resume)
    return trainer


def test_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    """After step 6 of 12, the second of the second epoch."""
    whole = fit(None, SaveAt(6, str(tmp_path / "saved")))
    resumed = fit(tmp_path / "saved.ckpt")
    assert whole.global_step == resumed.global_step == 12
    assert_same(resumed.lightning_module.state_dict(), whole.lightning_module.state_dict())


BALANCING = [
    pytest.param(cell, marks=() if cell[1] in ("PCGrad", "FAMO") else pytest.mark.slow)
    for cell in cells()
    if cell[0] == "balancing"
]


@pytest.mark.parametrize("cell", BALANCING, ids=lambda cell: "-".join(cell[1:]))
@pytest.mark.parametrize("pool", ["mean", "none"])
def test_every_balancer_trains(cell: Cell, pool: Pool) -> None:
    """Labels of graphs read the features of graphs, or the mean over their nodes."""
    data = FakeGraphs(pooled=pool == "none")
    model = model_of(cell, data, encoder=partial(MessagePassing, width=8, depth=1, pool=pool))
    model.configure_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = Losses()
    bare_trainer(1, 1, callbacks=[losses]).fit(model, data)
    assert torch.stack(losses.steps).isfinite().all()
    for name, p in model.named_parameters():
        if name.startswith("heads."):
            assert not torch.equal(p, before[name]), name
