"""Keeps runs from forgetting what they started from, and says how far they have forgotten."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from src.checkpoint import load_checkpoint
from src.cli.app import CLI
from src.cli.passes import evaluate_checkpoint
from src.cli.runs import load_run
from src.cli.starting import Start
from src.errors import UserError
from src.files.atomic import write_atomically
from src.models.transfer.anchor import Anchor
from src.models.transfer.ewc import EWC
from src.models.transfer.fisher import measure_fisher
from src.models.transfer.retention import Retention, list_started
from src.models.transfer.start import start_from
from src.models.transfer.teacher import Teacher
from src.monitoring import say
from src.monitoring.checkpoints import find_task
from src.run import Run
from src.tasks import Task
from src.tasks.score import compute_mean

BEFORE = "before"  # the network of the start, beside the results


def keep_start(cli: CLI, run: Run | None) -> None:
    """Keeps the start of a run in its folder, and lets the model hold on to it as settings say.

    Args:
        cli: Data, model and trainer; the model has the weights that it starts from, on whole
            parameters, or the run goes on.
        run: The run folder; None for a run that keeps nothing.

    Raises:
        UserError: A setting cannot have an effect, or the start of a run that goes on is gone.
    """
    settings = cli.config_init["init_from"]
    if cli.start is not None:
        content = describe_start(cli, cli.start, settings.anchor)
        if run is not None:
            save_start(run, content)
    elif run is not None and settings.source is not None and run.start.exists():
        content = load_checkpoint(run.start, mmap=True)
    elif settings.anchor is None and settings.distillation is None:
        return
    else:
        where = "" if run is None else f"; restore {run.start}"
        raise UserError(f"init_from: the weights that the run started from are gone{where}")

    teacher = None
    if settings.distillation is not None:
        teacher = make_teacher(cli, content, settings.distillation)
    if settings.anchor is not None or teacher is not None:
        state, fisher = content["state_dict"], content["fisher"]
        cli.model.retain(Retention(settings.anchor, teacher, content["names"], state, fisher))


def describe_start(cli: CLI, start: Start, anchor: Anchor | None) -> dict[str, Any]:
    """Returns the start of a run as a checkpoint: its weights, and what of them is a source's.

    Raises:
        UserError: The anchor reads rows that are not there.
    """
    model = cli.model
    kept = [report.part for report in start.reports if report.status == "kept"]
    fisher = measure_at_source(cli, start, anchor) if isinstance(anchor, EWC) else {}
    return {
        "pytorch-lightning_version": L.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "tasks": {name: task.describe() for name, task in model.chosen_tasks.items()},
        "metrics": {},
        "names": list_started(model, start.reports),
        "kept": [name for name in model.tasks if f"heads.{name}" in kept],
        "encoder": all(r.status == "kept" for r in start.reports if is_of_network(r.part)),
        "fisher": fisher,
    }


def is_of_network(part: str) -> bool:
    """Returns whether a part is of the architecture, and no head."""
    return not part.startswith("heads.")


@rank_zero_only
def save_start(run: Run, content: Mapping[str, Any]) -> None:
    """Writes the start of a run, whole or not at all."""
    run.start.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(run.start, lambda file: torch.save(content, file))


def make_teacher(cli: CLI, content: Mapping[str, Any], temperature: float) -> Teacher:
    """Returns the network of the start as a teacher of the tasks whose heads were kept whole.

    Raises:
        UserError: Its network differs from the source in more than heads, or no head was kept.
    """
    if not content["encoder"]:
        raise UserError(
            "init_from.distillation: the network differs from the source's in more than heads, so "
            "that its first outputs are not the source's, and cannot teach: keep encoder, sharing "
            "and columns"
        )
    return Teacher(cli.model, content["state_dict"], content["kept"], temperature)


def measure_at_source(cli: CLI, start: Start, anchor: EWC) -> dict[str, Tensor]:
    """Measures the Fisher information of the source, and lays it out like this run's parameters.

    Raises:
        UserError: The source is a checkpoint without its run, whose rows nobody knows.
    """
    settings = start.settings
    path = Path(start.source.path)
    if not path.is_dir() or not (path / "config.yaml").is_file():
        raise UserError(
            "init_from.anchor EWC reads the validation rows of the source, but "
            f"{path} is a checkpoint: name its run folder"
        )
    say(f"EWC: reading the Fisher information of {path} from {anchor.rows} validation rows")
    theirs, data = load_run(path, settings.checkpoint, task=settings.task, calibrated=False)
    fisher = measure_fisher(theirs, data.split("val"), anchor.rows)
    state = {}
    for name, tensor in start.source.state.items():
        state[name] = fisher.get(name, torch.zeros_like(tensor))

    # the weights find their places as they did, and fresh ones have none
    like = copy.deepcopy(cli.model)
    with torch.no_grad():
        for p in like.parameters():
            p.zero_()
    start_from(like, replace(start.source, state=state), settings.names, start.inputs)
    return {name: p.detach() for name, p in like.named_parameters()}


# -- before and after ------------------------------------------------------------------------------
def measure_before(cli: CLI, run: Run, tests: bool) -> dict[str, Any] | None:
    """Measures the tasks that a run has kept with the network that it started from.

    Args:
        cli: Data, model and trainer, after the training.
        run: The run folder.
        tests: Whether test rows are read.

    Returns:
        {validation or test: metrics of the kept tasks}; None where none was kept.
    """
    # the first rank's clock has named the folder
    there = str(run.start) if run.start.exists() else None
    start: str | None = cli.trainer.strategy.broadcast(there)
    if start is None:
        return None
    kept = load_checkpoint(start, mmap=True)["kept"]
    if not kept:
        return None
    found = {}
    with silence(cli.trainer):
        cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=start, verbose=False)
        values = {key: float(value) for key, value in cli.trainer.callback_metrics.items()}
        found["validation"] = choose_tasks(cli, "val", values, kept)
        if tests:
            values = evaluate_checkpoint(cli, start)
            found["test"] = choose_tasks(cli, "test", values, kept)
    return found


@contextmanager
def silence(trainer: Any) -> Iterator[None]:
    """Keeps values of other weights than the run's out of its loggers and callbacks for a while."""
    loggers, callbacks = trainer.loggers, trainer.callbacks
    trainer.loggers, trainer.callbacks = [], []
    try:
        yield
    finally:
        trainer.loggers, trainer.callbacks = loggers, callbacks


