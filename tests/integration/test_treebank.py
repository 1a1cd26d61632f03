"""Sentences on one process, on two, and in a run that was killed: the same weights."""

from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.data.treebanks.made_treebanks import write_treebank
from tests.launching import curves, furthest, launch, only_run, read_json, train, weights
from tests.toy import KillAt

# partly labelled entities, a label for each sentence, alike tasks, hidden words and dropout
FLAGS = (
    *("--data", "Treebank", "--data.targets", "[upos, feats.*, deprel, ner, genre]"),
    *("--data.entities_train", "dev", "--data.word_dropout", 3, "--data.batch_size", 9),
    *("--data.eval_batch_size", 7, "--max_epochs", 2, "--trainer.log_every_n_steps", 1),
    *("--model.encoder", "BiLSTM", "--model.encoder.width", 12, "--model.encoder.dropout", 0.2),
    *("--model.encoder.word_size", 8, "--model.encoder.piece_size", 6, "--lr", 0.01),
)
STEPS = 22  # 92 sentences in batches of 9, twice


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_treebank(tmp_path_factory.mktemp("treebank"))


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one process."""
    logs = tmp_path_factory.mktemp("alone")
    done = call("train", "--logs", logs, "--name", "run", *FLAGS, "--data.root", root)
    assert done.code == 0, done.err
    return only_run(logs / "run")


@pytest.mark.parametrize(
    "more", [(), pytest.param(("--data.num_workers", 1), marks=pytest.mark.slow)], ids=str
)
def test_two_processes_agree_with_one(
    root: Path, alone: Path, tmp_path: Path, more: tuple[object, ...]
) -> None:
    run = train(tmp_path, *FLAGS, *more, "--data.root", root, "--devices", 2)
    assert furthest(weights(run), weights(alone)) < 1e-5
    one, two = curves(alone), curves(run)
    tags = [tag for tag in one if tag.startswith("train/") and tag.endswith("/loss")]
    assert len(tags) == 7
    for tag in tags:
        assert two[tag] == pytest.approx(one[tag], rel=1e-5)
    assert len(one["train/upos/loss"]) == STEPS
    assert 0 < len(one["train/ner/loss"]) <= STEPS
    ours = read_json(run / "metrics.json")["test"]
    theirs = read_json(alone / "metrics.json")["test"]
    for key, value in theirs.items():
        # null where no label defines a metric
        expected = None if value is None else pytest.approx(value, rel=1e-5)
        assert ours[key] == expected, key


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(root: Path, alone: Path, tmp_path: Path) -> None:
    kill = KillAt.flags(15, tmp_path / "marker")
    every = ("--watch.checkpoint_every", 4)
    run = train(tmp_path, *FLAGS, "--data.root", root, *every, *kill, code=-9)
    launch("src.train", "--resume", run)
    assert read_json(run / "run.json")["sessions"][-1]["status"] == "finished"
    ours, theirs = weights(run), weights(alone)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert (ours[name] == theirs[name]).all(), name
