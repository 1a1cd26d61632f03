"""Same run, any topology: one process, ddp x 2 and ddp x 4 give the same curves and weights."""

from pathlib import Path

import pytest

from tests.cli.calling import call
from tests.launching import curves, furthest, launch, only_run, read_json, train, weights

TOY = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    3,
    "--trainer.log_every_n_steps",
    1,
    "--model.encoder.width",
    32,
)
RUNS = {
    "plain": (),
    "accumulated": (
        *("--trainer.accumulate_grad_batches", 3, "--trainer.gradient_clip_val", 0.1),
        *("--model.optimizer", "SGD", "--lr", 0.1, "--model.encoder.dropout", 0.2),
    ),
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Run folders by (settings, number of devices), each made when it is first asked for."""
    logs = tmp_path_factory.mktemp("parity")

    class Runs(dict[tuple[str, int], Path]):
        def __missing__(self, key: tuple[str, int]) -> Path:
            kind, devices = key
            words = (*TOY, *RUNS[kind], "--devices", devices)
            name = f"{kind}-{devices}"
            if devices == 1:
                assert call("train", "--logs", logs, "--name", name, *words).code == 0
                self[key] = only_run(logs / name)
            else:
                self[key] = train(logs, *words, name=name)
            return self[key]

    return Runs()


CASES = [
    ("plain", 2),
    pytest.param("plain", 4, marks=pytest.mark.slow),
    pytest.param("accumulated", 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "devices"), CASES)
def test_final_weights_agree(runs: dict[tuple[str, int], Path], kind: str, devices: int) -> None:
    one = weights(runs[kind, 1])
    assert furthest(weights(runs[kind, devices]), one) < 1e-5
    # the measure itself can tell weights apart
    assert furthest(one, {k: v + 0.01 for k, v in one.items()}) > 1e-3


@pytest.mark.parametrize(("kind", "devices"), CASES)
def test_losses_of_every_step_and_task_agree(
    runs: dict[tuple[str, int], Path], kind: str, devices: int
) -> None:
    one, several = curves(runs[kind, 1]), curves(runs[kind, devices])
    tags = [tag for tag in one if tag.startswith("train/") and tag.endswith("/loss")]
    assert len(tags) == 8
    for tag in tags:
        assert one[tag].keys() == several[tag].keys()
        assert several[tag] == pytest.approx(one[tag], rel=1e-5)
    steps = 42 if kind == "plain" else 15
    assert len(one["train/labels/loss"]) == steps
    assert len(one["train/rare/loss"]) < steps  # some batches hold no label of it


@pytest.mark.parametrize(("kind", "devices"), CASES)
def test_validation_and_test_metrics_agree(
    runs: dict[tuple[str, int], Path], kind: str, devices: int
) -> None:
    one, several = (read_json(runs[kind, n] / "metrics.json") for n in (1, devices))
    for stage in ("validation", "test"):
        assert several[stage] == pytest.approx(one[stage], rel=1e-5)


@pytest.mark.slow
def test_processes_that_torchrun_starts_agree_too(
    runs: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    words = ("--logs", tmp_path, "--name", "run", *TOY, "--devices", "auto")
    launch("torch.distributed.run", "--nproc_per_node", 2, "-m", "src.train", "--", *words)
    run = only_run(tmp_path / "run")
    assert furthest(weights(run), weights(runs["plain", 2])) == 0.0
    assert read_json(run / "metrics.json") == read_json(runs["plain", 2] / "metrics.json")


@pytest.mark.slow
def test_a_run_is_reproducible_to_the_bit(
    runs: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    """In another process, too."""
    again = train(tmp_path, *TOY)
    assert furthest(weights(again), weights(runs["plain", 1])) == 0.0


def test_another_seed_gives_another_run(runs: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    assert call("train", "--logs", tmp_path, "--name", "run", *TOY, "--seed", 1).code == 0
    assert furthest(weights(only_run(tmp_path / "run")), weights(runs["plain", 1])) > 0.1


@pytest.mark.parametrize(
    ("split", "devices"),
    [
        ("val", 1),
        ("test", 1),
        pytest.param("val", 2, marks=pytest.mark.slow),
        pytest.param("test", 3, marks=pytest.mark.slow),
    ],
)
def test_evaluation_counts_every_row_once(
    runs: dict[tuple[str, int], Path], tmp_path: Path, split: str, devices: int
) -> None:
    """101 and 97 rows in batches of 24: no number of ranks divides them; training noted figures."""
    words = (
        "--run",
        runs["plain", 1],
        "--split",
        split,
        "--devices",
        devices,
        "--out",
        tmp_path / "out.json",
    )
    if devices == 1:
        assert call("evaluate", *words).code == 0
    else:
        launch("src.evaluate", *words)
    recorded = read_json(runs["plain", 1] / "metrics.json")[
        "validation" if split == "val" else "test"
    ]
    assert read_json(tmp_path / "out.json") == pytest.approx(recorded, rel=1e-6)


@pytest.mark.slow
def test_predictions_keep_the_order_of_the_input(
    runs: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    import pandas as pd

    assert call("predict", "--run", runs["plain", 1], "--out", tmp_path / "1.parquet").code == 0
    launch(
        "src.predict", "--run", runs["plain", 1], "--devices", 3, "--out", tmp_path / "3.parquet"
    )
    one, three = (pd.read_parquet(tmp_path / f"{n}.parquet") for n in (1, 3))
    assert one["id"].tolist() == list(range(97))
    assert one["class2"].isin(["a", "b", "c"]).all()
    assert one[["class2.p_a", "class2.p_b", "class2.p_c"]].sum(axis=1).to_numpy() == pytest.approx(
        1, abs=1e-6
    )
    pd.testing.assert_frame_equal(one, three, rtol=1e-5)