def choose_tasks(
    cli: CLI, stage: str, values: Mapping[str, float], kept: list[str]
) -> dict[str, float]:
    """Returns the metrics of some tasks, with the mean of their scores."""
    model = cli.model
    of_stage = {key: value for key, value in values.items() if key.startswith(f"{stage}/")}
    found = {key: of_stage[key] for key in of_stage if find_task(key, model.names) in kept}
    scores = {name: model.scores[name] for name in kept}
    # the score of a run may be that of a new task alone
    counts = any(model.score_weights[name] for name in kept)
    weights = model.score_weights if counts else dict.fromkeys(kept, 1.0)
    found[f"{stage}/score"] = compute_mean(scores, weights)
    return found


def describe_change(
    tasks: Mapping[str, Task], before: Mapping[str, float], after: Mapping[str, float]
) -> list[str]:
    """Says how each task that was kept has changed, by its metric that counts.

    Args:
        tasks: {name: task}.
        before: {stage/task/metric: value} of the start.
        after: The values of the run.
    """
    stage = "test" if "test/score" in before and "test/score" in after else "val"
    lines = []
    for name, task in tasks.items():
        key = f"{stage}/{name}/{task.monitor}"
        if key in before and key in after:
            old, new = before[key], after[key]
            change = f"{old:.4f} -> {new:.4f} ({new - old:+.4f})"
            lines.append(f"{name}: {task.monitor} {change}")
    if not lines:
        return []
    return [f"since the start, on {stage} rows: {'; '.join(lines)}"]
