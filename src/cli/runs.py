"""Opening a run folder: what each verb but a new training starts from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.cli import LightningArgumentParser

from src.checkpoint import SafeCheckpointIO, load_checkpoint
from src.cli.app import CLI, DEFAULTS, OF_A_CALL
from src.cli.config import ConfigError, flags, read
from src.cli.entrypoint import quiet, remark
from src.cli.help import own_flags
from src.cli.layers import Flags
from src.cli.messages import know_every_class
from src.cli.trust import Trust
from src.data import MultiTaskDataModule
from src.errors import UserError
from src.models import MultiTaskModel
from src.run.run import Run

TRAINING = (
    *(
        "model.optimizer",
        "model.scheduler",
        "model.lr_multipliers",
        "model.stage_decay",
        "model.checkpoint_activations",
    ),
    *("seed_everything", "name", "logs", "watch", "budget"),
)
# flags of the data that say where a run's rows lie now, or how a file of new rows is laid out; all
# else is as in the run
OF_FILES = (
    *(
        "path",
        "val_path",
        "test_path",
        "root",
        "id",
        "batch_size",
        "eval_batch_size",
        "num_workers",
    ),
    *("delimiter", "format", "names", "missing", "missing_defaults", "sources", "help"),
)


def open_run(args: list[str], extra: Callable[[LightningArgumentParser], None]) -> tuple[Path, CLI]:
    """Builds data, model and trainer as a run had them, on the devices named now (one, unless told otherwise).

    A data file that a flag names is new rows, unless its content is that of the run's.

    Returns:
        The run's checkpoint, and what was built.

    Raises:
        UserError: --run names no run folder, or one without a checkpoint.
    """

    def add_arguments(parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, default=None, help="Run folder.")
        parser.add_argument(
            "--checkpoint",
            type=str | None,
            default=None,
            help="best or last; the best where there is one.",
        )
        parser.add_argument(
            "--allow_missing",
            type=bool,
            default=False,
            help="Take an input column that new rows lack for missing in each row.",
        )
        add_trust(parser)
        extra(parser)

    folder = value_of("run", args)
    if folder is None:
        if asks_for_help(args):
            CLI(args, extra=add_arguments)
        raise ConfigError(
            "--run is missing: name a run folder, such as logs/digits/2026-01-31_12-00-00"
        )
    run = Run.open(folder)
    checkpoint = run.checkpoint(value_of("checkpoint", args))
    if (holder := run.lock.holder()) is not None:
        remark(f"run {run.path} is still being trained by {holder}: its checkpoints may change")
    given = [key for key, _ in flags(args)]
    ignored = [f"--{key}" for key in given if key.startswith(TRAINING)]
    if run.schema.is_file():
        ignored += [
            f"--{key}"
            for key in given
            if key.startswith("data.") and key.split(".")[1] not in OF_FILES
        ]
    if ignored:
        remark(f"{', '.join(ignored)} has no effect here: the run has settled that")

    def settings(cli: CLI) -> dict[str, Any]:
        for key in ("limit_test_batches", "limit_predict_batches"):
            if cli.config_init["trainer"][key] == 0:
                raise UserError(f"trainer.{key} is 0, which leaves nothing to do")
        return {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "plugins": [SafeCheckpointIO()],
        }

    cli = CLI(
        args,
        base=settings_of(run, trusted(args), add_arguments),
        extra=add_arguments,
        trainer_settings=settings,
    )
    cli.datamodule.new_rows = any(key in ("data.path", "data.root") for key in given)
    cli.datamodule.allow_missing = cli.config["allow_missing"]
    cli.datamodule.check_files(all_there=False)
    return checkpoint, cli


def settings_of(
    run: Run,
    packages: Sequence[str] | None = (),
    extra: Callable[[Any], None] | None = None,
    training: Flags | None = None,
) -> dict[str, Any]:
    """A run's configuration as a layer under the flags, once it is known that it runs no code.

    Args:
        run: The run folder, which may come from a stranger.
        packages: Packages whose classes it may name, besides ours; None where this job has begun
            the run itself, by the same command.
        extra: Adds the verb's own arguments, which the folder must not set.
        training: The flags of a run that goes on; other verbs have their own devices and limits.

    Raises:
        ConfigError: The configuration names what it must not.
    """
    know_every_class()
    base = run.read_config()
    if training is None:
        base["trainer"] = read(DEFAULTS)["trainer"] | {
            "precision": base["trainer"].get("precision")
        }
    else:
        for key, _ in training:
            if key.startswith("trainer."):
                discard(key, base)
        refuse_links(run)
    for key in OF_A_CALL if training is not None else (*OF_A_CALL, "no_test", *own_flags(extra)):
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


def add_trust(parser: LightningArgumentParser) -> None:
    """Adds the flag of the verbs that open a run folder."""
    parser.add_argument(
        "--trust",
        type=str | None,
        default=None,
        help="Packages whose classes the run's config may name, such as mine,yours.",
    )


def trusted(args: list[str]) -> list[str]:
    """Returns the packages that the command line names as known, in this call alone.

    Raises:
        ConfigError: One of them is no name of a package.
    """
    values = [value or "" for key, value in flags(args) if key == "trust"]
    packages = [name.strip() for value in values for name in value.split(",")]
    for name in packages:
        if not name.isidentifier():
            raise ConfigError(f"--trust {name}: name a package, such as mypackage")
    return packages


def load_run(
    path: Path | str, checkpoint: Literal["best", "last"] | None = None, trust: Sequence[str] = ()
) -> tuple[MultiTaskModel, MultiTaskDataModule]:
    """Opens a run from Python: its model with the weights of a checkpoint, in evaluation mode on the CPU, and its data.

    Args:
        path: The run folder.
        checkpoint: Which one; the best where there is one, unless told otherwise.
        trust: Packages whose classes the run's configuration may name, besides ours.

    Raises:
        UserError: There is no run, none of its checkpoints is whole, or it names classes that are
            not trusted.
    """
    run = Run.open(path)
    weights = load_checkpoint(run.checkpoint(checkpoint))
    quiet()
    words = [
        "--accelerator",
        "cpu",
        "--trainer.logger",
        "false",
        "--trainer.enable_checkpointing",
        "false",
    ]
    cli = CLI(words, settings_of(run, trust))
    cli.model.on_load_checkpoint(weights)
    cli.model.load_state_dict(weights["state_dict"])
    return cli.model.eval(), cli.datamodule


def value_of(key: str, args: list[str]) -> str | None:
    """The value of a flag, read before the parser runs."""
    return next((value for name, value in flags(args) if name == key), None)


def output_file(path: str, endings: Sequence[str], cli: CLI) -> Path:
    """Where a verb's results go, looked at before any work is done.

    Raises:
        UserError: The name ends in something else, there is no such folder, a folder has this
            name, a file of the run or of its data does, or another one that --overwrite does not
            give up.
    """
    out = Path(path)
    if out.suffix not in endings:
        raise UserError(
            f"--out {path}: unknown kind of file; the name must end in {' or '.join(endings)}"
        )
    if not out.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out {path}: this is a folder; name a file")
    if out.exists():
        run = Run(cli.config["run"])
        kept = [
            run.config,
            run.record,
            run.schema,
            run.metrics,
            run.best,
            run.last,
            *map(Path, cli.datamodule.files()),
        ]
        if any(file.exists() and out.samefile(file) for file in kept):
            raise UserError(
                f"--out {path}: this file belongs to the run or to its data; choose another name"
            )
        if not cli.config["overwrite"]:
            raise UserError(
                f"--out {path}: there is such a file; choose another name, or add --overwrite"
            )
    return out


def asks_for_help(args: list[str]) -> bool:
    """Whether help is asked for on the command line."""
    return any(name == "help" or name.endswith(".help") for name, _ in flags(args))
