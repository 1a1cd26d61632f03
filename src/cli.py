"""The one parser that all verbs share: LightningCLI on layered configuration, with errors in one line."""

import difflib
import importlib
import json
import logging
import os
import pkgutil
import re
import sys
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from inspect import isabstract
from pathlib import Path
from typing import Any, NoReturn, cast

import jsonargparse._typehints as typehints
import lightning as L
import lightning.pytorch.cli as lightning_cli
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import src.balancing
import src.data
import src.models
import src.tasks
from src.balancing import Balancer
from src.config import ALIASES, ConfigError, classes, flags, keys, merge, parents_first, read, task_settings
from src.data import MultiTaskDataModule
from src.models import MultiTaskModel
from src.models.encoders import Encoder
from src.models.sharing import Sharing
from src.monitoring import Watch
from src.parallel import topology
from src.run import Run, SafeCheckpointIO
from src.tasks import Task

ROOT = Path(__file__).parents[1]
DEFAULTS = ROOT / "configs" / "train.yaml"
SECTIONS = ("data", "model", "trainer", "watch")  # of a config file, each a mapping


def forget_replaced_class(_: Any, previous: Any, value: Any) -> None:
    """Another class starts from its own defaults.

    jsonargparse keeps those settings of the replaced class that the new one happens to know (AdamW's weight decay in SGD).
    """
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        for key in list(previous["init_args"].keys()):
            previous["init_args"].pop(key)


typehints.discard_init_args_on_class_path_change = forget_replaced_class
# Lightning's ReduceLROnPlateau wants to be told what to watch; what no one can choose makes torch's ambiguous no longer
cast(Any, lightning_cli.ReduceLROnPlateau).__abstractmethods__ = frozenset({"monitor"})


def know_every_class() -> None:
    """Imports each file of the packages that classes are chosen from, so that a new file's classes are found by short name."""
    for package in (src.data, src.models, src.balancing, src.tasks):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


