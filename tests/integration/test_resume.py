"""Nothing is lost: a run that is killed or stopped resumes to the weights of a run that was not."""

import math
import multiprocessing
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import src.cli.results
from src.checkpoint import load_checkpoint
from src.run import Run
from tests.cli.calling import call, table, words_for_table
from tests.integration import resuming
from tests.integration.resuming import CASES, TOPOLOGIES
from tests.launching import curves, launch, only_run, port, read_json, train
from tests.toy import DROPOUT, KillAt, RaiseAt, SignalAt, mark

# dropout, so that the random numbers matter; patience and a schedule, so that their state does
TOY = (
    *DROPOUT,
    *("--max_epochs", 4),
    *("--watch.checkpoint_every", 4, "--watch.patience", 10, "--watch.figures_every", 0),
)


ELSEWHERE = {
    "dirpath",
    "best_model_path",
    "last_model_path",
    "kth_best_model_path",
    "best_k_models",
    "current_score",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The run that nothing interrupts, once for each set of flags."""
    return cache(lambda *flags: train(tmp_path_factory.mktemp("whole"), *TOY, *flags))


def checkpoint(run: Path, which: str) -> dict:
    return load_checkpoint(run / "checkpoints" / f"{which}.ckpt")


def assert_same(ours: object, theirs: object, path: str = "") -> None:
    """Checks that all is equal to the bit, but for paths of files and a score noted aside."""
    if isinstance(ours, torch.Tensor):
        assert isinstance(theirs, torch.Tensor)
        assert torch.equal(ours, theirs), path
    elif isinstance(ours, dict):
        assert isinstance(theirs, dict)
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            if key not in ELSEWHERE:
                assert_same(ours[key], theirs[key], f"{path}/{key}")
    elif isinstance(ours, list | tuple):
        assert isinstance(theirs, list | tuple)
        assert len(ours) == len(theirs), path
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{path}/{i}")
    else:
        # NaN is not equal to itself
        both_nan = ours != ours and theirs != theirs
        assert ours == theirs or both_nan, path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "more", "step"),
    [
        (1, (), 18),
        (1, ("--data.num_workers", 2), 18),
        (1, ("--trainer.accumulate_grad_batches", 3), 7),
        # the other rank goes on to the next step, and would save there if one were due
        (2, (), 17),
        # the last step of an epoch, after which no checkpoint was written yet
        (1, (), 28),
        (2, ("--strategy", "fsdp", "--watch.checkpoint_every", 3), 20),
        (2, ("--strategy", "fsdp", "--strategy.checkpoint", "folder"), 20),
    ],
    ids=[
        "one process",
        "with workers",
        "accumulated",
        "ddp",
        "end of epoch",
        "fsdp",
        "fsdp in folders",
    ],
)
def test_killed_in_mid_epoch(
    whole: Callable[..., Path], tmp_path: Path, devices: int, more: tuple, step: int
) -> None:
    """14 steps an epoch, a checkpoint every 4: the steps since the last one are done again."""
    flags = (*more, "--devices", devices)
    kill = KillAt.flags(step, tmp_path / "marker", rank=devices - 1)
    launch(
        "src.train",
        "--logs",
        tmp_path,
        "--name",
        "killed",
        *TOY,
        *flags,
        *kill,
        code=-9 if devices == 1 else 1,
    )
    killed = only_run(tmp_path / "killed")
    assert checkpoint(killed, "last")["global_step"] < step

    launch("src.train", "--resume", killed)
    assert only_run(tmp_path / "killed") == killed  # in place
    for which in ("last", "best"):
        ours, theirs = checkpoint(killed, which), checkpoint(whole(*flags), which)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "metrics"):
            assert_same(ours[part], theirs[part], part)
    assert read_json(killed / "metrics.json") == read_json(whole(*flags) / "metrics.json")
    first, second = (session["status"] for session in read_json(killed / "run.json")["sessions"])
    # of several ranks the first may outlive the killed one long enough to note that the run failed
    assert first in ({"running"} if devices == 1 else {"running", "failed"})
    assert second == "finished"


# cases of tests/integration/resuming.py that take part in the fast suite, by topology; for shards
# tests/parallel/test_fsdp.py has some
FAST = {"1 process": ("few", "sources", "steps, not epochs"), "ddp x 2": ("few",)}


@pytest.fixture(scope="session")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Weights by case and cell, after a launch on a topology."""

    @cache
    def on(topology: str, *cases: str) -> Any:
        out, ranks = tmp_path_factory.mktemp("resumed") / "out.pt", TOPOLOGIES[topology].processes
        words = (out, topology, *cases)
        if ranks == 1 and cases == FAST["1 process"]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                resuming.main(str(out), topology, *cases)
        elif ranks == 1:
            launch("tests.integration.resuming", *words, timeout=3600)
        else:
            alone = ("--nproc_per_node", ranks, "--master_port", port(29650))
            launch(
                "torch.distributed.run",
                *alone,
                "-m",
                "tests.integration.resuming",
                *words,
                timeout=3600,
            )
        return torch.load(out, weights_only=True)

    return on


@pytest.mark.parametrize(
    ("topology", "case"),
    [
        pytest.param(
            topology, case, marks=() if case in FAST.get(topology, ()) else pytest.mark.slow
        )
        for topology in TOPOLOGIES
        for case in CASES
    ],
)
def test_broken_off_anywhere(resumed: Callable[..., Any], topology: str, case: str) -> None:
    """Under every strategy, with and without a schedule, amid an epoch and at its end."""
    fast = FAST.get(topology, ())
    together = [name for name in CASES if (name in fast) == (case in fast)]  # in one launch
    found = {
        cell: runs for (name, cell), runs in resumed(topology, *together).items() if name == case
    }
    trained = {
        cell: runs for cell, runs in found.items() if not isinstance(runs, str)
    }  # others are refused
    assert set(found) == set(CASES[case].cells)
    assert trained
    for cell, runs in trained.items():
        assert_same(runs["resumed"], runs["whole"], "-".join(cell))


PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau"
# 14 steps an epoch: flags, and the step at which the run breaks
BROKEN: dict[str, tuple[tuple[object, ...], int]] = {
    "a checkpoint is due where validation comes": (("--watch.checkpoint_every", 14), 20),
    "two validations an epoch": (
        ("--trainer.val_check_interval", 0.5, "--watch.checkpoint_every", 7),
        20,
    ),
    "a validation every third epoch": (
        ("--trainer.check_val_every_n_epoch", 3, "--watch.checkpoint_every", 100),
        30,
    ),
    "epochs cut short": (("--trainer.limit_train_batches", 10), 12),
    "epochs cut short, with workers": (
        ("--trainer.limit_train_batches", 10, "--data.num_workers", 2),
        12,
    ),
    "a plateau": (
        (
            "--model.scheduler",
            PLATEAU,
            "--model.scheduler.mode",
            "max",
            "--model.scheduler.patience",
            0,
        ),
        30,
    ),
    "accumulation": (("--trainer.accumulate_grad_batches", 3, "--watch.checkpoint_every", 2), 7),
    "overfitting one batch": (("--overfit_batches", 1, "--max_epochs", 30), 17),
    "tasks with epochs of their own": (("--model.sharing", "Separate", "--lr", 0.03), 44),
}


FAST_BROKEN = (
    "epochs cut short, with workers",
    "tasks with epochs of their own",
)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c in FAST_BROKEN else pytest.mark.slow) for c in BROKEN],
)
def test_broken_twice(tmp_path: Path, case: str) -> None:
    """The second break comes after the first resume, whose own checkpoints must be as good."""
    flags, step = BROKEN[case]
    words = ("--logs", tmp_path, *TOY, *flags)
    assert call("train", *words, "--name", "whole").code == 0
    marker = tmp_path / "marker"
    with pytest.raises(RuntimeError, match="this rank broke"):
        call("train", *words, "--name", "broken", *RaiseAt.flags(step, marker))
    whole, broken = only_run(tmp_path / "whole"), only_run(tmp_path / "broken")
    marker.unlink()
    with pytest.raises(RuntimeError, match="this rank broke"):
        call("train", "--resume", broken)
    assert not multiprocessing.active_children()  # workers end with their run
    assert call("train", "--resume", broken).code == 0
    for which in ("last", "best"):
        for part in ("global_step", "state_dict", "optimizer_states", "callbacks", "metrics"):
            assert_same(checkpoint(broken, which)[part], checkpoint(whole, which)[part], part)
    assert read_json(broken / "metrics.json") == read_json(whole / "metrics.json")
    ours, theirs = (
        {tag: at for tag, at in curves(run).items() if tag.startswith("val/")}
        for run in (broken, whole)
    )
    assert_same(ours, theirs, "curves")


