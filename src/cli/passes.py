"""Tests and predictions with a checkpoint, each task by the weights of its own best epoch.

A checkpoint may hold the whole network of several epochs. The rows then pass through each of them,
and of each pass the results of its own tasks are kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L

from src.checkpoint import group_tasks, load_checkpoint
from src.cli.app import CLI
from src.models import MultiTaskModel
from src.monitoring.checkpoints import find_task
from src.tasks.score import compute_mean


def evaluate_checkpoint(cli: CLI, checkpoint: str | None) -> dict[str, float]:
    """Tests the weights of a checkpoint.

    Args:
        cli: Data, model and trainer.
        checkpoint: Its path; None tests the weights that the model has.

    Returns:
        {test/task/metric: value}, and test/score.
    """
    trainer = cli.trainer
    model = cli.model
    groups = read_groups(checkpoint)
    if len(groups) < 2:
        trainer.test(model, cli.datamodule, ckpt_path=checkpoint, verbose=False)
        return read_test_metrics(trainer)

    metrics: dict[str, float] = {}
    scores: dict[str, float] = {}
    loggers = trainer.loggers
    # of each pass only some values count
    trainer.loggers = []
    for step, names in groups.items():
        with use_weights(model, step):
            trainer.test(model, cli.datamodule, ckpt_path=checkpoint, verbose=False)
        for name in names:
            scores[name] = model.scores[name]
        tested = read_test_metrics(trainer)
        metrics |= {key: tested[key] for key in tested if find_task(key, model.names) in names}
    metrics["test/score"] = compute_mean(scores, model.score_weights)
    trainer.loggers = loggers
    for logger in loggers:
        logger.log_metrics(metrics, step=trainer.global_step)
        logger.save()
    return metrics


def predict_checkpoint(cli: CLI, checkpoint: str) -> list[Any]:
    """Returns the row numbers and {task: outputs} of each batch of this process.

    Args:
        cli: Data, model and trainer.
        checkpoint: Its path.
    """
    groups = read_groups(checkpoint)
    if len(groups) < 2:
        return cli.trainer.predict(cli.model, cli.datamodule, ckpt_path=checkpoint) or []

    found: list[Any] = []
    for step, names in groups.items():
        with use_weights(cli.model, step):
            batches = cli.trainer.predict(cli.model, cli.datamodule, ckpt_path=checkpoint) or []
        if not found:
            found = [(ids, {}) for ids, _ in batches]
        # the same rows come in the same order each time
        for (_, kept), (_, outputs) in zip(found, batches, strict=True):
            kept |= {name: outputs[name] for name in names}
    return found


def read_groups(checkpoint: str | None) -> dict[int, list[str]]:
    """Returns {optimizer step: the tasks whose weights are those of that step}."""
    if checkpoint is None:
        return {}
    return group_tasks(load_checkpoint(checkpoint, mmap=True, whole=False))


@contextmanager
def use_weights(model: MultiTaskModel, step: int) -> Iterator[None]:
    """Lets the model load the weights of an optimizer step for a while."""
    model.step_of_weights = step
    try:
        yield
    finally:
        model.step_of_weights = None


def read_test_metrics(trainer: L.Trainer) -> dict[str, float]:
    """Returns the metrics of the latest test."""
    found = {}
    for key, value in trainer.callback_metrics.items():
        if key.startswith("test/"):
            found[key] = float(value)
    return found
