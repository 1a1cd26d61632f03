"""What TensorBoard shows is what was trained: tags, values, steps, the page of all tasks, one line
of hparams a run.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from src.monitoring.dashboard import find_later_events, lay_out_charts
from src.monitoring.hparams import flatten_settings
from src.tasks import BinaryClassification, Regression
from tests.cli.calling import call
from tests.launching import curves, only_run, read_json
from tests.toy import Toy

TOY = (
    "--data",
    "tests.toy.Toy",
    "--max_epochs",
    2,
    "--model.encoder.width",
    16,
    "--watch.figures_every",
    0,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same run, with its losses logged at each step, every 5 steps, and at the end of epochs
    alone.
    """
    logs = tmp_path_factory.mktemp("logs")
    for every in (1, 5, 1000):
        words = ("--logs", logs, "--name", every, "--trainer.log_every_n_steps", every)
        assert call("train", *TOY, *words).code == 0
    return {every: only_run(logs / str(every)) for every in (1, 5, 1000)}


def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    found.Reload()
    return found


def test_tags_follow_one_rule(runs: dict[int, Path]) -> None:
    tags, tasks = set(curves(runs[5])), Toy().tasks
    assert {f"{stage}/{name}/loss" for stage in ("train", "val") for name in tasks} <= tags
    assert {f"val/{n}/{m}" for n, task in tasks.items() for m in task.metric_names} <= tags
    assert {f"weight/{name}" for name in tasks} <= tags
    assert {"val/score", "lr/encoder", "lr/heads", "throughput/samples_per_second"} <= tags


def test_what_is_no_curve_has_no_card(runs: dict[int, Path]) -> None:
    """The test is one point, and stands in the table of runs; the epoch would be the first card of
    all.
    """
    tags = set(curves(runs[5]))
    assert not [tag for tag in tags if tag.startswith("test/")]
    assert "epoch" not in tags
    assert "test/score" in curves(runs[5] / "hparams")


def test_points_stand_where_they_were_trained(runs: dict[int, Path]) -> None:
    assert list(curves(runs[5])["train/labels/loss"]) == [5, 10, 14, 19, 24, 28]
    assert list(curves(runs[1000])["train/labels/loss"]) == [14, 28]
    assert list(curves(runs[1])["train/labels/loss"]) == list(range(1, 29))
    for run in runs.values():
        assert list(curves(run)["val/score"]) == [14, 28]


def test_a_point_is_the_mean_over_all_labels_since_the_last(runs: dict[int, Path]) -> None:
    """The toy's labels are missing unevenly, so that a mean of the batches' means is another
    number.
    """
    rows = Toy().split("train").targets
    fine, coarse = curves(runs[1]), curves(runs[1000])
    order = range(1, 15)
    sampler = Toy(batch_size=16).train_dataloader().sampler
    batches = list(sampler)
    for name in ("number", "binary"):
        counts = [int((~rows[name][ids].isnan()).sum()) for ids in batches]
        mean = sum(
            c * fine[f"train/{name}/loss"].get(s, 0.0) for c, s in zip(counts, order, strict=True)
        ) / sum(counts)
        assert coarse[f"train/{name}/loss"][14] == pytest.approx(mean, rel=1e-5)
        batch_means = [
            fine[f"train/{name}/loss"][s] for s in order if s in fine[f"train/{name}/loss"]
        ]
        assert mean != pytest.approx(sum(batch_means) / len(batch_means), rel=1e-3)


def test_one_page_has_all_tasks(runs: dict[int, Path]) -> None:
    summary = events(runs[5]).Tensors("custom_scalars__config__")[0]
    layout = Layout()
    layout.ParseFromString(summary.tensor_proto.string_val[0])
    (page,) = layout.category
    shown = {chart.title: list(chart.multiline.tag) for chart in page.chart}
    for name in Toy().tasks:
        assert f"val/{name}/loss$" in shown["validation loss of all tasks"]
        assert shown[f"loss of {name}"] == [f"train/{name}/loss$", f"val/{name}/loss$"]
    assert shown["errors of number"] == ["val/number/mae$", "val/number/rmse$"]
    assert shown["metrics of number"] == ["val/number/r2$"]
    assert "errors of class" not in shown


def test_a_chart_of_one_task_draws_no_other() -> None:
    page = lay_out_charts(
        {"age": Regression(), "age_group": BinaryClassification(), "a.b": Regression()}
    )
    assert page["loss of age"] == ["Multiline", [r"train/age/loss$", r"val/age/loss$"]]
    assert page["loss of a.b"] == ["Multiline", [r"train/a\.b/loss$", r"val/a\.b/loss$"]]


def test_the_config_is_there_as_text(runs: dict[int, Path]) -> None:
    text = events(runs[5]).Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    lines = text.splitlines()
    assert all(line.startswith("    ") for line in lines)  # Markdown shows it as it is
    assert yaml.safe_load("\n".join(line[4:] for line in lines)) == yaml.safe_load(
        (runs[5] / "config.yaml").read_text()
    )