def points(run: Path) -> Counter[tuple[str, str, int]]:
    """Counts how often each tag stands at each step, in all event files of a run."""
    found: Counter[tuple[str, str, int]] = Counter()
    for path in run.rglob("events.*"):
        where = str(path.parent.relative_to(run))
        for event in EventFileLoader(str(path)).Load():
            found.update((where, value.tag, event.step) for value in event.summary.value)
    # each session has its own settings, and that of the page
    return Counter(
        {key: n for key, n in found.items() if not key[1].startswith(("config", "custom_scalars"))}
    )


def test_nothing_stands_twice_in_tensorboard(tmp_path: Path) -> None:
    """No point is lost either, whatever a run wrote after its last checkpoint before it broke."""
    monitor = {
        "class_path": "LearningRateMonitor"
    }  # writes at the start of a step, at the number of steps so far
    breaks = {
        "class_path": "tests.toy.RaiseAt",
        "init_args": {"step": 20, "marker": mark(tmp_path / "marker")},
    }
    in_test = {
        "class_path": "tests.toy.RaiseInTest",
        "init_args": {"marker": mark(tmp_path / "tested")},
    }
    words = (
        "--logs",
        tmp_path,
        *TOY,
        "--trainer.log_every_n_steps",
        1,
        "--watch.geometry_every",
        4,
        "--watch.figures_every",
        1,
    )
    for name, callbacks in (("whole", [monitor]), ("broken", [monitor, breaks, in_test])):
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({"trainer": {"callbacks": callbacks}})
        )
    assert call("train", *words, "--name", "whole", "--config", tmp_path / "whole.yaml").code == 0
    with pytest.raises(RuntimeError, match="this rank broke"):
        call("train", *words, "--name", "broken", "--config", tmp_path / "broken.yaml")
    whole, broken = only_run(tmp_path / "whole"), only_run(tmp_path / "broken")
    (tmp_path / "marker").unlink()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="this rank broke"):
            call("train", "--resume", broken)
    assert (tmp_path / "tested").exists()
    assert not (broken / "metrics.json").exists()
    assert call("train", "--resume", broken).code == 0

    once = points(whole)
    assert {"train/class/loss", "val/class/loss", "lr-AdamW/encoder", "gradient/cosines"} <= {
        tag for _, tag, _ in once
    }
    assert {"test/score", "val_best/score"} <= {
        tag for folder, tag, _ in once if folder == "hparams"
    }
    assert set(once.values()) == {1}
    assert points(broken) == once


