"""Settings of the Trainer: those that work work wholly, those that cannot be right are refused
before anything is left behind.
"""

import copy
import threading
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging

from src.batch import Batch, InputShape
from src.cli.runs import load_run
from src.cli.training import Training
from src.models import MultiTaskModel, encoders
from src.train import train
from tests.cli.calling import call, refused
from tests.launching import curves, finish, furthest, only_run, read_json, start, weights
from tests.toy import Toy

TOY = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    1,
    "--model.encoder.width",
    8,
    "--watch.figures_every",
    0,
)

REFUSED: dict[str, tuple[tuple[object, ...], list[str]]] = {
    "no logger, no guards": (
        ("--trainer.barebones", "true"),
        ["trainer.barebones", "set it to false"],
    ),
    "weights of 3 digits": (
        ("--precision", "bf16-true"),
        ["trainer.precision bf16-true", "use bf16-mixed"],
    ),
    "patience without validation": (
        ("--watch.patience", 3, "--trainer.limit_val_batches", 0),
        ["watch.patience", "limit_val_batches"],
    ),
    "fewer rows than devices": (("--devices", 20), ["data.batch_size is 16", "20 devices"]),
    "sparse gradients": (
        ("--model.optimizer", "SparseAdam"),
        ["model.optimizer", "SparseAdam takes sparse gradients", "use AdamW"],
    ),
    "a finder of learning rates": (
        ("--trainer.callbacks", "LearningRateFinder"),
        ["LearningRateFinder", "python -m src.lr_find"],
    ),
    "a finder of batch sizes": (
        ("--trainer.callbacks", "BatchSizeFinder"),
        ["BatchSizeFinder", "set --batch_size"],
    ),
    "plateau of a loss": (
        ("--model.scheduler", "ReduceLROnPlateau", "--fast_dev_run"),
        ["val/score", "--model.scheduler.mode max"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path: Path, case: str) -> None:
    words, says = REFUSED[case]
    refused(call("train", *TOY, "--logs", tmp_path, *words), says)
    assert list(tmp_path.iterdir()) == []


def trained(tmp_path: Path, *words: object) -> tuple[Path, str]:
    ended = call("train", *TOY, "--logs", tmp_path, "--name", "x", *words)
    assert ended.code == 0, ended.err
    return only_run(tmp_path / "x"), ended.out


def test_what_the_trainer_refuses_is_one_line(tmp_path: Path) -> None:
    """It looks at some settings only once the run has begun, and the run says that it failed."""
    for words, word in (
        (
            ("--trainer.val_check_interval", 1000, "--trainer.check_val_every_n_epoch", 1),
            "`val_check_interval` (1000) must be less than or equal",
        ),
        (
            ("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/scor"),
            "`val/scor` which is not available",
        ),
    ):
        ended = call("train", *TOY, "--logs", tmp_path, "--name", word[1:6].strip("/"), *words)
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert word in ended.err
        run = only_run(tmp_path / word[1:6].strip("/"))
        assert read_json(run / "run.json")["sessions"][-1]["status"] == "failed"


@pytest.mark.slow
def test_what_was_asked_for_in_order_to_debug(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = finish(
        start("src.train", *TOY, "--logs", tmp_path, "--config", "configs/debug/profile.yaml")
    )
    assert "FIT Profiler Report" in done.stderr + done.stdout
    with pytest.raises(RuntimeError, match="returned nan values"):  # the guard would say less
        call(
            "train",
            *TOY,
            "--logs",
            tmp_path,
            "--config",
            "configs/debug/detect-anomaly.yaml",
            "--data.nan_row",
            3,
        )


def test_without_a_test(tmp_path: Path) -> None:
    run, out = trained(tmp_path, "--trainer.limit_test_batches", 0)
    assert "test: score" not in out
    metrics = read_json(run / "metrics.json")
    assert metrics["test"] == {}
    assert -10 < metrics["validation"]["val/score"] < 1


def test_tuning_leaves_the_test_out(tmp_path: Path) -> None:
    run, out = trained(tmp_path, "--no_test")
    metrics = read_json(run / "metrics.json")
    assert list(metrics) == ["validation"]
    assert "test: score" not in out
    assert f"val: score {metrics['validation']['val/score']:.4f}" in out
    evaluated = call("evaluate", "--run", run)  # later
    assert (evaluated.code, evaluated.err) == (0, "")
    assert "test: score" in evaluated.out
    resumed = call("train", "--resume", run, "--no_test", "false")
    assert resumed.code == 0, resumed.err
    assert f"test: score {read_json(run / 'metrics.json')['test']['test/score']:.4f}" in resumed.out


def test_validation_and_test_stand_side_by_side(tmp_path: Path) -> None:
    run, out = trained(tmp_path, "--max_epochs", 2)
    metrics = read_json(run / "metrics.json")
    val, test = metrics["validation"], metrics["test"]
    assert f"val: score {val['val/score']:.4f}   test: score {test['test/score']:.4f}" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("number "))
    keys = ("loss", "mae", "rmse", "r2")
    assert row[1:] == [
        f"{of['number/' + key]:.4f}" for of in (short(val), short(test)) for key in keys
    ]
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert f"best validation: epoch {best['epoch'] + 1} of 2 (step {best['global_step']})" in out
    assert "training ended after epoch 2 (step 28): trainer.max_epochs 2 reached" in out


def short(metrics: dict[str, float]) -> dict[str, float]:
    return {key.partition("/")[2]: value for key, value in metrics.items()}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--max_epochs", -1, "--trainer.max_steps", 3), "trainer.max_steps 3 reached"),
        (("--max_epochs", -1, "--trainer.max_time", "{seconds: 1}"), "trainer.max_time is over"),
        (
            ("--max_epochs", 9, "--trainer.callbacks", f"{__name__}.Stops"),
            "a callback asked for it",
        ),
    ],
)
def test_why_a_run_ended(tmp_path: Path, words: tuple[object, ...], why: str) -> None:
    _, out = trained(tmp_path, *words, "--model.scheduler", "null")
    assert f": {why}\n" in out