class Parser(LightningArgumentParser):
    """The parser: mistakes answered in one line, help that begins with what is ours.

    jsonargparse makes one more of these for every class that is chosen, which knows that class's settings alone.
    """

    origins: dict[str, str] = {}  # which file a key came from, "" for a flag; filled before parsing
    chosen: dict[str, str] = {}  # the key that each class was chosen by
    owner: Any = None  # whose settings this parser reads; None for the parser of the whole command line

    def add_class_arguments(self, theclass: Any, nested_key: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Remembers the class whose settings stand at the top."""
        if nested_key is None:
            self.owner = theclass
        return super().add_class_arguments(theclass, nested_key, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one line and ends with exit code 2."""
        fail(self.in_one_line(str(ex or message)))

    def in_one_line(self, message: str) -> str:
        """Shortens jsonargparse's message to the key as typed, what is wrong, what would be right, and the file it stands in."""
        text = " ".join(message.split())
        if found := re.search(r"nrecognized arguments: --([\w.\-]+)|ption '([\w.\-]+)' is not accepted", text):
            return self.unknown(found[1] or found[2])
        if found := re.search(r"Group '(\w+)' does not accept option '([\w.\-]+)'", text):
            return self.unknown(f"{found[1]}.{found[2]}")
        if found := re.search(r"arguments are required: ([\w.\-]+)", text):
            return f"{self.typed(found[1])} is missing; it has no default"
        if found := re.search(r"argument --([\w.\-]+): expected one argument", text):
            return f"--{found[1]} needs a value"
        if found := re.search(r"Parser key \"([\w.\-]+)\"[^:]*: (.*)", text):
            return f"{self.typed(found[1])}: {self.wrong(found[1], found[2])}{self.origin(found[1])}"
        return text

    def wrong(self, key: str, text: str) -> str:
        """What is wrong with a value; where it may have several types, what would be right by each."""
        text = re.sub(r"- Expected a path but .*? either not accessible or invalid - ", "", text)
        union = re.search(r"Errors: - (.*) Given value type: .* Given value: (.*)", text)
        given = union[2] if union else text.rpartition("Got value: ")[2]
        lines = union[1].split(" - ") if union else [text]
        says = [line.partition(". Got value: ")[0] for line in lines if "NoneType" not in line]
        name = re.search(r"(?:Expected a dot import path string|Unexpected import path format): (\S+)", " ".join(says))
        module = re.search(r"No module named '\S+'|has no attribute '\S+'", text)
        if (name or module) and "'float'" not in text:
            return self.unknown_class(key, name[1] if name else given, module[0] if module else "")
        found = [re.fullmatch(r"Expected an? (?:<class '(?:\w+\.)*(\w+)'>|typing.Literal\[(.*)\])", line) for line in says]
        types = [match[1] or match[2].replace(", ", " or ") for match in found if match]
        if types:
            return f"expected {' or '.join(types)}, got '{given}'"
        return re.sub(r"Type .*? expects a function or a callable class: ", "", "; ".join(says))[:300]

    def unknown_class(self, key: str, name: str, reason: str) -> str:
        """Says which classes there are."""
        base = (CHOICES | OTHERS).get(key.rpartition(".")[2])
        names = sorted({c.__name__ for c in subclasses(base)}) if base else []
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join([*names[:12], 'any class path'])}"
        return f"unknown class '{name}'{f' ({reason})' if reason else ''}; {hint if names else 'give a class path'}"

    def typed(self, key: str) -> str:
        """A setting's whole key, as one would type it."""
        above = self.chosen.get(getattr(self.owner, "__name__", ""))
        whole = f"{above}.{key}" if above else key
        return re.sub(r"\.?\b(init_args|class_path)\b", "", whole)

    def origin(self, key: str) -> str:
        """The file that a key came from, in brackets, where it was one."""
        path = self.origins.get(self.typed(key))
        return f" (in {path})" if path else ""

    def unknown(self, key: str) -> str:
        """Names the known key that looks most like this one; of a class that was chosen, all its settings."""
        known = [action.dest for action in self._actions if not action.dest.endswith("help")]
        near = difflib.get_close_matches(key, known if self.owner else [*known, *ALIASES], n=1, cutoff=0.7)
        if near:
            hint = f"did you mean '{self.typed(near[0])}'?"
        else:
            hint = f"{self.owner.__name__} knows {', '.join(known) or 'no settings'}" if self.owner else "--help lists the keys"
        return f"unknown key '{self.typed(key)}'; {hint}{self.origin(key)}"

    def format_help(self, formatter: Any = None) -> str:
        """Everyday flags first, then the model's and the data's, Lightning's forty at the end."""
        self.usage = "python -m src.VERB [--config FILE ...] [--KEY VALUE ...]"
        self._action_groups = sorted(self._action_groups, key=lambda group: "every aspect of training" in str(group.title))
        short = "\n".join(f"  --{alias:<16} --{key}" for alias, key in ALIASES.items())
        classes = "\n".join(
            f"  {key:<18} {', '.join(sorted(c.__name__ for c in subclasses(base)))}" for key, base in CHOICES.items()
        )
        everyday = (
            f"everyday flags and what they stand for:\n{short}\n\nclasses to choose from, by name or class path:\n{classes}\n"
        )
        head, _, rest = super().format_help(formatter).partition("\n\n")
        return f"{head}\n\n{everyday}\n{rest}"


CHOICES: dict[str, type] = {
    "data": MultiTaskDataModule,
    "encoder": Encoder,
    "sharing": Sharing,
    "balancer": Balancer,
    "tasks": Task,
}
OTHERS: dict[str, type] = {"optimizer": Optimizer, "scheduler": LRScheduler, "callbacks": L.Callback, "logger": Logger}


def subclasses(base: type) -> list[type]:
    """The classes below ``base`` that can be made."""
    children: list[type] = base.__subclasses__()
    below = [c for child in children for c in (child, *subclasses(child))]
    return [c for c in below if not isabstract(c)]