@pytest.mark.parametrize("after", ["log_results", "write"])
def test_a_break_between_two_records_of_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """TensorBoard's table and metrics.json: both are there in the end, and once."""
    words = ("--logs", tmp_path, "--name", "run", *TOY, "--max_epochs", 1)
    owner: Any = src.cli.results if after == "log_results" else Run
    written = getattr(owner, after)

    def broken(*args: Any, **more: Any) -> None:
        written(*args, **more)
        if after == "log_results" or args[1].name == "metrics.json":
            raise RuntimeError("this rank broke")

    with monkeypatch.context() as patch:
        patch.setattr(owner, after, broken)
        with pytest.raises(RuntimeError, match="this rank broke"):
            call("train", *words)
    run = only_run(tmp_path / "run")
    assert call("train", "--resume", run).code == 0
    found = points(run)
    assert found["hparams", "test/score", 14] == 1
    assert max(found.values()) == 1
    assert "test" in read_json(run / "metrics.json")


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_averaged_weights_go_on_and_are_tested(tmp_path: Path, devices: int) -> None:
    """The raw weights train on; validation, the test and every command see their averages."""
    average = {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}}
    breaks = {
        "class_path": "tests.toy.RaiseAt",
        "init_args": {"step": 30, "marker": mark(tmp_path / "marker"), "rank": 0},
    }
    words = ("--logs", tmp_path, *TOY, "--lr", 0.01, "--devices", devices)

    def train_on(*words: object, breaks: bool = False) -> None:
        if devices > 1:
            launch("src.train", *words, code=int(breaks))
        else:
            with pytest.raises(RuntimeError, match="this rank broke") if breaks else nullcontext():
                assert call("train", *words).code == 0

    for name, callbacks in (("whole", [average]), ("broken", [average, breaks])):
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({"trainer": {"callbacks": callbacks}})
        )
        train_on(
            *words, "--name", name, "--config", tmp_path / f"{name}.yaml", breaks=name == "broken"
        )
    whole, broken = only_run(tmp_path / "whole"), only_run(tmp_path / "broken")
    train_on("--resume", broken)
    for which in ("last", "best"):
        for part in (
            "global_step",
            "state_dict",
            "current_model_state",
            "averaging_state",
            "optimizer_states",
            "metrics",
        ):
            assert_same(checkpoint(broken, which)[part], checkpoint(whole, which)[part], part)
    assert read_json(broken / "metrics.json") == read_json(whole / "metrics.json")
    assert call("evaluate", "--run", broken, "--out", tmp_path / "out.json").code == 0
    # on one device, where sums come in another order than on two
    assert read_json(tmp_path / "out.json") == pytest.approx(
        read_json(whole / "metrics.json")["test"], rel=1e-5, nan_ok=True
    )


