"""Opening a run folder: what each command but a new training starts from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from src.checkpoint import SafeCheckpointIO, choose_weights, group_tasks, load_checkpoint
from src.cli.app import CLI, DEFAULTS, OF_A_CALL
from src.cli.calibrated import put_calibration
from src.cli.classes import import_every_class
from src.cli.flags import Flag, Flags, refuse_words, spell_flag, split_flags
from src.cli.help import asks_for_help
from src.cli.layers import ConfigError, read
from src.cli.terminal import remark
from src.cli.trust import Trust
from src.data import MultiTaskDataModule
from src.errors import UserError, suggest_or_list
from src.models import MultiTaskModel
from src.run import Run

# settings of the training, which a command that opens a run cannot change
TRAINING = (
    "model.optimizer",
    "model.scheduler",
    "model.lr_multipliers",
    "model.stage_decay",
    "model.checkpoint_activations",
    "seed_everything",
    "name",
    "logs",
    "watch",
    "budget",
    "init_from",
    "finetune",
)
# settings of the data that say where a run's rows are now, or how a file of new rows is laid out;
# all else is as in the run
OF_FILES = {
    *("path", "val_path", "test_path", "root", "sources", "source", "help"),
    *("id", "batch_size", "eval_batch_size", "num_workers", "on_error", "cache_gb", "download"),
    *("delimiter", "format", "names", "missing", "missing_defaults"),
}
TRUST = Flag(
    "trust",
    str | None,
    None,
    "Packages whose classes the run's config may name, such as mine,yours.",
)
OF_A_RUN = (
    Flag("run", str, None, "Run folder; several with commas between them are averaged."),
    Flag("checkpoint", str | None, None, "best or last; the best where there is one."),
    Flag(
        "allow_missing",
        bool,
        False,
        "Take an input column that new rows lack for missing in each row.",
    ),
    Flag("uncalibrated", bool, False, "Outputs as the network gives them, of a calibrated run."),
    TRUST,
)


def open_run(
    args: list[str], own: Sequence[Flag], says: bool = True, reads_files: bool = True
) -> tuple[Path, CLI]:
    """Builds data, model and trainer as a run had them, on the devices named now.

    There is one device, unless told otherwise. A data file that a flag names is new rows, unless
    its content is that of the run's. Where the run is calibrated, the model's outputs are.

    Args:
        args: The command line after the command.
        own: The flags that the command alone knows, besides those of each that opens a run.
        says: Whether to say which flags have no effect.
        reads_files: Whether the command reads the run's data; otherwise they may be gone.

    Returns:
        The run's checkpoint, and what was built.

    Raises:
        UserError: --run names no run folder, or one without a checkpoint.
    """
    own = (*OF_A_RUN, *own)
    folder = find_value("run", args)
    if folder is None:
        if any(asks_for_help(key) for key, _ in split_flags(args)):
            CLI(args, own=own)
        raise ConfigError(
            "--run is missing: name a run folder, such as logs/digits/2026-01-31_12-00-00"
        )
    run = Run.open(folder)
    checkpoint = run.checkpoint(find_value("checkpoint", args))
    if (holder := run.lock.holder()) is not None:
        remark(f"run {run.path} is still being trained by {holder}: its checkpoints may change")

    given = [key for key, _ in split_flags(args)]
    ignored = [f"--{key}" for key in given if key.startswith(TRAINING)]
    if run.schema.is_file():
        of_data = [key for key in given if key.startswith("data.")]
        ignored += [f"--{key}" for key in of_data if key.split(".")[1] not in OF_FILES]
    if ignored and says:
        remark(f"{', '.join(ignored)} has no effect here: the run has settled that")

    # what the score is, and which weights are whose, the checkpoint depends on
    args = drop_flags(args, "watch", "finetune")
    base = read_settings(run, read_trusted(args), own)
    cli = CLI(args, base=base, own=own, trainer_settings=add_trainer_settings)
    cli.datamodule.new_rows = any(key in ("data.path", "data.root") for key in given)
    cli.datamodule.allow_missing = cli.config["allow_missing"]
    if reads_files:
        cli.datamodule.check_files(all_there=False)
    if not cli.config["uncalibrated"]:
        put_calibration(run, checkpoint, cli.model)
    return checkpoint, cli


def add_trainer_settings(cli: CLI) -> dict[str, Any]:
    """Returns the Trainer's settings where nothing is trained.

    Raises:
        UserError: There is nothing to do.
    """
    for key in ("limit_test_batches", "limit_predict_batches"):
        if cli.config_init["trainer"][key] == 0:
            raise UserError(f"trainer.{key} is 0, which leaves nothing to do")
    return {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "plugins": [SafeCheckpointIO()],
    }


def read_settings(
    run: Run,
    packages: Sequence[str] | None = (),
    own: Sequence[Flag] = (),
    training: Flags | None = None,
) -> dict[str, Any]:
    """Returns a run's configuration as a layer under the flags, once it is sure to run no code.

    Args:
        run: The run folder, which may come from a stranger.
        packages: Packages whose classes it may name, besides ours; None where this job has begun
            the run itself, by the same command.
        own: The flags that the command alone knows, which the folder must not set.
        training: The flags of a run that goes on; other commands have their own devices and limits.

    Raises:
        ConfigError: The configuration names what it must not.
    """
    import_every_class()
    base = run.read_config()
    if training is None:
        precision = base["trainer"].get("precision")
        base["trainer"] = read(DEFAULTS)["trainer"] | {"precision": precision}
    else:
        for key, _ in training:
            if key.startswith("trainer."):
                discard(key, base)
        refuse_links(run)

    of_a_call = {*OF_A_CALL}
    if training is None:
        of_a_call |= {"no_test", "reference", *(flag.name for flag in own)}
    for key in of_a_call:
        base.pop(key, None)
    if packages is not None:
        Trust(run.path, packages).check(base)
    if run.schema.is_file():
        # rows are read, and dealt out, as they were when the run began
        base["data"].setdefault("init_args", {})["schema_path"] = str(run.schema)
    return base


def refuse_links(run: Run) -> None:
    """Refuses a folder whose checkpoints would be written elsewhere.

    Raises:
        ConfigError: A link leads out of it.
    """
    for path in (run.last.parent, run.last, run.best):
        if not path.resolve().is_relative_to(run.path.resolve()):
            raise ConfigError(
                f"{path} is a link out of the run folder: put what it leads to in its place"
            )


def discard(key: str, tree: Any) -> None:
    """Removes a dotted key from nested settings, where it is there."""
    name, _, rest = key.partition(".")
    if isinstance(tree, dict) and name not in tree and "init_args" in tree:
        tree = tree["init_args"]
    if not isinstance(tree, dict):
        return
    if rest:
        discard(rest, tree.get(name))
    else:
        tree.pop(name, None)


def read_trusted(args: list[str]) -> list[str]:
    """Returns the packages that the command line names as known, in this call alone.

    Raises:
        ConfigError: One of them is no name of a package.
    """
    values = [value or "" for key, value in split_flags(args) if key == "trust"]
    packages = [name.strip() for value in values for name in value.split(",")]
    for name in packages:
        if not name.isidentifier():
            raise ConfigError(f"--trust {name}: name a package, such as mypackage")
    return packages


def find_value(key: str, args: list[str]) -> str | None:
    """Returns the value of a flag, read before the parser runs.

    Raises:
        ConfigError: Several words stand behind it.
    """
    value = next((value for name, value in split_flags(args) if name == key), None)
    refuse_words(value, (str,))
    return value


def drop_flags(args: list[str], *sections: str) -> list[str]:
    """Returns a command line without the flags of some sections."""
    kept = []
    for key, value in split_flags(args):
        if key.partition(".")[0] not in sections or asks_for_help(key):
            kept += spell_flag(key, value)
    return kept


def load_run(
    path: Path | str,
    checkpoint: Literal["best", "last"] | None = None,
    trust: Sequence[str] = (),
    task: str | None = None,
    calibrated: bool = True,
) -> tuple[MultiTaskModel, MultiTaskDataModule]:
    """Opens a run from Python.

    The model has the weights of a checkpoint, and is in evaluation mode on the CPU.

    Args:
        path: The run folder.
        checkpoint: Which one; the best where there is one, unless told otherwise.
        trust: Packages whose classes the run's configuration may name, besides ours.
        task: The task whose weights the model gets, in a run with ``watch.patience_by_task``, where
            each task has the network of its own best epoch.
        calibrated: Whether outputs are calibrated, where the run is.

    Raises:
        UserError: There is no run, none of its checkpoints is whole, it names classes that are not
            trusted, or several epochs count and ``task`` names none of them.
    """
    run = Run.open(path)
    file = run.checkpoint(checkpoint)
    weights = load_checkpoint(file)
    words = "--accelerator cpu --trainer.logger false --trainer.enable_checkpointing false"
    cli = CLI(words.split(), read_settings(run, trust))
    if calibrated:
        put_calibration(run, file, cli.model)
    cli.model.on_load_checkpoint(weights)
    step = find_step(weights, task)
    cli.model.load_state_dict(
        weights["state_dict"] if step is None else choose_weights(weights, step)
    )
    return cli.model.eval(), cli.datamodule


def find_step(checkpoint: Mapping[str, Any], task: str | None) -> int | None:
    """Returns the optimizer step of a task's weights; None where all tasks have the same weights.

    Raises:
        UserError: Several sets of weights count and no task is named, or there is no such task.
    """
    groups = group_tasks(checkpoint)
    if task is not None and task not in checkpoint["tasks"]:
        hint = suggest_or_list(task, checkpoint["tasks"])
        raise UserError(f"task '{task}' is none of the run's; {hint}")
    if len(groups) < 2:
        return None
    for step, names in groups.items():
        if task in names:
            return step
    raise UserError(
        "each task has the network of its own best epoch: name one, as in "
        f"load_run(..., task='{next(iter(checkpoint['tasks']))}')"
    )
