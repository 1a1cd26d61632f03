"""Learning from episodes: two processes give what one gives, and a resumed run the same bits."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.calling import call, refused
from tests.integration.episodic import CASES
from tests.launching import furthest, launch, only_run, port, read_json

TINY = (
    *("--data.episodes_per_epoch", 6, "--data.episodes_per_batch", 3, "--data.val_episodes", 2),
    *("--data.test_episodes", 5, "--trainer.max_epochs", 1, "--accelerator", "cpu"),
)
SINUSOIDS = ("--data", "Sinusoids", *TINY, "--model.encoder", "Perceptron")
DIGITS = ("--data", "Episodes", "--data.source", "Digits", "--data.target", "digit", *TINY)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """Results of all cases by the number of processes."""
    folder = tmp_path_factory.mktemp("episodes")
    launch("tests.integration.episodic", folder / "one", timeout=600)
    words = ("--nproc_per_node", 2, "--master_port", port(29660), "-m")
    launch(
        "torch.distributed.run", *words, "tests.integration.episodic", folder / "two", timeout=600
    )
    return {
        1: torch.load(folder / "one", weights_only=True),
        2: torch.load(folder / "two", weights_only=True),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_what_one_gives(runs: dict[int, Any], name: str) -> None:
    one, two = runs[1][name], runs[2][name]
    assert one["losses"].shape == (12, 1)
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-5, atol=1e-6)
    ours, theirs = two["whole"], one["whole"]
    assert furthest({k: v.double() for k, v in ours.items()}, theirs) < 1e-5
    assert two["test"] == pytest.approx(one["test"], rel=1e-4, abs=1e-5)
    assert any(key.endswith("_ci95") for key in one["test"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_run_has_the_same_bits(runs: dict[int, Any], name: str, processes: int) -> None:
    found = runs[processes][name]
    for key, value in found["whole"].items():
        assert torch.equal(found["resumed"][key], value), key


def test_commands_open_a_run(tmp_path: Path) -> None:
    words = ("--data.ways", 2, "--data.queries", 3, "--model.meta", "ANIL")
    logs = ("--logs", tmp_path, "--name", "run")
    ended = call("train", *DIGITS, *words, "--model.encoder.width", 8, *logs)
    assert ended.code == 0, ended.err
    assert "ANIL: accuracy" in ended.out
    assert "(95 % intervals over 5 episodes)" in ended.out
    run = only_run(tmp_path / "run")
    metrics = read_json(run / "metrics.json")["test"]
    assert metrics["test/digit/episodes/accuracy"] == pytest.approx(metrics["test/digit/accuracy"])

    ended = call("evaluate", "--run", run, "--out", tmp_path / "out.json")
    assert "5 episodes of the test split, 2 support and 6 query rows each" in ended.out
    assert "ANIL: accuracy" in ended.out
    assert read_json(tmp_path / "out.json") == pytest.approx(metrics, nan_ok=True)

    table = tmp_path / "predictions.csv"
    assert call("predict", "--run", run, "--split", "test", "--out", table).code == 0
    lines = table.read_text().splitlines()
    assert lines[0].split(",") == ["id", "digit", "digit.p_1", "digit.p_2", "true.digit"]
    assert len(lines) == 1 + 5 * 6
    right = [line.split(",")[1] == line.split(",")[-1] for line in lines[1:]]
    assert sum(right) / len(right) == pytest.approx(metrics["test/digit/accuracy"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (SINUSOIDS, "--data Sinusoids gives episodes, but model.meta is null"),
        (("--data", "Digits", "--model.meta", "MAML"), "learns one task from each episode"),
        ((*SINUSOIDS, "--model.meta", "Prototypes"), "task 'y' is a Regression"),
        ((*SINUSOIDS, "--model.meta", "MAMLX"), "did you mean 'MAML'?"),
        (
            (*SINUSOIDS, "--model.meta", "MAML", "--model.sharing", "MMoE"),
            "use --model.sharing HardSharing without until",
        ),
        (
            (*SINUSOIDS, "--model.meta", "MAML", "--model.balancer", "PCGrad"),
            "use --model.balancer StaticWeights",
        ),
        (
            (*SINUSOIDS, "--model.meta", "MAML", "--model.checkpoint_activations", "true"),
            "set --model.checkpoint_activations false",
        ),
        (
            (*DIGITS, "--model.meta", "ANIL", "--data.ways", 2, "--model.encoder.dropout", 0.1),
            "set --model.encoder.dropout 0",
        ),
        (
            (*SINUSOIDS, "--model.meta", "MAML", "--model.meta.inner_lr", 0),
            "model.meta.inner_lr is 0",
        ),
        (
            (*SINUSOIDS, "--model.meta", "MAML", "--devices", 2, "--strategy", "fsdp"),
            "use --strategy ddp",
        ),
        ((*DIGITS, "--model.meta", "ANIL"), "data.ways is 5, but the val side has 2 classes"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, words: tuple[object, ...], says: str) -> None:
    refused(call("train", *words, "--logs", tmp_path), [says])


def test_groups_of_a_table_and_a_file_that_has_changed(tmp_path: Path) -> None:
    rows = [f"u{user},{x * user / 9:.3f},{x}" for user in range(10) for x in range(8)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["user,score,x", *rows]) + "\n")
    ended = call(
        "train",
        *("--data", "Episodes", "--data.source", "Table", "--data.source.path", path),
        *("--data.source.targets", "[score, user]", "--data.group", "user", *TINY),
        *("--data.shots", 2, "--data.queries", 4, "--model.meta", "MAML"),
        *("--model.encoder", "Perceptron", "--logs", tmp_path, "--name", "run"),
    )
    assert ended.code == 0, ended.err
    assert "episodes over groups of 'user': 6 train, 2 val, 2 test" in ended.out
    run = only_run(tmp_path / "run")
    before = read_json(run / "metrics.json")["test"]
    assert call("evaluate", "--run", run, "--out", tmp_path / "out.json").code == 0
    assert read_json(tmp_path / "out.json") == pytest.approx(before, nan_ok=True)

    path.write_text("\n".join(["user,score,x", *rows[:-1]]) + "\n")
    refused(call("evaluate", "--run", run), ["data.source has other rows or columns"])