class Stops(L.Callback):
    """Ends a run, as a search over settings does."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = True


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--trainer.limit_val_batches", 0), "no validation"),
        (
            ("--trainer.check_val_every_n_epoch", 5),
            "no validation in 1 epochs (trainer.check_val_every_n_epoch is 5)",
        ),
        (
            ("--trainer.val_check_interval", 1000),
            "no validation in 14 steps (trainer.val_check_interval is 1000)",
        ),
    ],
    ids=["none", "later than the last epoch", "later than the last step"],
)
def test_without_validation_the_last_weights_are_tested(
    tmp_path: Path, words: tuple[object, ...], why: str
) -> None:
    run, out = trained(tmp_path, *words)
    assert f"\n{why}: the last weights count, of epoch 1 (step 14)\n" in out
    assert not (run / "checkpoints" / "best.ckpt").exists()
    out_file = tmp_path / "out.json"
    ended = call("evaluate", "--run", run, "--out", out_file)
    assert (ended.code, ended.err) == (0, "")
    assert read_json(out_file) == read_json(run / "metrics.json")["test"]
    assert read_json(run / "metrics.json")["validation"] == {}
    assert f"test: score {read_json(run / 'metrics.json')['test']['test/score']:.4f}" in out


def test_without_checkpoints(tmp_path: Path) -> None:
    run, out = trained(tmp_path, "--trainer.enable_checkpointing", "false")
    assert not (run / "checkpoints").exists()
    assert "test/score" in read_json(run / "metrics.json")["test"]
    assert "trainer.enable_checkpointing false: the last weights are tested, not the best" in out


def test_a_finished_run_is_not_tested_again(tmp_path: Path) -> None:
    run, _ = trained(tmp_path)
    before = (run / "metrics.json").read_bytes()
    (run / "metrics.json").write_bytes(
        before.replace(b"{", b"{ ", 1)
    )  # marked, so that writing the same would be seen
    marked = (run / "metrics.json").read_bytes()
    ended = call("train", "--resume", run)
    assert (ended.code, ended.err) == (0, "")
    assert "nothing was left to train (trainer.max_epochs 1 reached)" in ended.out
    assert "test: score" not in ended.out
    assert (run / "metrics.json").read_bytes() == marked
    assert "test/score" in curves(run / "hparams")  # its line is still complete


# -- weights that are averaged over steps ----------------------------------------------------------
class Averages(WeightAveraging):
    """The plain mean of the weights of all steps since the third."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= 3


