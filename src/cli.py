"""The one parser that all verbs share: LightningCLI on layered configuration, with errors in one line."""

import inspect
import json
import logging
import os
import re
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import Strategy, StrategyRegistry
from torch.utils._pytree import tree_map

from src import warm
from src.checkpoint import SafeCheckpointIO, load_checkpoint
from src.config import ConfigError, classes, flags, keys, load, merge, parents_first, read, task_settings, written_out
from src.data import MultiTaskDataModule
from src.models import MultiTaskModel
from src.models.sums import sums
from src.monitoring import Watch
from src.parallel import DDP, Checks, choose_interface, main_address, meet_anew, topology
from src.parallel.choice import choose
from src.parallel.devices import Devices
from src.parallel.launcher import Launcher
from src.parallel.measure import Cost, measured_at
from src.parallel.plan import Load, Plan, load_of, planned, state_ratio, task_gradients, told, unmeasured
from src.parser import CHOICES, Parser, called, choices, fail, hint_at, know_every_class, ours, refuse_unmakeable
from src.run import Run

ROOT = Path(__file__).parents[1]
DEFAULTS = ROOT / "configs" / "train.yaml"
TRAINING = (
    *("model.optimizer", "model.scheduler", "model.lr_multipliers", "model.stage_decay", "model.checkpoint_activations"),
    *("seed_everything", "name", "logs", "watch"),
)
SECTIONS = ("data", "model", "trainer", "watch")  # of a config file, each a mapping


