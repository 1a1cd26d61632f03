"""Merges runs: the work of ``python -m src.merge``, from the runs to a run folder."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import SingleDeviceStrategy
from rich.console import Console

from src.cli.app import CLI
from src.cli.checks import refuse_place
from src.cli.ensemble_run import recorded
from src.cli.flags import split_flags
from src.cli.help import asks_for_help
from src.cli.merge_call import Call, list_flags, read_call
from src.cli.merge_data import join_configs, join_schemas, refuse_unjoined
from src.cli.merge_methods import METHODS, Merged, Merging, find_method
from src.cli.merge_network import Network
from src.cli.merge_results import Beside, collect_references, open_joint, tabulate
from src.cli.merge_runs import MergedRun, align_runs, open_runs
from src.cli.merge_start import refuse_other_start, require_start
from src.cli.passes import evaluate_checkpoint
from src.cli.runs import TRUST, add_trainer_settings, drop_flags, read_settings, read_trusted
from src.errors import UserError
from src.files.typed import to_json
from src.files.yaml12 import dump
from src.launch.job import name_job
from src.models.task_notes import describe_choices
from src.monitoring import say
from src.parallel import DDP
from src.run import Run

NAME = "merge.json"
GROUP = "merged"  # runs are grouped below this name, unless --name says another


def merge_runs(args: list[str]) -> None:
    """Merges the weights of runs, and leaves a run folder with the heads of all.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or the runs cannot be merged.
    """
    if any(asks_for_help(key) for key, _ in split_flags(args)):
        CLI(args, own=(*list_flags(list(METHODS)), TRUST))
    call = read_call(args, lambda name: find_method(name).flags)
    method = find_method(call.method)
    refuse_place(call.name)
    if call.align and method.needs_start:
        raise UserError(
            f"--method {call.method} reads the weights that all runs started from, which runs that "
            "need --align do not have: use average, weights, fisher, regmean or soup"
        )
    runs = open_runs(call.runs, call.words)
    refuse_unjoined([run.member for run in runs])
    if call.align or method.runs_networks:
        refuse_adapters(call, runs)
    paths = [run.path for run in runs]
    origins = [run.origin for run in runs]
    lines = []
    if call.align:
        lines = align_runs(runs)
    else:
        refuse_other_start(paths, origins)
    if method.needs_start:
        require_start(paths, origins, call.method)

    cli = open_merged(call, runs)
    network = Network(cli, runs, call.heads)
    joint = None if call.joint is None else open_joint(call.joint, runs[0], cli, call.words)
    write_run(call, network, method.merge, joint, lines)


def refuse_adapters(call: Call, runs: Sequence[MergedRun]) -> None:
    """Refuses runs with low-rank adapters where layers are looked at as they stand.

    Raises:
        UserError: One of them has some.
    """
    for run in runs:
        if run.has_adapters:
            what = "--align" if call.align else f"--method {call.method}"
            raise UserError(
                f"{what} looks at plain layers, but {run.path} was trained with finetune.lora: use "
                "another method, such as average or ties"
            )


def open_merged(call: Call, runs: Sequence[MergedRun]) -> CLI:
    """Builds data, model and trainer with the tasks of all runs.

    Args:
        call: The command line.
        runs: The runs.

    Raises:
        UserError: Their tasks cannot be in one network.
    """
    members = [run.member for run in runs]
    words = drop_flags(call.words, "checkpoint", "trust")
    # as a run folder, so that it is opened by the lines that open any other
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        run.config.write_text(dump(join_configs(members)))
        schema = join_schemas(members)
        if schema is not None:
            run.schema.write_bytes(to_json(schema))
        base = read_settings(run, read_trusted(call.words))
        cli = CLI(words, base=base, trainer_settings=add_trainer_settings)
    cli.datamodule.check_files(all_there=False)
    if type(cli.acting) not in (SingleDeviceStrategy, DDP):
        raise UserError(
            f"--strategy {type(cli.acting).__name__}: merge takes and gives whole networks, the "
            "same on each device: use ddp, or leave it out"
        )
    return cli


def write_run(
    call: Call,
    network: Network,
    merge: Callable[[Merging], Merged],
    joint: Beside | None,
    lines: Sequence[str],
) -> None:
    """Merges, measures, and leaves a run folder.

    Args:
        call: The command line.
        network: The merged network.
        merge: The method.
        joint: A run on all tasks, shown beside; None for none.
        lines: What is to be said first.
    """
    cli = network.cli
    runs = network.runs
    data = cli.datamodule
    schema = data.schema()
    fingerprint = data.fingerprint()
    if fingerprint is not None and schema is None:
        # a run without schema.json has not lost it
        fingerprint["schema"] = False

    say("\n".join([*network.describe(call.method), *lines]))
    # a method may refuse what the runs are: before there is a folder
    merged = merge(Merging(call, runs, network.model, data, network.score))
    if merged.line:
        say(merged.line)
    network.load(merged.state, merged.weights)

    run = Run.create(call.logs, call.name or GROUP)
    config = dump(join_configs([one.member for one in runs]))
    seed = runs[0].cli.config["seed_everything"]
    run.begin(config, seed, resumed=False, job=name_job(), data=fingerprint)
    with recorded(run):
        if schema is not None:
            run.write(run.schema, schema)
        say(f"run folder {run.path}")
        results: dict[str, Any] = {"validation": network.validate()}
        cli.trainer.save_checkpoint(run.best)
        keep_record(run, call, runs, merged)
        if call.tests:
            results["test"] = evaluate_checkpoint(cli, str(run.best))
        references = collect_references(network, joint, call.tests)
        run.write(run.metrics, {**results, "references": references})
        if cli.trainer.is_global_zero:
            chosen = describe_choices(cli.model.tasks, cli.model.chosen_tasks)
            if chosen:
                say("\n".join(chosen))
            table = tabulate(cli.model.tasks, results, references)
            Console().print(table, crop=False)


@rank_zero_only
def keep_record(run: Run, call: Call, runs: Sequence[MergedRun], merged: Merged) -> None:
    """Writes down the runs and how they were merged, and the checkpoint a second time.

    No training has ended here: the last weights are the best ones.
    """
    shutil.copy(run.best, run.last)
    content = {
        "method": call.method,
        "runs": [os.path.relpath(one.path, run.path) for one in runs],
        "aligned": call.align,
        **merged.record,
    }
    run.write(run.path / NAME, content)