@pytest.mark.parametrize(
    ("first", "workers"),
    [
        (20, 0),
        pytest.param(20, 2, marks=pytest.mark.slow),
        pytest.param(28, 0, marks=pytest.mark.slow),
    ],
)
def test_a_limit_on_steps_is_raised(tmp_path: Path, first: int, workers: int) -> None:
    """A run that ended in the middle of an epoch, or at its end, goes on from there."""
    words = (
        "--logs",
        tmp_path,
        *TOY,
        "--max_epochs",
        -1,
        "--model.scheduler",
        "null",
        "--data.num_workers",
        workers,
    )
    assert call("train", *words, "--name", "whole", "--trainer.max_steps", 50).code == 0
    assert call("train", *words, "--name", "longer", "--trainer.max_steps", first).code == 0
    whole, longer = only_run(tmp_path / "whole"), only_run(tmp_path / "longer")
    assert call("train", "--resume", longer, "--trainer.max_steps", 50).code == 0
    assert_same(checkpoint(longer, "last")["state_dict"], checkpoint(whole, "last")["state_dict"])
    assert (
        "max_steps: 50" in (longer / "config.yaml").read_text()
    )  # the next resume starts from here


def test_a_run_folder_may_be_moved(tmp_path: Path) -> None:
    """The best checkpoint is known again, and is replaced by a better one alone."""
    words = (
        "--logs",
        tmp_path,
        *TOY,
        "--lr",
        0.3,
        "--model.scheduler",
        "null",
    )  # a rate at which scores go up and down
    assert call("train", *words, "--name", "whole", "--max_epochs", 5).code == 0
    assert call("train", *words, "--name", "run", "--max_epochs", 2).code == 0
    moved = only_run(tmp_path / "run").rename(tmp_path / "elsewhere")
    ended = call("train", "--resume", moved, "--max_epochs", 5)
    assert (ended.code, ended.err) == (0, "")
    whole, best = only_run(tmp_path / "whole"), checkpoint(moved, "best")
    assert checkpoint(moved, "last")["global_step"] == 70
    assert best["global_step"] == checkpoint(whole, "best")["global_step"]
    assert_same(best["state_dict"], checkpoint(whole, "best")["state_dict"])


