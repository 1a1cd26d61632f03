"""Which validation is the best, with and without a score, and when patience ends."""

from math import inf, isnan, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from src.batch import InputShape
from src.cli.runs import load_run
from src.models import MultiTaskModel
from src.models.encoders import Encoder
from src.models.sharing import CrossStitch, HardSharing, Separate
from src.monitoring.checkpoints import find_task, restore_entries
from src.monitoring.selection import ALL, Selection, Validation
from tests.cli.calling import call, refused
from tests.launching import launch, only_run, read_json
from tests.toy import Toy


def seen(score: float, loss: float) -> Validation:
    return Validation(score, loss, epoch=1, step=1)


@pytest.mark.parametrize(
    ("ours", "theirs", "better"),
    [
        ((0.6, 9.0), (0.5, 1.0), True),
        ((0.5, 0.1), (0.5, 1.0), True),  # of equal scores the lower loss
        ((0.5, 1.0), (0.5, 1.0), False),  # the first of equals stays
        ((0.1, 9.0), (nan, 0.1), True),  # a defined score beats one that is not
        ((nan, 0.1), (0.1, 9.0), False),
        ((nan, 0.4), (nan, 0.5), True),
        ((nan, 0.5), (nan, 0.4), False),
        ((nan, 0.4), (-inf, nan), True),  # nothing known is better than a task that has diverged
        ((-inf, nan), (nan, 0.4), False),
    ],
)
def test_which_of_two_is_better(
    ours: tuple[float, float], theirs: tuple[float, float], better: bool
) -> None:
    assert seen(*ours).beats(seen(*theirs)) is better


def test_the_first_is_the_best_unless_it_shows_nothing() -> None:
    assert seen(-inf, nan).beats(None)
    assert seen(nan, 0.5).beats(None)
    assert not seen(nan, nan).beats(None)


def followed(
    values: list[tuple[float, float]], patience: int | None = None
) -> tuple[Selection, list[bool]]:
    """A selection that has seen these scores and losses, one an epoch, and after which of them it
    stopped the run.
    """
    selection, stops = Selection(patience), []
    model: Any = SimpleNamespace(
        names=("a",), weights={"a": 1.0}, score_weights={"a": 1.0}, own_weights=lambda: None
    )
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn=TrainerFn.FITTING),
        sanity_checking=False,
        should_stop=False,
        strategy=None,
        global_step=0,
    )
    selection.on_fit_start(trainer, model)
    for epoch, (score, loss) in enumerate(values):
        trainer.current_epoch, trainer.global_step = epoch, trainer.global_step + 10
        trainer.callback_metrics = {
            "val/score": torch.tensor(score),
            "val/a/loss": torch.tensor(loss),
        }
        selection.on_validation_end(trainer, model)
        stops.append(trainer.should_stop)
    return selection, stops


def test_without_a_score_the_loss_decides_and_patience_waits_for_it() -> None:
    losses = [0.9, 0.5, 0.6, 0.4, 0.5, 0.6]
    selection, stops = followed([(nan, loss) for loss in losses], patience=2)
    assert (selection.best[ALL].epoch, selection.best[ALL].step) == (4, 40)
    assert stops == [False, False, False, False, False, True]
    assert selection.undefined == 6


def test_a_score_that_is_defined_now_and_then() -> None:
    """The first that is defined is the best, whatever the losses before; a lower loss without a
    score is news all the same.
    """
    values = [(nan, 0.5), (0.2, 0.9), (nan, 0.4), (nan, 0.3), (0.1, 0.8), (nan, 0.6)]
    selection, stops = followed(values, patience=2)
    assert selection.best[ALL].epoch == 2
    assert stops == [False] * 5 + [True]
    assert followed([*values[:5], (0.3, 0.8)], patience=2)[0].best[ALL].epoch == 6


def test_a_selection_goes_on_from_its_state() -> None:
    values = [(nan, 0.5), (0.2, 0.9), (nan, 0.4), (0.1, 0.8)]
    selection, _ = followed(values)
    again = Selection()
    again.load_state_dict(selection.state_dict())
    assert again.state_dict() == selection.state_dict()
    assert again.best == selection.best


def rare(folder: Path) -> list[object]:
    """A table whose positive rows are all in training, as flags that train on it."""
    rows = ["a,b,fraud,split"]
    for i in range(160):
        split, a, b = (
            ("train", "train", "val", "test")[i % 4],
            i * 37 % 101 / 50 - 1,
            i * 53 % 97 / 48 - 1,
        )
        rows.append(f"{a:.3f},{b:.3f},{int(split == 'train' and a + b > 0.5)},{split}")
    (folder / "rare.csv").write_text("\n".join(rows) + "\n")
    return [
        *(
            "--data",
            "Table",
            "--data.path",
            folder / "rare.csv",
            "--data.targets",
            "[fraud]",
            "--data.split_column",
            "split",
        ),
        *("--model.encoder.width", 16, "--watch.figures_every", 0, "--logs", folder, "--lr", 0.01),
    ]


