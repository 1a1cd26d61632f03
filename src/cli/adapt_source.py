"""The run that a task is adapted from, and data with the task: settings, and what is refused."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from src.cli.adapt_call import FROZEN, METHODS, OWN, Call
from src.cli.app import CLI
from src.cli.classes import subclasses
from src.cli.flags import split_flags
from src.cli.runs import read_settings, read_trusted
from src.data.tables.carried import Carried
from src.data.tables.table import Table
from src.errors import UserError, suggest_or_list
from src.files.yaml12 import load
from src.models.few_shot.anil import INNER_STEPS, InnerLoop
from src.models.heads import name_heads
from src.models.transfer.report import PartReport
from src.models.transfer.source import Source
from src.run import Run

# settings of a table that say how columns are read; which rows there are, another file says anew
OF_COLUMNS = (
    *("categorical", "dates", "date_format", "text", "tokenizer", "vocabulary", "max_tokens"),
    *("images", "image_size", "missing", "missing_defaults", "decimal", "thousands"),
    *("batch_size", "eval_batch_size", "num_workers"),
)
# flags that name other rows than the run's
OF_ROWS = ("data", "data.path", "data.root", "data.sources")
STATIC = {"class_path": "src.balancing.static.StaticWeights"}


def read_base(call: Call, args: list[str]) -> dict[str, Any]:
    """Returns the settings under the flags: the run's, for a task that it does not have.

    Args:
        call: The command line.
        args: The command line as words.

    Raises:
        UserError: The run's configuration is not trusted, or a target is an input of the run.
    """
    run = Run.open(call.run)
    base = read_settings(run, read_trusted(args), OWN)
    # one task is learnt from rows: there is nothing to balance, and no episode
    base["model"]["balancer"] = STATIC
    for key in ("weights", "lr_multipliers", "meta", "fairness"):
        base["model"].pop(key, None)
    base.pop("watch", None)
    base["init_from"] = {"source": call.run, "checkpoint": call.checkpoint}
    base["logs"] = "logs"
    # a run of several seeds is one start each
    base["data"] = base["data"] | {"init_args": dict(base["data"].get("init_args") or {})}
    change_data(base["data"], run, dict(split_flags(call.words)))
    return base


def change_data(data: dict[str, Any], run: Run, given: Mapping[str, str | None]) -> None:
    """Makes the settings of a run's data those of a new task on the same inputs, in place.

    Args:
        data: The section, which stays as it is where no flag changes it.
        run: The run.
        given: The flags.

    Raises:
        UserError: A target is an input of the run.
    """
    settings = data["init_args"]
    if not any(key.partition(".")[0] == "data" for key in given):
        return
    settings.pop("schema_path", None)
    targets = find_targets(given.get("data.targets"))
    tasks = settings.get("tasks")
    if targets and isinstance(tasks, dict):
        # settings of tasks that the data no longer have
        settings["tasks"] = {name: own for name, own in tasks.items() if name in targets} or None
    kind = find_table(data["class_path"])
    if kind is None or not run.schema.is_file():
        return
    if any(key in given for key in OF_ROWS):
        for key in [key for key in settings if key not in OF_COLUMNS]:
            del settings[key]

    carried = Carried.read(str(run.schema), str(run.path), kind.column_kinds)
    inputs = list(dict.fromkeys(column.source for column in carried.columns))
    both = sorted(targets & set(inputs))
    if both:
        raise UserError(
            f"--data.targets names '{both[0]}', which run {run.path} reads as an input: it would "
            "be predicted from itself"
        )
    if "inputs" in inspect.signature(kind).parameters:
        settings["inputs"] = inputs
        settings["drop"] = None


def find_table(path: str) -> type[Table] | None:
    """Returns the class of data at a path, if it is a table; None for others."""
    for kind in [Table, *subclasses(Table)]:
        if f"{kind.__module__}.{kind.__name__}" == path and issubclass(kind, Table):
            return kind
    return None


def find_targets(value: str | None) -> set[str]:
    """Returns the names of tasks and of columns that a flag names as targets."""
    content = load(value) if value else None
    if isinstance(content, Mapping):
        names = set(map(str, content))
        for own in content.values():
            names |= set(map(str, own)) if isinstance(own, list) else {str(own)}
        return names
    if isinstance(content, list):
        return set(map(str, content))
    return set() if content is None else {str(content)}


# -- what is refused -------------------------------------------------------------------------------
def find_new_task(cli: CLI, source: Source, asked: str | None) -> str:
    """Returns the task that the run does not have.

    Raises:
        UserError: There is none, or there are several and none is named.
    """
    tasks = list(cli.datamodule.tasks)
    new = [name for name in tasks if name not in source.tasks]
    way_out = (
        "name another with --data.targets; to train on for a task of the run there is python -m "
        f"src.train --init_from {source.path}"
    )
    if asked is not None and asked not in tasks:
        hint = suggest_or_list(asked, tasks)
        raise UserError(f"--task {asked}: the data have no such task; {hint}")
    if asked is not None and asked not in new:
        raise UserError(f"--task {asked}: run {source.path} has that task already: {way_out}")
    if asked is not None:
        return asked
    if not new:
        raise UserError(
            f"run {source.path} has all tasks of the data already ({', '.join(tasks)}): {way_out}"
        )
    if len(new) > 1:
        raise UserError(
            f"the data have several tasks that run {source.path} lacks: {', '.join(new)}; say "
            f"which one by --task {new[0]}"
        )
    return new[0]


def refuse_other_inputs(cli: CLI, source: Source) -> None:
    """Refuses a table whose input columns are not the run's.

    Frozen features know the run's inputs alone.

    Raises:
        UserError: A column is missing or new.
    """
    data = cli.datamodule
    if not isinstance(data, Table) or not source.inputs:
        return
    there = [str(entry.get("column")) for entry in source.inputs]
    here = [column.column for column in data.columns]
    lacking = [name for name in there if name not in here]
    further = [name for name in here if name not in there]
    if lacking or further:
        parts = [f"lack {', '.join(lacking)}"] if lacking else []
        parts += [f"have {', '.join(further)} besides"] if further else []
        raise UserError(
            f"the inputs are not those of run {source.path}: they {' and '.join(parts)}; adapt "
            "reads the run's own columns: name them in --data.inputs, or train with --init_from, "
            "which learns new ones"
        )


def find_methods(
    call: Call, task: str, fresh: Sequence[PartReport] | None, probes: bool
) -> tuple[list[str], list[str]]:
    """Returns the methods that suit the network, and a line on each that does not.

    Args:
        call: The command line.
        task: The task.
        fresh: What became of each part of the run, where the task's features depend on weights that
            are not the run's; None where they do not.
        probes: Whether the task's head is linear.

    Raises:
        UserError: None is left, or the one that was asked for is not.
    """
    why: dict[str, str] = {}
    if fresh is not None:
        parts = [r.part for r in fresh if r.status in ("fresh", "grown")]
        names = ", ".join(part for part in parts if not part.startswith("heads."))
        reason = f"{task} reads weights in {names} that the run has not trained"
        why |= dict.fromkeys(FROZEN, reason)
    elif not probes:
        why["probe"] = f"the head of {task} has hidden layers"
    left_out = [name for name in call.methods if name in why]
    methods = [name for name in call.methods if name not in why]
    lines = [f"{name} is left out: {why[name]}" for name in left_out]
    if not methods or call.method in left_out:
        name = call.method or left_out[0]
        raise UserError(f"--method {name} does not suit this network: {why[name]}")
    return methods, lines


# -- meta-learnt runs ------------------------------------------------------------------------------
def find_inner_loop(run: Run, source: Source, head: nn.Module) -> InnerLoop:
    """Returns how ANIL's inner loop runs: as in a run that was meta-trained, else from zeros.

    Args:
        run: The run.
        source: Its weights.
        head: The new task's head.
    """
    meta = run.read_config()["model"].get("meta")
    settings = (meta.get("init_args") or {}) if isinstance(meta, dict) else {}
    if "inner_lr" not in settings:
        return InnerLoop()
    steps = settings.get("test_steps") or settings.get("inner_steps") or INNER_STEPS
    path = next(iter(name_heads(source.tasks).values()))
    learnt = source.entries(f"heads.{path}.")
    shapes = {name: tensor.shape for name, tensor in head.state_dict().items()}
    fits = shapes == {name: tensor.shape for name, tensor in learnt.items()}
    return InnerLoop(learnt if fits else None, int(steps), float(settings["inner_lr"]))


def describe_methods(methods: Sequence[str], loop: InnerLoop, steps: int) -> list[str]:
    """Returns a line on what each method does."""
    lines = []
    for name in methods:
        line = f"{name}: {METHODS[name]}"
        if name in ("head", "finetune", "scratch"):
            line += f", {steps} steps"
        lines.append(describe_inner_loop(loop) if name == "anil" else line)
    return lines


def describe_inner_loop(loop: InnerLoop) -> str:
    """Says how ANIL's inner loop runs."""
    start = "zeros" if loop.head is None else "the meta-learnt head"
    rate = "1 / (2 m), m the largest second moment of the features" if loop.rate is None else ""
    rate = rate or f"{loop.rate:g}, as in the run's meta-learning"
    return f"anil: {loop.steps} steps of gradient descent from {start}, at the rate {rate}"