def test_a_longer_run_is_on_its_curve_from_the_first_step(tmp_path: Path) -> None:
    words = (
        "--logs",
        tmp_path,
        *TOY,
        "--name",
        "run",
        "--trainer.log_every_n_steps",
        1,
        "--model.scheduler.warmup",
        0,
    )
    assert call("train", *words, "--max_epochs", 1).code == 0
    run = only_run(tmp_path / "run")
    assert call("train", "--resume", run, "--max_epochs", 2).code == 0
    rates = curves(run)["lr/encoder"]
    # points stand at the number of steps taken, and show the rate of the next one
    for step in (15, 20, 27):
        assert rates[step] == pytest.approx(
            1e-3 * (1 + math.cos(math.pi * step / 28)) / 2, rel=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_sigterm_saves_and_says_how_to_resume(
    whole: Callable[..., Path], tmp_path: Path, devices: int
) -> None:
    flags = ("--devices", devices)
    stop = SignalAt.flags(18, tmp_path / "marker")
    done = launch(
        "src.train", "--logs", tmp_path, "--name", "stopped", *TOY, *flags, *stop, code=130
    )
    stopped = only_run(tmp_path / "stopped")
    assert f"python -m src.train --resume {stopped}" in done.stdout
    assert "Traceback" not in done.stderr
    assert 18 <= checkpoint(stopped, "last")["global_step"] <= 28

    launch("src.train", "--resume", stopped)
    assert_same(
        checkpoint(stopped, "last")["state_dict"], checkpoint(whole(*flags), "last")["state_dict"]
    )
    assert [s["status"] for s in read_json(stopped / "run.json")["sessions"]] == [
        "interrupted",
        "finished",
    ]


def test_a_run_whose_epochs_are_single_steps_stops_too(tmp_path: Path) -> None:
    """Each step of a small table is followed by a validation: none is only followed by a step."""
    (tmp_path / "table.csv").write_text(table())
    words = (*words_for_table(tmp_path), "--max_epochs", 5, "--model.encoder.dropout", 0.2)
    whole, stopped = (("--name", name) for name in ("whole", "stopped"))
    assert call("train", *words, *whole).code == 0
    assert call("train", *words, *stopped, *SignalAt.flags(2, tmp_path / "marker")).code == 130
    run = only_run(tmp_path / "logs" / "stopped")
    assert checkpoint(run, "last")["global_step"] == 2
    assert call("train", "--resume", run).code == 0
    for which in ("best", "last"):
        ours, theirs = (
            checkpoint(run, which),
            checkpoint(only_run(tmp_path / "logs" / "whole"), which),
        )
        assert_same(
            [ours[k] for k in ("state_dict", "loops", "lr_schedulers")],
            [theirs[k] for k in ("state_dict", "loops", "lr_schedulers")],
        )


@pytest.mark.slow
def test_resumed_on_other_devices_and_with_more_epochs(tmp_path: Path) -> None:
    """A finished run goes on; the number of devices is free to change."""
    assert call("train", "--logs", tmp_path, "--name", "run", *TOY, "--max_epochs", 2).code == 0
    run = only_run(tmp_path / "run")
    assert checkpoint(run, "last")["global_step"] == 28
    launch("src.train", "--resume", run, "--max_epochs", 3, "--devices", 2)
    assert checkpoint(run, "last")["global_step"] == 42
