"""Labels of words: same run on any topology, to the bit after a resume, and what commands make of
them.
"""

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
from torch.optim import SGD

from src.balancing import UncertaintyWeights
from src.models import MultiTaskModel
from src.models.encoders import Transformer
from src.models.sharing import MMoE
from tests.cli.calling import call
from tests.integration.test_resume import assert_same
from tests.integration.test_sharing import SaveAt
from tests.launching import curves, furthest, launch, only_run, read_json, train, weights
from tests.toy import bare_trainer
from tests.toy_words import TAGS, ToyWords

# with Adam the bias of the keys, whose gradient is 0 but for rounding, would wander
WORDS = (
    *("--data", "tests.toy_words.ToyWords", "--max_epochs", 3, "--trainer.log_every_n_steps", 1),
    *("--model.encoder", "Transformer", "--model.encoder.width", 8, "--model.encoder.depth", 2),
    *("--model.encoder.heads", 2, "--model.encoder.dropout", 0.1),
    *("--model.optimizer", "SGD", "--lr", 0.1),
)
IN_PARAMETERS = ("--model.balancer", "PCGrad", "--model.balancer.level", "parameters")
RUNS: dict[str, tuple[object, ...]] = {
    "plain": (),
    "PCGrad": ("--model.balancer", "PCGrad"),
    "NDDR": ("--model.sharing", "NDDR", *IN_PARAMETERS),
    "film": ("--model.sharing", "TaskAdapters", "--model.sharing.kind", "film"),
    "PLE": ("--model.sharing", "PLE", *IN_PARAMETERS),
    "without crf": ("--data.crf", "false", "--model.balancer", "PCGrad"),
}
PLACES: dict[str, tuple[object, ...]] = {
    "ddp": ("--devices", 2),
    "fsdp": ("--devices", 2, "--strategy", "fsdp"),
    "pipeline": ("--devices", 2, "--strategy", "pipeline"),
    "placement": ("--devices", 2, "--strategy", "placement"),
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of one process, each made when it is first asked for."""
    logs = tmp_path_factory.mktemp("words")

    class Runs(dict[str, Path]):
        def __missing__(self, kind: str) -> Path:
            ended = call("train", "--logs", logs, "--name", kind, *WORDS, *RUNS[kind])
            assert ended.code == 0, ended.err
            self[kind] = only_run(logs / kind)
            return self[kind]

    return Runs()


CASES = [
    ("plain", "ddp"),
    *(pytest.param(kind, "ddp", marks=pytest.mark.slow) for kind in RUNS if kind != "plain"),
    *(pytest.param("plain", place, marks=pytest.mark.slow) for place in PLACES if place != "ddp"),
    *(pytest.param("PCGrad", place, marks=pytest.mark.slow) for place in ("fsdp", "placement")),
]


@pytest.mark.parametrize(("kind", "place"), CASES)
def test_topologies_agree(runs: dict[str, Path], tmp_path: Path, kind: str, place: str) -> None:
    """Each process pads its sentences to its own longest."""
    one = runs[kind]
    other = train(tmp_path, *WORDS, *RUNS[kind], *PLACES[place])
    assert furthest(weights(other), weights(one)) < 1e-5
    ours, theirs = curves(other), curves(one)
    for task in ToyWords().tasks:
        tag = f"train/{task}/loss"
        assert len(theirs[tag]) > 20
        assert ours[tag] == pytest.approx(theirs[tag], rel=1e-5)
    for stage in ("validation", "test"):
        values = read_json(one / "metrics.json")[stage]
        assert read_json(other / "metrics.json")[stage] == pytest.approx(
            values, rel=1e-5, nan_ok=True
        )


def fit(crf: bool, resume: Path | None = None, *callbacks: L.Callback) -> L.Trainer:
    """A short run with dropout, a balancer that learns, and an architecture with gates."""
    data = ToyWords(crf=crf)
    encoder = partial(Transformer, width=8, depth=1, heads=2, dropout=0.2)
    model = MultiTaskModel(
        data.tasks,
        data.input_shape,
        encoder,
        partial(MMoE, experts=2),
        UncertaintyWeights,
        partial(SGD, lr=0.1, momentum=0.9),
    )
    trainer = bare_trainer(1, 3, callbacks=list(callbacks))
    trainer.fit(model, data, ckpt_path=resume)
    return trainer


@pytest.mark.parametrize("crf", [False, True])
def test_a_run_goes_on_to_the_bit(tmp_path: Path, crf: bool) -> None:
    """After step 13 of 27, the fourth of the second epoch."""
    whole = fit(crf, None, SaveAt(13, str(tmp_path / "saved")))
    resumed = fit(crf, tmp_path / "saved.ckpt")
    assert whole.global_step == resumed.global_step == 27
    assert_same(resumed.lightning_module.state_dict(), whole.lightning_module.state_dict())


def read_true(split: str) -> dict[str, list[Any]]:
    rows = ToyWords().split("test")
    return {name: ToyWords().tasks[name].decode_targets(y)[""] for name, y in rows.targets.items()}


def test_predictions_are_texts(runs: dict[str, Path], tmp_path: Path) -> None:
    """One text a sentence, as long as the sentence; in the order of the rows."""
    out = tmp_path / "out.csv"
    assert call("predict", "--run", runs["plain"], "--split", "test", "--out", out).code == 0
    frame = pd.read_csv(out)
    lengths = (ToyWords().split("test").tokens > 0).sum(1).tolist()
    assert frame["tags"].str.split().map(len).tolist() == lengths
    assert set(" ".join(frame["tags"]).split()) <= set(TAGS)
    true = [value if isinstance(value, str) else None for value in frame["true.tags"]]
    assert true == read_true("test")["tags"]
    assert frame["genre"].isin(["news", "blog"]).all()


def test_an_ensemble_of_one_network_twice_is_that_network(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    run = runs["plain"]
    out = tmp_path / "out.json"
    assert call("evaluate", "--run", f"{run},{run}", "--split", "test", "--out", out).code == 0
    recorded = read_json(run / "metrics.json")["test"]
    found = read_json(out)
    assert {key: found[key] for key in recorded} == pytest.approx(recorded, rel=1e-5, nan_ok=True)
    table = tmp_path / "out.csv"
    assert call("predict", "--run", f"{run},{run}", "--out", table).code == 0
    frame = pd.read_csv(table)
    assert (frame["tags.spread"] == 0).all()
    assert (frame["upos.spread"] == 0).all()


@pytest.mark.slow
def test_predictions_of_two_processes_agree(runs: dict[str, Path], tmp_path: Path) -> None:
    words = ("--run", runs["plain"], "--split", "val")
    assert call("predict", *words, "--out", tmp_path / "1.csv").code == 0
    launch("src.predict", *words, "--devices", 2, "--out", tmp_path / "2.csv")
    one, two = (pd.read_csv(tmp_path / f"{n}.csv") for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, rtol=1e-5)