def test_a_table_whose_rare_rows_are_all_in_training(tmp_path: Path) -> None:
    """AUROC of no positive row is NaN: the best epoch is that of the lowest loss, and patience does
    not end the run at once.
    """
    words = (
        "--name",
        "x",
        "--max_epochs",
        8,
        "--watch.patience",
        5,
        "--trainer.callbacks",
        f"{__name__}.Losses",
    )
    ended = call("train", *rare(tmp_path), *words)
    assert ended.code == 0, ended.err
    run = only_run(tmp_path / "x")
    losses = torch.load(run / "losses.pt", weights_only=True)
    assert len(losses) == 8
    best = losses.index(min(losses))
    assert best > 0
    kept = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["epoch"] == best
    assert f"best validation: epoch {best + 1} of 8 (step {kept['global_step']})" in ended.out
    assert "val/score is not defined in 8 validations" in ended.out
    assert read_json(run / "metrics.json")["validation"]["val/fraud/loss"] == pytest.approx(
        min(losses)
    )


class Losses(L.Callback):
    """Writes the validation losses of the first task down."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.losses.append(
            float(
                next(
                    value
                    for key, value in trainer.callback_metrics.items()
                    if key.endswith("/loss")
                )
            )
        )
        torch.save(self.losses, Path(trainer.default_root_dir) / "losses.pt")


# -- tasks that share nothing ----------------------------------------------------------------------
class Epochs(L.Callback):
    """Keeps the weights and the tasks' scores of each validation."""

    def __init__(self) -> None:
        self.states: list[Any] = []
        self.scores: list[Any] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        self.scores.append(dict(pl_module.scores))  # type: ignore[arg-type]
        metrics = [
            {
                key: float(value)
                for key, value in trainer.callback_metrics.items()
                if key.startswith("val/")
            }
        ]
        kept = Path(trainer.default_root_dir) / "epochs.pt"
        before = torch.load(kept, weights_only=True)["metrics"] if kept.exists() else []
        torch.save(
            {"states": self.states, "scores": self.scores, "metrics": before + metrics}, kept
        )


@pytest.mark.parametrize("alike", [True, False], ids=["encoders as one", "encoders in a loop"])
def test_tasks_that_share_nothing_keep_their_own_best_epoch(tmp_path: Path, alike: bool) -> None:
    encoder = () if alike else ("--model.encoder", "tests.monitoring.test_selection.Normalised")
    words = (
        *(
            "--data",
            "tests.toy.Toy",
            "--model.sharing",
            "Separate",
            *encoder,
            "--model.encoder.width",
            8,
        ),
        "--lr",
        0.03,
    )
    watched = (
        "--watch.figures_every",
        0,
        "--trainer.callbacks",
        f"{__name__}.Epochs",
        "--logs",
        tmp_path,
        "--name",
        "x",
    )
    ended = call("train", *words, *watched, "--max_epochs", 5)
    assert ended.code == 0, ended.err
    run = only_run(tmp_path / "x")
    kept = torch.load(run / "epochs.pt", weights_only=True)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    chosen = {
        task: max(range(5), key=lambda k: kept["scores"][k][task]) for task in kept["scores"][0]
    }  # the first of equals
    assert len(set(chosen.values())) > 1  # or one epoch for all would pass, too

    model, data = load_run(run)
    inputs = cast(Any, data.split("test")).inputs
    with torch.no_grad():
        outputs = model(inputs)
        for task, epoch in chosen.items():
            assert best["callbacks"]["selection"]["best"][task]["epoch"] == epoch + 1
            for key in ("loss", *data.tasks[task].metric_names):
                ours, theirs = (
                    best["metrics"][f"val/{task}/{key}"],
                    kept["metrics"][epoch][f"val/{task}/{key}"],
                )
                assert ours == theirs or (isnan(ours) and isnan(theirs))
        for epoch in set(chosen.values()):
            model.load_state_dict(kept["states"][epoch])
            model.eval()
            for task, output in model(inputs).items():
                if chosen[task] == epoch:
                    assert torch.equal(output, outputs[task]), task
    scores = [kept["scores"][epoch][task] for task, epoch in chosen.items()]
    assert best["metrics"]["val/score"] == pytest.approx(sum(scores) / len(scores))
    assert "tasks share no weights" in ended.out

    out = tmp_path / "out.json"
    assert call("evaluate", "--run", run, "--out", out).code == 0
    assert read_json(out) == read_json(run / "metrics.json")["test"]