def hparams(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    data = events(run).summary_metadata
    for tag, metadata in data.items():
        if metadata.plugin_data.plugin_name == "hparams":
            parsed = HParamsPluginData.FromString(metadata.plugin_data.content)
            found[tag] = parsed
    return found


def test_hparams_are_one_line_with_the_best_metrics(runs: dict[int, Path]) -> None:
    line = runs[5] / "hparams"
    found = hparams(line)
    start = found["_hparams_/session_start_info"].session_start_info
    settings = {
        key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()
    }
    assert settings["model.encoder"] == "MLP"
    assert settings["model.encoder.width"] == 16
    assert settings["data"] == "Toy"
    assert settings["model.optimizer.lr"] == pytest.approx(1e-3)
    assert settings["trainer.max_epochs"] == 2
    assert not any(key.startswith(("watch", "trainer.log_every", "name")) for key in settings)
    metrics, shown = read_json(runs[5] / "metrics.json"), curves(line)
    wanted = {"score", *(f"{name}/{task.monitor}" for name, task in Toy().tasks.items())}
    assert set(shown) == {
        f"{part}/{key}" for part in ("val_best", "test") for key in wanted
    }  # no column but these
    step = torch.load(runs[5] / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
    assert shown["val_best/score"] == {step: pytest.approx(metrics["validation"]["val/score"])}
    assert shown["test/number/r2"] == {step: pytest.approx(metrics["test"]["test/number/r2"])}
    assert found["_hparams_/session_end_info"].session_end_info.status == Status.Value(
        "STATUS_SUCCESS"
    )
    assert (
        "_hparams_/experiment" not in found
    )  # of several, TensorBoard would take one run's columns for all


def test_a_run_that_fails_has_a_line_too(tmp_path: Path) -> None:
    words = ("--logs", tmp_path, "--name", "x", "--data.nan_row", 3)
    assert call("train", *TOY, *words).code == 2
    found = hparams(only_run(tmp_path / "x") / "hparams")
    assert (
        found["_hparams_/session_start_info"]
        .session_start_info.hparams["trainer.max_epochs"]
        .number_value
        == 2
    )
    assert found["_hparams_/session_end_info"].session_end_info.status == Status.Value(
        "STATUS_FAILURE"
    )


def test_settings_by_dotted_key() -> None:
    tree = {
        "model": {
            "encoder": {"class_path": "src.models.MLP", "init_args": {"width": 3}},
            "x": None,
            "y": [1, 2],
        },
        "a": True,
    }
    assert flatten_settings(tree) == {
        "model.encoder": "MLP",
        "model.encoder.width": 3,
        "model.y": "[1, 2]",
        "a": True,
    }


def test_a_resumed_run_draws_no_point_twice(tmp_path: Path) -> None:
    words = ("--logs", tmp_path, "--name", "x", "--trainer.log_every_n_steps", 5)
    assert call("train", *TOY, *words).code == 0
    run = only_run(tmp_path / "x")
    assert call("train", "--resume", run, "--max_epochs", 3).code == 0
    found = events(run)
    assert (
        hparams(run / "hparams")["_hparams_/session_start_info"]
        .session_start_info.hparams["trainer.max_epochs"]
        .number_value
        == 3
    )
    for tag in ("train/labels/loss", "val/score", "lr/encoder"):
        steps = [event.step for event in found.Scalars(tag)]
        assert steps == sorted(set(steps))
        assert steps[-1] == 42


def test_each_of_several_loggers_gets_the_curves(tmp_path: Path) -> None:
    loggers = [
        {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": str(tmp_path), "name": "csv", "version": ""},
        },
        {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": str(tmp_path), "name": "board", "version": ""},
        },
    ]
    words = (
        "--logs",
        tmp_path,
        "--name",
        "x",
        "--trainer.logger",
        yaml.safe_dump(loggers, default_flow_style=True),
    )
    assert call("train", *TOY, *words).code == 0
    header = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()[0]
    assert {"train/number/loss", "test/score", "epoch"} <= set(header.split(","))
    assert list(curves(tmp_path / "board")["train/number/loss"]) == [14, 28]
    run = only_run(tmp_path / "x")  # which has its own TensorBoard all the same
    assert list(curves(run)["train/number/loss"]) == [14, 28]
    assert "val_best/score" in curves(run / "hparams")


def test_no_logger_at_all(tmp_path: Path) -> None:
    words = ("--logs", tmp_path, "--name", "x", "--trainer.logger", "false", "--max_epochs", 1)
    assert call("train", *TOY, *words).code == 0
    assert not list(only_run(tmp_path / "x").rglob("events.*"))


def test_what_was_written_after_a_checkpoint_is_found(tmp_path: Path) -> None:
    """Only event files of the run itself, and only where the checkpoint says how much they held."""
    name = "events.out.tfevents.{}.host.1.0"
    for number, size in ((1, 10), (2, 30), (3, 5)):
        (tmp_path / name.format(number)).write_bytes(b"x" * size)
    (tmp_path / "elsewhere").write_bytes(b"x" * 50)
    (tmp_path / name.format(4)).symlink_to(tmp_path / "elsewhere")
    sizes = {name.format(1): 10, name.format(2): 20, "gone": 7}
    assert find_later_events(tmp_path, sizes) == {
        tmp_path / name.format(2): 20,
        tmp_path / name.format(3): 0,
    }
    for none in (None, [1], {name.format(1): "10"}, {name.format(1): -1}):
        assert find_later_events(tmp_path, none) == {}