class CLI(LightningCLI):
    """Builds data, model and trainer from ``configs/train.yaml``, files named by --config, and flags.

    Args:
        args: The command line after the verb.
        base: Layer under --config; a verb that starts from a run folder gives the run's config.
        extra: Adds a verb's own arguments.
        parsed: Looks at the configuration before anything is built of it.
        trains: Whether the verb trains, so that the devices must hold gradients, too.
        trainer_settings: Says what the verb adds to the Trainer's settings, once data and model are built.
    """

    launcher: Any = None  # of the processes that this one has started

    def __init__(
        self,
        args: list[str],
        base: dict[str, Any] | None = None,
        extra: Callable[[LightningArgumentParser], None] | None = None,
        trainer_settings: "Callable[[CLI], dict[str, Any]] | None" = None,
        parsed: "Callable[[CLI], None] | None" = None,
        trains: bool = False,
    ) -> None:
        know_every_class()
        self.extra, self.trainer_settings, self.parsed, self.trains = extra, trainer_settings, parsed, trains
        self.why = ""  # this strategy, where it was chosen here
        self._costs: dict[int, dict[str, Cost]] = {}
        words = layered(args, base if base is not None else read(DEFAULTS))
        try:
            super().__init__(
                MultiTaskModel,
                MultiTaskDataModule,
                subclass_mode_data=True,
                run=False,
                args=words,
                save_config_callback=None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_class=Parser,
                parser_kwargs={"allow_abbrev": False},
                trainer_defaults={"use_distributed_sampler": False, "enable_model_summary": False},
            )
        except ValueError as error:  # whatever a class says of the values it was given
            cause = unwrapped(error)
            if not by_word(cause):
                raise
            raise ConfigError(one_line(cause)) from error

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and looks at the seed, of which Lightning would say neither the key nor the bounds."""
        super().parse_arguments(parser, args)
        seed = self.config["seed_everything"]
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed_everything is {seed}; it must be from 0 to {2**32 - 1}")
        parts = {key: self.config[key].as_dict() for key in ("data", "model")}
        refuse_unmakeable({"data": parts["data"]})
        refuse_unmakeable(parts["model"], "model", MultiTaskModel)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what follows from the data, and adds what is the project's own."""
        # by functions, not as data.tasks: an error inside a fork's property would come out as a property that is not there
        parser.link_arguments("data", "model.tasks", attrgetter("tasks"), apply_on="instantiate")
        parser.link_arguments("data", "model.input_shape", attrgetter("input_shape"), apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.seed")
        parser.add_argument("--name", type=str | None, default=None, help="Groups runs: logs/<name>/<date-time>.")
        parser.add_argument("--logs", type=str, default="logs", help="Where run folders go.")
        parser.add_class_arguments(Watch, "watch")
        if self.extra:
            self.extra(parser)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Builds the trainer with what the verb adds; for a plan alone there is none, since the devices need not be here."""
        settings = self.config_init["trainer"]
        if settings["use_distributed_sampler"]:
            raise ValueError("trainer.use_distributed_sampler must stay false: the data module deals global batches to the devices")
        for key, least in (("accumulate_grad_batches", 1), ("check_val_every_n_epoch", 1), ("gradient_clip_val", 0)):
            if settings[key] is not None and settings[key] < least:
                raise ValueError(f"trainer.{key} is {settings[key]}; it must be at least {least}")
        if any(isinstance(callback, StochasticWeightAveraging) for callback in self.given("callbacks")):
            raise ValueError(
                "StochasticWeightAveraging copies the model before it is built; use EMAWeightAveraging or WeightAveraging instead"
            )
        if str(settings["precision"]) in ("16-true", "bf16-true"):
            raise ValueError(
                f"trainer.precision {settings['precision']} leaves the weights three digits; use bf16-mixed or 16-mixed"
            )
        if settings["barebones"]:
            raise ValueError(
                "trainer.barebones leaves out the logger, the checkpoints and the guards that a run has; set it to false"
            )
        self.devices = Devices.of(settings)
        settings["strategy"] = self.strategy()
        if self.only_plans:
            self.acting = self.never_started()
            return None  # type: ignore[return-value]
        added = self.trainer_settings(self) if self.trainer_settings else {}
        for key in ("callbacks", "plugins"):
            added[key] = [*self.given(key), *added.get(key, [])]
        trainer = super().instantiate_trainer(**added, **kwargs)
        CLI.launcher = trainer.strategy.launcher
        if not isinstance(CLI.launcher, Launcher):
            warm.dismiss()
        self.acting = trainer.strategy
        return trainer

    @property
    def only_plans(self) -> bool:
        """Whether a plan is all that was asked for."""
        return bool(self.config.get("plan"))

    def strategy(self) -> Strategy | str:
        """How several devices work together: as asked for, or by what fits."""
        settings = self.config_init["trainer"]
        asked = settings["strategy"]
        if asked == "auto" and self.devices.count > 1:
            name, self.why = choose(self.devices, self.load()) if self.trains else (DDP.strategy_name, "")
            return next(kind for kind in ours(Strategy) if name in called(kind))()
        if isinstance(asked, str) and asked != "auto" and asked not in StrategyRegistry:
            raise ValueError(f"--strategy {asked} is unknown; {hint_at(asked, [*choices('strategy'), 'auto'])}")
        return asked

    def never_started(self) -> Any:
        """The strategy that a Trainer would have made of these settings; None for one device."""
        settings = self.config_init["trainer"]
        asked = settings["strategy"]
        if asked == "auto":
            return None
        strategy = StrategyRegistry.get(asked) if isinstance(asked, str) else asked
        return told(strategy, self.devices, str(settings["precision"]))

    def costs(self, rows: int) -> dict[str, Cost]:
        """What the parts of the model take for so many rows, measured on a few of the training rows."""
        if rows not in self._costs:
            self.model.configure_model()
            split = self.datamodule.split("train")
            batch = split[torch.arange(min(4, len(split)))]
            mixed = str(self.config_init["trainer"]["precision"]) in ("bf16-mixed", "16-mixed")
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                self._costs[rows] = measured_at(
                    self.model, lambda few: tree_map(lambda tensor: tensor[:few], (batch.inputs, batch.targets)), rows
                )
        return self._costs[rows]

    def load(self) -> Load:
        """What one device takes that holds the whole model, with its share of the batch."""
        parts = self.costs(-(-self.datamodule.batch_size // self.devices.count))
        whole = dict.fromkeys(parts, 1.0)
        return load_of(parts, whole, [whole], state_ratio(self.model._make_optimizer), task_gradients(self.model), self.doubled)

    @property
    def doubled(self) -> float:
        """How many times the bytes of fp32 this run takes."""
        return 2.0 if str(self.config_init["trainer"]["precision"]).startswith("64") else 1.0

    def plan(self) -> Plan:
        """What the run will be on its devices; of one device that is to train, without a look at the data."""
        self.model.configure_model()
        look = self.only_plans or self.devices.count > 1
        return planned(
            self.model,
            self.acting,
            self.devices,
            self.costs if look else lambda rows: unmeasured(self.model),
            self.model._make_optimizer,
            self.datamodule.batch_size,
            self.config_init["trainer"]["accumulate_grad_batches"] or 1,
            partial(sums, self.model),
            self.doubled,
            self.why,
        )

    def given(self, key: str) -> list[Any]:
        """What the user gave for a setting of the Trainer that may be one thing or several."""
        value = self.config_init["trainer"][key] or []
        return value if isinstance(value, list) else [value]

    def before_instantiate_classes(self) -> None:
        """Refuses what cannot run on these devices, before anything is built."""
        for key, value in topology(self.config["trainer"], planned=self.only_plans).items():
            self.config["trainer"][key] = value
        if self.config["trainer"]["num_nodes"] > 1 and not self.only_plans:
            # without a launcher each node's first process would take itself for the first of all, until there is a Trainer
            rank_zero_only.rank = rank_zero_only.rank or int(os.environ.get("NODE_RANK", 0))  # type: ignore[attr-defined]
            if (address := main_address()) is not None:
                choose_interface(address)
        meet_anew()
        if self.parsed:
            self.parsed(self)

    def after_instantiate_classes(self) -> None:
        """Refuses what cannot run on these devices, before any of them starts."""
        rows = self.datamodule.batch_size
        devices = getattr(self.acting, "replicas", self.devices.count)
        if rows < devices:
            raise ValueError(
                f"data.batch_size is {rows}, the rows of a step on all devices together, but {devices} devices read rows of their "
                f"own: use --batch_size {devices} or more"
            )
        self.model.check(self.config_init["trainer"]["accumulate_grad_batches"] or 1)
        if isinstance(self.acting, Checks):
            if hasattr(self.acting, "rows"):  # it plans for them
                self.acting.rows = -(-rows // devices)
            self.acting.check(self.model)

    @property
    def yaml(self) -> str:
        """The resolved configuration as a file that --config reads."""
        return self.parser.dump(self.config, skip_none=False)


def open_run(args: list[str], extra: Callable[[LightningArgumentParser], None]) -> tuple[Path, CLI]:
    """Builds data, model and trainer as a run had them, on the devices named now (one, unless told otherwise).

    Returns:
        The run's checkpoint, and what was built.

    Raises:
        ValueError: --run names no run folder, or one without a checkpoint.
    """

    def add_arguments(parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, default=None, help="Run folder.")
        parser.add_argument("--checkpoint", type=str | None, default=None, help="best or last; the best where there is one.")
        extra(parser)

    folder = value_of("run", args)
    if folder is None:
        if asks_for_help(args):
            CLI(args, extra=add_arguments)
        raise ConfigError("--run is missing: name a run folder, such as logs/digits/2026-01-31_12-00-00")
    run = Run.open(folder)
    checkpoint = run.checkpoint(value_of("checkpoint", args))
    ignored = [f"--{key}" for key, _ in flags(args) if key.startswith(TRAINING)]
    if ignored:
        remark(f"{', '.join(ignored)} has no effect here: the run is over")

    def settings(cli: CLI) -> dict[str, Any]:
        for key in ("limit_test_batches", "limit_predict_batches"):
            if cli.config_init["trainer"][key] == 0:
                raise ValueError(f"trainer.{key} is 0, which leaves nothing to do")
        return {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "plugins": [SafeCheckpointIO()]}

    return checkpoint, CLI(args, base=settings_of(run), extra=add_arguments, trainer_settings=settings)


@rank_zero_only
def remark(message: str) -> None:
    """Tells the person at the terminal something besides the results, once."""
    print(f"note: {message}", file=sys.stderr, flush=True)


def settings_of(run: Run) -> dict[str, Any]:
    """A run's configuration as a layer for other verbs, which have their own devices and limits."""
    base = run.read_config()
    base["trainer"] = read(DEFAULTS)["trainer"] | {"precision": base["trainer"].get("precision")}
    for key in ("resume", "plan"):
        base.pop(key, None)
    if run.schema.is_file():
        base["data"]["init_args"]["schema_path"] = str(run.schema)
    return base


def load_run(path: Path | str, checkpoint: Literal["best", "last"] | None = None) -> tuple[MultiTaskModel, MultiTaskDataModule]:
    """Opens a run from Python: its model with the weights of a checkpoint, in evaluation mode on the CPU, and its data.

    Args:
        path: The run folder.
        checkpoint: Which one; the best where there is one, unless told otherwise.

    Raises:
        ValueError: There is no run, or none of its checkpoints is whole.
    """
    run = Run.open(path)
    weights = load_checkpoint(run.checkpoint(checkpoint))
    quiet()
    cli = CLI(["--accelerator", "cpu", "--trainer.logger", "false", "--trainer.enable_checkpointing", "false"], settings_of(run))
    cli.model.on_load_checkpoint(weights)
    cli.model.load_state_dict(weights["state_dict"])
    return cli.model.eval(), cli.datamodule


def layered(args: list[str], base: dict[str, Any]) -> list[str]:
    """Merges the base and all --config files into one, and puts the flags behind it, parents before their settings."""
    merged, rest = base, []
    Parser.origins = {}
    for key, value in flags(args):
        names_a_file = key in SECTIONS and str(value).endswith((".yaml", ".yml"))
        if key in SECTIONS and key != "data" and not names_a_file:
            hint = f"; did you mean --model.encoder {value}?" if key == "model" else ""
            raise ConfigError(f"--{key} {value or ''} names no .yaml file{hint}")
        if key == "trainer.strategy" and value is None:
            raise ConfigError(f"--strategy needs a name: {', '.join(choices('strategy'))} or auto")
        if key == "trainer.strategy.help":
            value = by_path(value, "strategy")
            if value is None or "." not in value:
                raise ConfigError(f"--strategy.help needs the name of a strategy: {', '.join(choices('strategy'))}")
        if not names_a_file and key != "config":
            rest.append((key, by_path(value, key.rpartition(".")[2])))
            continue
        if value is None:
            raise ConfigError("--config needs a file")
        layer = written_out({key: read(Path(value))} if names_a_file else read(Path(value)), value)
        for section in SECTIONS:
            if not isinstance(layer.get(section, {}), (dict, str) if section == "data" else dict):
                raise ConfigError(f"config {value}: {section} is '{layer[section]}', where a mapping of keys to values is expected")
        Parser.origins |= dict.fromkeys(keys(layer), value)
        merged = merge(merged, layer)
    rest = parents_first(rest)
    for key, value in [pair for pair in rest if f"{pair[0]}.".startswith("trainer.strategy.") and not pair[0].endswith(".help")]:
        rest.remove((key, value))  # into the files' layer: of a word and settings for a class the parser would take the word alone
        merged = merge(merged, written_out({key: load(value) if value is not None else None}, "of flags"))
    merged = by_path(merged)
    strategy = merged["trainer"].get("strategy")
    if isinstance(strategy, str) and "." in strategy:
        merged["trainer"]["strategy"] = {"class_path": strategy}
    elif isinstance(strategy, dict) and set(strategy) == {"class_path"} and "." not in strategy["class_path"]:
        merged["trainer"]["strategy"] = strategy["class_path"]  # auto, or one of Lightning's own, over a class of a file
    elif isinstance(strategy, dict) and strategy.get("class_path", "auto") == "auto":
        setting = next(iter(strategy.get("init_args", strategy)))
        names = [called(kind)[0] for kind in ours(Strategy) if setting in inspect.signature(kind).parameters]
        hint = f"is a setting of {', '.join(names)}: add --strategy {names[0]}" if names else "is a setting of no strategy"
        raise ConfigError(f"strategy.{setting} {hint}")
    Parser.origins |= dict.fromkeys((key for key, _ in rest), "")
    Parser.stated = frozenset(keys(base))
    Parser.chosen = dict(classes(merged)) | {str(value).rpartition(".")[2]: key for key, value in rest}
    about_tasks = [pair for pair in rest if pair[0].startswith("data.tasks.")]
    if about_tasks:
        rest = [pair for pair in rest if pair not in about_tasks]
        rest.append(("data.tasks", json.dumps(task_settings(about_tasks, merged))))
    words = [f"--{key}" if value is None else f"--{key}={value}" for key, value in rest]
    return ["--config", json.dumps(merged, default=str), *words]  # str: YAML has dates, JSON has none


def by_path(tree: Any, key: str = "") -> Any:
    """Nested settings in which our classes go by their path, so that a fork's class of the same name makes none ambiguous."""
    if isinstance(tree, dict):
        # each of the sources is a choice of data
        below: dict[str, str] = {"class_path": key} if key != "sources" else dict.fromkeys(tree, "data")
        return {name: by_path(value, below.get(str(name), str(name))) for name, value in tree.items()}
    if key not in CHOICES or not isinstance(tree, str) or "." in tree:
        return tree
    found = [kind for kind in ours(CHOICES[key]) if tree in called(kind)]
    return f"{found[0].__module__}.{found[0].__name__}" if found else tree


def value_of(key: str, args: list[str]) -> str | None:
    """The value of a flag, read before the parser runs."""
    return next((value for name, value in flags(args) if name == key), None)


def output_file(path: str, endings: Sequence[str]) -> Path:
    """Where a verb's results go, looked at before any work is done.

    Raises:
        ValueError: The name ends in something else, there is no such folder, or a folder has this name.
    """
    out = Path(path)
    if out.suffix not in endings:
        raise ValueError(f"--out {path}: unknown kind of file; the name must end in {' or '.join(endings)}")
    if not out.parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {out.parent}")
    if out.is_dir():
        raise ValueError(f"--out {path}: this is a folder; name a file")
    return out


def asks_for_help(args: list[str]) -> bool:
    """Whether --help is on the command line."""
    return any(name == "help" for name, _ in flags(args))


def quiet() -> None:
    """Silences what Lightning says of itself, so that what a run says of the user's work can be seen."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a table that was asked for
    for message in (
        ".*LeafSpec.*",  # Lightning's own use of torch
        ".*args parameter is intended.*",  # the command line is handed on after its layers were merged
        ".*smaller than the logging interval.*",  # the end of an epoch logs too
        ".*callbacks used to create the checkpoint need to be provided.*",  # evaluation keeps no checkpoints
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
    ):
        warnings.filterwarnings("ignore", message=message)


def thread_ended(args: threading.ExceptHookArgs) -> None:
    """Keeps quiet about TensorBoard's writer: the run itself meets the same full disk, and says so in its one line."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


def by_word(error: BaseException, building: bool = True) -> bool:
    """Whether an error was raised by word: then it is what a user got wrong, and its message says so.

    One that comes out of an expression is a bug and keeps its traceback. While classes are built any library may refuse what it is
    given; later, what numpy or the standard library refuses is a bug, and what the Trainer refuses is a setting.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not str(frames[-1].line).startswith("raise "):
        return False
    path = Path(frames[-1].filename)
    in_a_library = "site-packages" in path.parts or path.is_relative_to(sysconfig.get_paths()["stdlib"])
    kinds: tuple[type[BaseException], ...] = (ValueError, ModuleNotFoundError, MisconfigurationException)
    if not building and in_a_library:
        return "lightning" in path.parts and isinstance(error, (*kinds, RuntimeError))
    return isinstance(error, kinds)


def unwrapped(error: BaseException) -> BaseException:
    """The error that jsonargparse has wrapped into its own."""
    inner: BaseException | None = error
    while inner is not None:
        frames = traceback.extract_tb(inner.__traceback__)
        if frames and "jsonargparse" not in Path(frames[-1].filename).parts:
            return inner
        inner = inner.__cause__ or inner.__context__
    return error


def main(verb: Callable[[list[str]], object]) -> None:
    """Runs a verb on the command line, and leaves no process behind that it has started."""
    quiet()
    threading.excepthook = thread_ended
    try:
        answer(verb)
    except BaseException:
        end_children()
        raise


def end_children(seconds: float = 5.0) -> None:
    """Kills what Lightning has started for other ranks and does not end by itself soon: a rank that hangs hears of nothing."""
    until, started = time.monotonic() + seconds, getattr(CLI.launcher, "procs", [])
    children = list(started)
    started.clear()  # Lightning looks after them, too, and kills this process as soon as one of them has ended
    for child in children:
        try:
            child.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answer(verb: Callable[[list[str]], object]) -> None:
    """Runs a verb; what a user got wrong is one line and exit code 2, anything else keeps its traceback."""
    try:
        verb(sys.argv[1:])
    except (ValueError, MisconfigurationException) as error:
        if not by_word(error, building=False):
            raise
        fail(one_line(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else one_line(error))
    except RuntimeError as error:
        if "loading state_dict" in str(error):
            fail(f"the checkpoint is of another model than the config describes: {str(error).splitlines()[1].strip()}")
        if by_word(error, building=False):
            fail(one_line(error))
        if not lost_another(error):
            raise
        # without the line of gloo's source
        reason = re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0])
        fail(f"another process of this run has ended or does not answer, and this one ends with it: {reason}", code=1)


def lost_another(error: RuntimeError) -> bool:
    """Whether gloo, or the store through which processes meet, has waited for another process in vain."""
    in_store = isinstance(error, dist.DistStoreError | dist.DistNetworkError)
    words = r"onnection .*(closed|reset)|peer|Timed out waiting \d+ms" + ("|imed out|timeout" if in_store else "")
    return re.search(words, str(error)) is not None


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