@pytest.mark.parametrize(
    "kind",
    [("EMAWeightAveraging", "--trainer.callbacks.decay", 0.9), (f"{__name__}.Averages",)],
    ids=["moving", "plain"],
)
def test_averaged_weights_are_those_that_count(tmp_path: Path, kind: tuple[object, ...]) -> None:
    run, out = trained(tmp_path, "--trainer.callbacks", *kind, "--max_epochs", 2, "--lr", 0.01)
    name = str(kind[0]).rpartition(".")[2]
    assert (
        f"{name}: the averaged weights count, in validation, best.ckpt, the test and predictions"
        in out
    )
    for split, key in (("test", "test"), ("val", "validation")):
        assert (
            call(
                "evaluate", "--run", run, "--split", split, "--out", tmp_path / f"{split}.json"
            ).code
            == 0
        )
        # the validation was another process's order of sums at most
        assert read_json(tmp_path / f"{split}.json") == pytest.approx(
            read_json(run / "metrics.json")[key], rel=1e-6, nan_ok=True
        )
    assert read_json(tmp_path / "test.json") == read_json(run / "metrics.json")["test"]
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    model, _ = load_run(run)
    assert all(
        torch.equal(value, best["state_dict"][name]) for name, value in model.state_dict().items()
    )
    raw = best["current_model_state"]
    assert any(not torch.equal(value, raw[name]) for name, value in model.state_dict().items())


# -- schedules -------------------------------------------------------------------------------------
def test_a_schedule_of_steps_moves_each_step_and_knows_their_number(tmp_path: Path) -> None:
    one = (
        "--model.scheduler",
        "OneCycleLR",
        "--model.scheduler.max_lr",
        0.01,
        "--trainer.log_every_n_steps",
        1,
    )
    run, _ = trained(tmp_path, *one)
    rates = curves(run)["lr/encoder"]
    assert max(rates.values()) == pytest.approx(0.01, rel=1e-2)
    assert max(rates, key=lambda step: rates[step]) in (3, 4, 5)  # 0.3 of 14 steps
    assert rates[14] < 5e-4


def test_a_schedule_of_steps_that_is_moved_each_epoch(tmp_path: Path) -> None:
    cyclic = (
        "--model.scheduler",
        "CyclicLR",
        "--model.scheduler.base_lr",
        0.001,
        "--model.scheduler.max_lr",
        0.01,
    )
    _, out = trained(tmp_path, *cyclic, "--model.scheduler_interval", "epoch")
    assert (
        "note: CyclicLR is made to move at each step; model.scheduler_interval epoch moves it "
        "once an epoch\n" in out
    )


def test_a_schedule_that_ends_before_the_run(tmp_path: Path) -> None:
    one = (
        "--model.scheduler",
        "OneCycleLR",
        "--model.scheduler.max_lr",
        0.01,
        "--model.scheduler.total_steps",
        10,
    )
    ended = call("train", *TOY, "--logs", tmp_path, *one)
    refused(
        ended,
        [
            "model.scheduler OneCycleLR ends at step 10, but the run takes 14",
            "--model.scheduler.total_steps 14",
        ],
    )


@pytest.mark.parametrize("bar", ["RichProgressBar", "TQDMProgressBar"])
def test_a_progress_bar_of_ones_own(tmp_path: Path, bar: str) -> None:
    ended = call("train", *TOY, "--logs", tmp_path, "--trainer.callbacks", bar)
    assert ended.code == 0, ended.err
    assert "Epoch" in ended.out + ended.err