class CLI(LightningCLI):
    """Builds data, model and trainer from ``configs/train.yaml``, files named by --config, and flags.

    Args:
        args: The command line after the verb.
        base: Layer under --config; a verb that starts from a run folder gives the run's config.
        extra: Adds a verb's own arguments.
        trainer_settings: Says what the verb adds to the Trainer's settings, once data and model are built.
    """

    def __init__(
        self,
        args: list[str],
        base: dict[str, Any] | None = None,
        extra: Callable[[LightningArgumentParser], None] | None = None,
        trainer_settings: "Callable[[CLI], dict[str, Any]] | None" = None,
    ) -> None:
        know_every_class()
        self.extra, self.trainer_settings = extra, trainer_settings
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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what follows from the data, and adds what is the project's own."""
        parser.link_arguments("data.tasks", "model.tasks", apply_on="instantiate")
        parser.link_arguments("data.input_shape", "model.input_shape", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.seed")
        parser.add_argument("--name", type=str | None, default=None, help="Groups runs: logs/<name>/<date-time>.")
        parser.add_argument("--logs", type=str, default="logs", help="Where run folders go.")
        parser.add_class_arguments(Watch, "watch")
        if self.extra:
            self.extra(parser)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Builds the trainer with what the verb adds."""
        settings = self.config_init["trainer"]
        if settings["use_distributed_sampler"]:
            raise ValueError("trainer.use_distributed_sampler must stay false: the data module deals global batches to the devices")
        if settings["accumulate_grad_batches"] < 1:
            raise ValueError(f"trainer.accumulate_grad_batches is {settings['accumulate_grad_batches']}; it must be at least 1")
        if str(settings["precision"]) in ("16-true", "bf16-true"):
            raise ValueError(
                f"trainer.precision {settings['precision']} leaves the weights three digits; use bf16-mixed or 16-mixed"
            )
        if settings["barebones"]:
            raise ValueError(
                "trainer.barebones leaves out the logger, the checkpoints and the guards that a run has; set it to false"
            )
        added = self.trainer_settings(self) if self.trainer_settings else {}
        for key in ("callbacks", "plugins"):
            added[key] = [*self.given(key), *added.get(key, [])]
        return super().instantiate_trainer(**added, **kwargs)

    def given(self, key: str) -> list[Any]:
        """What the user gave for a setting of the Trainer that may be one thing or several."""
        value = self.config_init["trainer"][key] or []
        return value if isinstance(value, list) else [value]

    def before_instantiate_classes(self) -> None:
        """Refuses what cannot run on these devices, before anything is built."""
        for key, value in topology(self.config["trainer"]).items():
            self.config["trainer"][key] = value

    def after_instantiate_classes(self) -> None:
        """Refuses what cannot run on these devices, before any of them starts."""
        rows, devices = self.datamodule.batch_size, self.trainer.world_size
        if rows < devices:
            raise ValueError(
                f"data.batch_size is {rows}, the rows of a step on all devices together, but there are {devices} devices"
            )

    @property
    def yaml(self) -> str:
        """The resolved configuration as a file that --config reads."""
        return self.parser.dump(self.config, skip_none=False)


def open_run(args: list[str], extra: Callable[[LightningArgumentParser], None]) -> tuple[Run, CLI]:
    """Builds data, model and trainer as a run had them, on the devices named now (one, unless told otherwise).

    Raises:
        ValueError: --run names no run folder, or one without a checkpoint.
    """

    def add_arguments(parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, default=None, help="Run folder.")
        extra(parser)

    folder = value_of("run", args)
    if folder is None:
        if asks_for_help(args):
            CLI(args, extra=add_arguments)
        raise ConfigError("--run is missing: name a run folder, such as logs/digits/2026-01-31_12-00-00")
    run = Run.open(folder)
    run.checkpoint()
    base = run.read_config()
    base["trainer"] = read(DEFAULTS)["trainer"] | {"precision": base["trainer"].get("precision")}  # limits and devices were its own
    base.pop("resume", None)
    if run.schema.is_file():
        base["data"]["init_args"]["schema_path"] = str(run.schema)

    def settings(_: CLI) -> dict[str, Any]:
        return {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "plugins": [SafeCheckpointIO()]}

    return run, CLI(args, base=base, extra=add_arguments, trainer_settings=settings)


def layered(args: list[str], base: dict[str, Any]) -> list[str]:
    """Merges the base and all --config files into one, and puts the flags behind it, parents before their settings."""
    merged, rest = base, []
    Parser.origins = {}
    for key, value in flags(args):
        names_a_file = key in SECTIONS and str(value).endswith((".yaml", ".yml"))
        if not names_a_file and key != "config":
            rest.append((key, by_path(value, key.rpartition(".")[2])))
            continue
        if value is None:
            raise ConfigError("--config needs a file")
        layer = {key: read(Path(value))} if names_a_file else read(Path(value))
        for section in SECTIONS:
            if not isinstance(layer.get(section, {}), (dict, str) if section == "data" else dict):
                raise ConfigError(f"config {value}: {section} is '{layer[section]}', where a mapping of keys to values is expected")
        Parser.origins |= dict.fromkeys(keys(layer), value)
        merged = merge(merged, layer)
    merged = by_path(merged)
    rest = parents_first(rest)
    Parser.origins |= dict.fromkeys((key for key, _ in rest), "")
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
        return {name: by_path(value, key if name == "class_path" else name) for name, value in tree.items()}
    if key not in CHOICES or not isinstance(tree, str) or "." in tree:
        return tree
    ours = [c for c in subclasses(CHOICES[key]) if c.__name__ == tree and c.__module__.startswith("src.")]
    return f"{ours[0].__module__}.{tree}" if ours else tree


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


def fail(message: str, code: int = 2) -> NoReturn:
    """One line on standard error, and the end; ranks other than the first say which they are."""
    rank = int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)
    print(f"error{f' on rank {rank}' if rank else ''}: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


def quiet() -> None:
    """Silences what Lightning says of itself, so that what a run says of the user's work can be seen."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        ".*LeafSpec.*",  # Lightning's own use of torch
        ".*args parameter is intended.*",  # the command line is handed on after its layers were merged
        ".*does not have many workers.*",  # data in memory is fastest without
        ".*smaller than the logging interval.*",  # the end of an epoch logs too
        ".*callbacks used to create the checkpoint need to be provided.*",  # evaluation keeps no checkpoints
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
    ):
        warnings.filterwarnings("ignore", message=message)


