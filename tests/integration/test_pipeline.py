"""A pipeline is the run of one process: tokens with masks, short batches, schedules, checkpoints.

python -m torch.distributed.run --nproc_per_node 2 -m tests.integration.test_pipeline OUT 2 CASE ...
trains cases of ``CASES`` on two ranks.
"""

import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, AdamW

from src.balancing import FAMO, StaticWeights, UncertaintyWeights
from src.batch import Batch, InputShape
from src.cli.entrypoint import quiet
from src.data import MultiTaskDataModule, Rows, Split
from src.models import MultiTaskModel
from src.models.encoders import Transformer
from src.parallel import Pipeline
from src.tasks import Classification, Regression, Task
from tests.cli.calling import call
from tests.integration import grid
from tests.integration.test_resume import assert_same, checkpoint
from tests.launching import curves, furthest, launch, only_run, read_json, train, weights
from tests.toy import DROPOUT, KillAt, bare_trainer


class Cropped(Rows):
    """Batches as long as their longest sentence."""

    def __getitem__(self, ids: Tensor) -> Batch:
        batch = super().__getitem__(ids)
        assert isinstance(batch.inputs, dict)
        length = int((batch.inputs["tokens"] > 0).sum(1).max())
        for tensors in (batch.inputs, batch.targets):
            for name, tensor in tensors.items():
                tensors[name] = tensor[:, :length]
        return batch


class Sentences(MultiTaskDataModule):
    """23 sentences in batches of 10, 10 and 3: four slices of them differ in rows, or have none."""

    def __init__(self) -> None:
        super().__init__(batch_size=10, eval_batch_size=9)

    @property
    def tasks(self) -> dict[str, Task]:
        return {
            "tag": Classification(classes=("a", "b", "c")),
            "number": Regression(mean=(0.0,), std=(1.0,)),
        }

    @property
    def input_shape(self) -> InputShape:
        return InputShape(tokens=12, parts=5)

    def split(self, name: Split) -> Rows:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, 8, (23, 1), generator=generator)
        there = torch.arange(8) < lengths
        tokens = torch.randint(1, 12, (23, 8), generator=generator) * there
        parts = torch.randint(0, 5, (23, 8, 3), generator=generator) * there[..., None]
        labelled = there & (torch.rand(23, 8, generator=generator) < 0.8)
        tags = torch.where(labelled, tokens % 3, -100)
        numbers = torch.where(labelled, torch.randn(23, 8, generator=generator), torch.nan)
        return Cropped({"tokens": tokens, "parts": parts}, {"tag": tags, "number": numbers})


# settings of the model, the trainer and the strategy
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"gradient_clip_val": 0.5}, {}),
    "1f1b": ({}, {"gradient_clip_val": 0.5}, {"schedule": "1f1b"}),
    "one slice": ({}, {"gradient_clip_val": 0.5}, {"micro_batches": 1}),
    "recomputed": ({"checkpoint_activations": True}, {}, {}),
    "frozen": ({}, {}, {"cut": [1, 2]}),
    "accumulated": (
        {"balancer": UncertaintyWeights, "optimizer": partial(AdamW, lr=0.01, eps=0.01)},
        {
            "accumulate_grad_batches": 2,
            "gradient_clip_val": 0.01,
            "gradient_clip_algorithm": "value",
        },
        {"schedule": "1f1b"},
    ),
    "second look": ({"balancer": FAMO}, {}, {}),
    "16 bits": ({}, {"precision": "bf16-mixed"}, {}),
}