def test_double_precision_agrees_with_single(tmp_path: Path) -> None:
    single, _ = trained(tmp_path / "32")
    double, _ = trained(tmp_path / "64", "--precision", "64-true")
    assert weights(double).keys() == weights(single).keys()
    state = torch.load(double / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {
        value.dtype for name, value in state.items() if name.startswith(("heads", "sharing"))
    } == {torch.float64}
    assert 0 < furthest(weights(double), weights(single)) < 1e-5
    assert curves(double)["train/vector/loss"] == pytest.approx(
        curves(single)["train/vector/loss"], rel=1e-5
    )


def test_which_checkpoint_is_evaluated(tmp_path: Path) -> None:
    run, _ = trained(tmp_path, "--max_epochs", 3, "--lr", 0.3)  # each epoch is worse than the first
    scores = {}
    for which in ("best", "last"):
        out = tmp_path / f"{which}.json"
        assert (
            call(
                "evaluate", "--run", run, "--split", "val", "--checkpoint", which, "--out", out
            ).code
            == 0
        )
        scores[which] = read_json(out)["val/score"]
    assert scores["best"] == pytest.approx(
        read_json(run / "metrics.json")["validation"]["val/score"]
    )
    assert scores["last"] < scores["best"]


def test_a_run_is_opened_from_python(tmp_path: Path) -> None:
    run, _ = trained(tmp_path)
    model, data = load_run(run)
    assert isinstance(data, Toy)
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.training
    with torch.no_grad():
        outputs = model(data.split("test").inputs)
    assert set(outputs) == set(data.tasks)
    with pytest.raises(ValueError, match="does not exist"):
        load_run(tmp_path / "none")


def test_evaluation_does_not_keep_a_runs_limits(tmp_path: Path) -> None:
    run, _ = trained(tmp_path, "--trainer.limit_test_batches", 1)
    out = tmp_path / "out.json"
    assert call("evaluate", "--run", run, "--out", out).code == 0
    whole, part = read_json(out), read_json(run / "metrics.json")["test"]
    assert whole["test/number/loss"] != pytest.approx(
        part["test/number/loss"], rel=1e-3
    )  # one batch of 24 of 97 rows


def test_evaluation_of_the_training_rows_starts_at_the_first(tmp_path: Path) -> None:
    """The best checkpoint was taken within an epoch, and has that place in the training stream."""
    run, _ = trained(tmp_path, "--trainer.val_check_interval", 0.5)
    scores = []
    for size in (500, 24, 4):
        out = tmp_path / f"{size}.json"
        assert (
            call(
                "evaluate",
                "--run",
                run,
                "--split",
                "train",
                "--data.eval_batch_size",
                size,
                "--out",
                out,
            ).code
            == 0
        )
        scores.append(read_json(out))
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    assert scores[2] == pytest.approx(scores[0], rel=1e-5)


def test_a_model_can_be_copied_after_training(tmp_path: Path) -> None:
    training = Training([str(word) for word in (*TOY, "--logs", tmp_path)])
    training.start()
    copied = copy.deepcopy(training.cli.model)
    x = torch.randn(3, 5)
    for name, output in training.cli.model(x).items():
        assert torch.equal(copied(x)[name], output)


def test_training_in_another_thread(tmp_path: Path) -> None:
    """As a server or a search over settings does; only the main thread may listen to signals."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            train([str(word) for word in (*TOY, "--logs", tmp_path, "--name", "x")])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == []
    assert (only_run(tmp_path / "x") / "metrics.json").is_file()


@pytest.mark.slow
def test_processes_that_are_spawned(tmp_path: Path) -> None:
    """As in a notebook: the weights come back to this process through the writer of checkpoints."""
    process = start(
        "src.train",
        *TOY,
        "--logs",
        tmp_path,
        "--name",
        "x",
        "--strategy",
        "ddp_spawn",
        "--devices",
        2,
    )
    done = finish(process)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "test: score" in done.stdout


# -- classes of one's own --------------------------------------------------------------------------
class MLP(encoders.MLP):
    """An encoder of a fork that happens to have the name of one of ours."""

    def __init__(self, shape: InputShape, width: int = 4, extra: int = 1) -> None:
        super().__init__(shape, width=width * extra)


@pytest.mark.parametrize("by", ["file", "flag"])
def test_a_class_with_the_name_of_one_of_ours_inherits_nothing(tmp_path: Path, by: str) -> None:
    path = f"{__name__}.MLP"
    (tmp_path / "mine.yaml").write_text(
        f"model:\n  encoder:\n    class_path: {path}\n    init_args:\n      extra: 3\n"
    )
    words = {
        "file": ("--config", tmp_path / "mine.yaml"),
        "flag": ("--model.encoder", path, "--model.encoder.extra", 3),
    }[by]
    ended = call("train", "--data", "tests.toy.Toy", *words, "--print_config")
    assert ended.code == 0, ended.err
    assert "width: 4" in ended.out
    assert "extra: 3" in ended.out
    assert "depth" not in ended.out


class Broken(encoders.Encoder):
    """An encoder with a bug that raises a ValueError."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(shape)
        _, _ = shape.dense


def test_a_value_error_of_a_class_of_ones_own_names_the_place(tmp_path: Path) -> None:
    """'Not enough values to unpack' alone would help nobody."""
    ended = call("train", *TOY[:2], "--logs", tmp_path, "--model.encoder", f"{__name__}.Broken")
    refused(ended, ["Broken: not enough values to unpack", "test_trainer_settings.py, line "])


class Order(L.Callback):
    """Notes the rows of each batch."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.seen.append(batch.ids.tolist())


def test_a_data_module_serves_several_fits(tmp_path):
    """The position of one run in the stream is no other's: two models trained on one data module
    see the same batches.
    """
    data, orders = Toy(), [Order(), Order()]
    quietly = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    for i, order in enumerate(orders):
        model = MultiTaskModel(data.tasks, data.input_shape)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=2,
            callbacks=[order],
            default_root_dir=tmp_path / str(i),
            **quietly,
        )
        trainer.fit(model, data)
        trainer.test(
            model, data, ckpt_path=trainer.checkpoint_callback.best_model_path, verbose=False
        )
    assert len(orders[0].seen) == 28
    assert orders[0].seen == orders[1].seen