def thread_ended(args: threading.ExceptHookArgs) -> None:
    """Keeps quiet about TensorBoard's writer: the run itself meets the same full disk, and says so in its one line."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


def by_word(error: BaseException, in_libraries: bool = True) -> bool:
    """Whether a ValueError was raised by word: then it is what a user got wrong, and its message says so.

    One that comes out of an expression is a bug and keeps its traceback; so does one of a library that is at work on a run.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError) or not frames or not str(frames[-1].line).startswith("raise "):
        return False
    path = Path(frames[-1].filename)
    return in_libraries or not ("site-packages" in path.parts or path.is_relative_to(sysconfig.get_paths()["stdlib"]))


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
    """Runs a verb on the command line; what a user got wrong is one line and exit code 2, anything else keeps its traceback."""
    quiet()
    threading.excepthook = thread_ended
    try:
        verb(sys.argv[1:])
    except ValueError as error:
        if not by_word(error, in_libraries=False):
            raise
        fail(one_line(error))
    except MisconfigurationException as error:
        fail(one_line(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else one_line(error))
    except RuntimeError as error:
        if "loading state_dict" in str(error):
            fail(f"the checkpoint is of another model than the config describes: {str(error).splitlines()[1].strip()}")
        if not re.search("onnection (closed|reset)|peer", str(error)):
            raise
        fail("another process of this run has ended, and this one with it", code=1)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