class Normalised(Encoder):
    """An encoder with buffers, several of which cannot run as one."""

    def __init__(self, shape: InputShape, width: int = 8) -> None:
        super().__init__(shape)
        stage = nn.Sequential(nn.Linear(shape.dense[0], width), nn.BatchNorm1d(width), nn.ReLU())
        self.stages = nn.Sequential(stage)
        self.features = width


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", [("fsdp",), ("placement",), ("fsdp", "--strategy.checkpoint", "folder")]
)
def test_tasks_keep_their_own_epochs_on_several_devices(
    tmp_path: Path, strategy: tuple[str, ...]
) -> None:
    words = (
        "--data",
        "tests.toy.Toy",
        "--model.sharing",
        "Separate",
        "--model.encoder.width",
        8,
        "--lr",
        0.03,
        "--max_epochs",
        4,
    )
    two = ("--devices", 2, "--strategy", *strategy)
    for name, more in (("one", ()), ("two", two)):
        launch(
            "src.train",
            *words,
            "--watch.figures_every",
            0,
            "--logs",
            tmp_path,
            "--name",
            name,
            *more,
        )
    one, other = (
        read_json(only_run(tmp_path / name) / "metrics.json")["test"] for name in ("one", "two")
    )
    evaluated = tmp_path / "out.json"
    assert call("evaluate", "--run", only_run(tmp_path / "two"), "--out", evaluated).code == 0
    assert read_json(evaluated) == pytest.approx(other, rel=1e-5, nan_ok=True)
    if len(strategy) == 1:  # else one epoch counts for all tasks, which is said
        assert other == pytest.approx(one, rel=1e-4, nan_ok=True)


def test_a_plateau_does_not_count_what_is_not_defined(tmp_path: Path) -> None:
    plateau = (
        "--model.scheduler",
        "ReduceLROnPlateau",
        "--model.scheduler.mode",
        "max",
        "--model.scheduler.patience",
        0,
    )
    ended = call("train", *rare(tmp_path), *plateau, "--max_epochs", 4, "--name", "x")
    assert ended.code == 0, ended.err
    last = torch.load(only_run(tmp_path / "x") / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == 0.01


def test_whose_weights_are_whose() -> None:
    data = Toy()
    shared = MultiTaskModel(data.tasks, data.input_shape, sharing=HardSharing)
    crossed = MultiTaskModel(data.tasks, data.input_shape, sharing=CrossStitch)
    apart = MultiTaskModel(data.tasks, data.input_shape, sharing=Separate)
    for model in (shared, crossed, apart):
        model.configure_model()
    assert shared.own_weights() is None
    assert crossed.own_weights() is None
    own = apart.own_weights()
    assert own is not None
    state = apart.state_dict()
    counted = sum(
        state[name].numel() if part is None else state[name][part].numel()
        for places in own.values()
        for name, part in places
    )
    assert counted == sum(p.numel() for p in apart.parameters())  # each weight once
    assert ("heads.number.0.weight", None) in own["number"]


def test_parts_of_a_state_are_put_back() -> None:
    live = torch.arange(6.0).view(3, 2)
    state = {"w": live, "v": torch.zeros(2)}
    earlier = {"w": -torch.ones(3, 2), "v": torch.ones(2)}
    restore_entries(state, earlier, [("w", 0), ("w", 2), ("v", None), ("never saved", None)])
    assert state["w"].tolist() == [[-1, -1], [2, 3], [-1, -1]]
    assert state["v"].tolist() == [1, 1]
    assert live[0, 0] == 0  # the model's own weights stay


def test_a_metric_belongs_to_the_longest_name_that_fits() -> None:
    names = ("a", "a/b")
    assert find_task("val/a/loss", names) == "a"
    assert find_task("val/a/b/loss", names) == "a/b"
    assert find_task("val/a/f1/x", names) == "a"
    assert find_task("val/score", names) is None


def test_patience_has_waited_already(tmp_path: Path) -> None:
    """A run that patience has ended trains no epoch more each time that it is resumed, and tests
    once.
    """
    words = (
        "--lr",
        1e-9,
        "--model.scheduler",
        "null",
        "--watch.patience",
        2,
        "--max_epochs",
        9,
        "--name",
        "x",
    )
    ended = call("train", *rare(tmp_path)[:-2], *words)
    assert ended.code == 0, ended.err
    run = only_run(tmp_path / "x")
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    metrics = (run / "metrics.json").read_bytes()
    assert "no better validation in 2 (patience)" in ended.out
    again = call("train", "--resume", run)
    assert again.code == 0
    assert "nothing was left to train (no better validation in 2 (patience))" in again.out
    assert "test: score" not in again.out
    assert (run / "metrics.json").read_bytes() == metrics
    assert (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        == last["global_step"]
    )
    refused(call("train", "--resume", run, "--max_epochs", 1), ["trainer.max_epochs is 1"])