def run(case: str, devices: int) -> dict[str, Any]:
    """A short run, an evaluation and a prediction."""
    of_model, of_trainer, of_strategy = CASES[case]
    data = Sentences()
    parts: dict[str, Any] = {
        "encoder": partial(Transformer, width=8, depth=2, heads=2, dropout=0.2),
        "scheduler": None,
    }
    parts |= {
        "optimizer": partial(SGD, lr=0.1, momentum=0.9),
        "balancer": StaticWeights,
        **of_model,
    }
    model, losses = MultiTaskModel(data.tasks, data.input_shape, **parts), grid.Losses()
    model.configure_model()
    if case == "frozen":
        next(iter(model.parts().values())).requires_grad_(False)
    if devices > 2:
        of_strategy = {**of_strategy, "cut": None}
    strategy = Pipeline(**of_strategy) if devices > 1 else "auto"
    trainer = bare_trainer(devices, 2, strategy=strategy, callbacks=[losses], **of_trainer)
    if isinstance(strategy, Pipeline):
        strategy.check(model)
    trainer.fit(model, data)
    found = {
        "losses": torch.stack(losses.steps),
        "weights": trainer.strategy.lightning_module_state_dict(),
        "optimizer": trainer.strategy.optimizer_state(trainer.optimizers[0]),
        "held": sum(p.numel() for p in model.parameters() if not p.is_meta),
    }
    trainer.limit_test_batches = trainer.limit_predict_batches = 1.0
    (found["metrics"],) = trainer.test(model, data, verbose=False)
    found["rows"] = trainer.predict(model, data)
    return found


@pytest.fixture(scope="module")
def one() -> Callable[[str], dict[str, Any]]:
    """What one process finds."""
    return cache(lambda case: run(case, 1))


FAST = ("plain", "1f1b", "accumulated")
Several = Callable[[int, str], dict[str, Any]]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Several:
    """What some ranks find for a case; all cases of the fast suite run in one launch."""

    @cache
    def launch_cases(ranks: int, *cases: str) -> dict[str, Any]:
        out = tmp_path_factory.mktemp("pipeline") / "out.pt"
        words = ("-m", "tests.integration.test_pipeline", out, ranks, *cases)
        launch("torch.distributed.run", "--nproc_per_node", ranks, *words)
        found: dict[str, Any] = torch.load(out, weights_only=False)
        return found

    def find(ranks: int, case: str) -> dict[str, Any]:
        fast = ranks == 2 and case in FAST
        cases = FAST if fast else [c for c in CASES if ranks > 2 or c not in FAST]
        found: dict[str, Any] = launch_cases(ranks, *cases)[case]
        return found

    return find


RANKS = [2, pytest.param(3, marks=pytest.mark.slow)]


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in FAST else pytest.mark.slow) for c in CASES]
)
@pytest.mark.parametrize("ranks", RANKS)
def test_it_is_the_run_of_one_process(
    several: Several, one: Callable[[str], dict[str, Any]], ranks: int, case: str
) -> None:
    ours, theirs = several(ranks, case), one(case)
    close: dict[str, Any] = (
        {"rtol": 0.05, "atol": 0.02} if case == "16 bits" else {"rtol": 1e-4, "atol": 1e-6}
    )
    torch.testing.assert_close(ours["losses"], theirs["losses"], **close)
    torch.testing.assert_close(ours["weights"], dict(theirs["weights"]), **close)
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=close["rtol"], abs=close["atol"])
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    if case != "16 bits":
        torch.testing.assert_close(
            ours["optimizer"]["state"], theirs["optimizer"]["state"], **close
        )
    for (ids, outputs), (their_ids, their_outputs) in zip(
        ours["rows"], theirs["rows"], strict=True
    ):
        assert torch.equal(ids, their_ids)
        torch.testing.assert_close(outputs, their_outputs, equal_nan=True, **close)


@pytest.mark.parametrize("ranks", RANKS)
def test_schedules_agree(several: Several, ranks: int) -> None:
    """Each adds up the same numbers in the same order."""
    for key in ("losses", "weights"):
        torch.testing.assert_close(
            several(ranks, "1f1b")[key], several(ranks, "plain")[key], rtol=0, atol=0
        )


@pytest.mark.parametrize("ranks", RANKS)
def test_a_rank_holds_its_own_weights_alone(
    several: Several, one: Callable[[str], dict[str, Any]], ranks: int
) -> None:
    assert several(ranks, "plain")["held"] < 0.7 * one("plain")["held"]


TOY = (
    *DROPOUT,
    *("--max_epochs", 3),
    *(
        "--watch.checkpoint_every",
        4,
        "--watch.patience",
        10,
        "--watch.ranks_every",
        3,
        "--model.balancer",
        "UncertaintyWeights",
    ),
)
PIPELINE = ("--strategy", "pipeline", "--devices", 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run of one process, and that of a pipeline."""
    logs = tmp_path_factory.mktemp("runs")
    assert call("train", "--logs", logs, "--name", "one", *TOY).code == 0
    return only_run(logs / "one"), train(logs, *TOY, *PIPELINE, name="two")


@pytest.mark.slow
def test_the_command_gives_the_same_run(trained: tuple[Path, Path]) -> None:
    one, two = trained
    assert furthest(weights(two), weights(one)) < 1e-5
    for stage in ("validation", "test"):
        assert read_json(two / "metrics.json")[stage] == pytest.approx(
            read_json(one / "metrics.json")[stage], rel=1e-5
        )
    drawn = [curves(run) for run in (one, two)]
    assert drawn[1].keys() == drawn[0].keys()
    assert drawn[1]["weight/class"] == pytest.approx(drawn[0]["weight/class"], rel=1e-5)
    ours, theirs = checkpoint(two, "last"), checkpoint(one, "last")
    assert list(ours) == list(theirs)
    assert list(ours["state_dict"]) == list(theirs["state_dict"])
    assert list(ours["optimizer_states"][0]["state"]) == list(
        theirs["optimizer_states"][0]["state"]
    )


@pytest.mark.slow
def test_evaluation_and_prediction(trained: tuple[Path, Path], tmp_path: Path) -> None:
    import pandas as pd

    _, two = trained
    launch("src.evaluate", "--run", two, *PIPELINE, "--out", tmp_path / "out.json")
    assert read_json(tmp_path / "out.json") == pytest.approx(
        read_json(two / "metrics.json")["test"], rel=1e-6
    )
    launch("src.predict", "--run", two, *PIPELINE, "--out", tmp_path / "two.parquet")
    assert call("predict", "--run", two, "--out", tmp_path / "one.parquet").code == 0
    ours, theirs = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("two", "one"))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_traced_to_its_row(tmp_path: Path) -> None:
    done = launch("src.train", "--logs", tmp_path, *TOY, *PIPELINE, "--data.nan_row", 100, code=2)
    assert "training rows (counted from 0) whose loss is not: 100" in done.stderr


@pytest.mark.slow
def test_killed_in_mid_epoch(trained: tuple[Path, Path], tmp_path: Path) -> None:
    kill = KillAt.flags(17, tmp_path / "marker", rank=1)
    launch("src.train", "--logs", tmp_path, "--name", "killed", *TOY, *PIPELINE, *kill, code=1)
    killed = only_run(tmp_path / "killed")
    launch("src.train", "--resume", killed)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "metrics"):
        assert_same(checkpoint(killed, "last")[part], checkpoint(trained[1], "last")[part], part)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["pipeline", "one", "ddp"])
def test_a_run_goes_on_elsewhere(trained: tuple[Path, Path], tmp_path: Path, first: str) -> None:
    """What one begins another ends, as if one process had done all of it."""
    strategies = {
        "pipeline": PIPELINE,
        "one": ("--devices", 1, "--strategy", "auto"),
        "ddp": ("--strategy", "ddp", "--devices", 2),
    }
    kill, words = (
        KillAt.flags(17, tmp_path / "marker"),
        ("--logs", tmp_path, "--name", "run", *TOY, *strategies[first]),
    )
    launch("src.train", *words, *kill, code=-9)
    run = only_run(tmp_path / "run")
    launch("src.train", "--resume", run, *strategies["one" if first == "pipeline" else "pipeline"])
    assert furthest(weights(run), weights(trained[0])) < 1e-5


if __name__ == "__main__":
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    path, count, *names = sys.argv[1:]
    results = {name: run(name, int(count)) for name in names}
    if torch.distributed.get_rank() == 0:
        torch.save(results, path)
