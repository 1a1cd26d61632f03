"""The one parser that all verbs share: LightningCLI on layered configuration, with errors in one line."""

import difflib
import importlib
import json
import logging
import os
import pkgutil
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse._typehints as typehints
import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import src.balancing
import src.data
import src.models
import src.tasks
from src.config import ALIASES, ConfigError, flags, keys, merge, parents_first, read
from src.data import MultiTaskDataModule
from src.models import MultiTaskModel
from src.monitoring import Watch

ROOT = Path(__file__).parents[1]
DEFAULTS = ROOT / "configs" / "train.yaml"


def forget_replaced_class(_: Any, previous: Any, value: Any) -> None:
    """Another class starts from its own defaults.

    jsonargparse keeps those settings of the replaced class that the new one happens to know (AdamW's weight decay in SGD).
    """
    if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
        for key in list(previous["init_args"].keys()):
            previous["init_args"].pop(key)


typehints.discard_init_args_on_class_path_change = forget_replaced_class


def know_every_class() -> None:
    """Imports each file of the packages that classes are chosen from, so that a new file's classes are found by short name."""
    for package in (src.data, src.models, src.balancing, src.tasks):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


class Parser(LightningArgumentParser):
    """The parser, with mistakes answered in one line."""

    origins: dict[str, str] = {}  # noqa: RUF012  # which file a key came from, filled before parsing

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints one line and ends with exit code 2."""
        fail(self.in_one_line(str(ex or message)))

    def in_one_line(self, message: str) -> str:
        """Shortens jsonargparse's message to the key, what is wrong, what would be right, and the file."""
        text = " ".join(message.split())
        found = re.search(r"[kK]ey '?\"?([\w.\-]+)\"?'?", text) or re.search(r"[Oo]ption '?([\w.\-]+)'?", text)
        key = re.sub(r"\.?init_args|\.?class_path", "", found[1]) if found else ""
        unknown = re.search(r"(?:Unrecognized arguments:|[Nn]ested key|[Kk]ey|[Oo]ption) ?'?\"?-{0,2}([\w.\-]+)", text)
        wrong = re.search(r"Unrecognized arguments: --([\w.\-]+)", text)
        if wrong:
            key = wrong[1]
        hint = ""
        if unknown and re.search(r"not expected|not accepted|[Uu]nrecognized|No action|not valid", text):
            near = self.nearest(key or unknown[1])
            hint = f"; did you mean '{near}'?" if near else ""
        origin = next((f" (in {self.origins[k]})" for k in self.origins if key and (k == key or k.endswith("." + key))), "")
        return text[:400] + hint + origin

    def nearest(self, key: str) -> str | None:
        """The known key that looks most like ``key``."""
        known = [a.dest.replace("init_args.", "") for a in self._actions] + list(ALIASES)
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
        return near[0] if near else None


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
        super().__init__(
            MultiTaskModel,
            MultiTaskDataModule,
            subclass_mode_data=True,
            run=False,
            args=layered(args, base if base is not None else read(DEFAULTS)),
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False},
            trainer_defaults={"use_distributed_sampler": False, "enable_model_summary": False},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what follows from the data, and adds what is the project's own."""
        parser.link_arguments("data.tasks", "model.tasks", apply_on="instantiate")
        parser.link_arguments("data.input_shape", "model.input_shape", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments("seed_everything", "model.seed")
        parser.add_argument("--name", type=str, default="run", help="Groups runs: logs/<name>/<date-time>.")
        parser.add_argument("--logs", type=str, default="logs", help="Where run folders go.")
        parser.add_class_arguments(Watch, "watch")
        if self.extra:
            self.extra(parser)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Builds the trainer with what the verb adds."""
        settings = self.config_init["trainer"]
        if settings["use_distributed_sampler"]:
            raise ValueError("trainer.use_distributed_sampler must stay false: the data module deals global batches to the devices")
        added = self.trainer_settings(self) if self.trainer_settings else {}
        for key in ("callbacks", "plugins"):
            given = settings[key] or []
            added[key] = [*(given if isinstance(given, list) else [given]), *added.get(key, [])]
        return super().instantiate_trainer(**added, **kwargs)

    @property
    def yaml(self) -> str:
        """The resolved configuration as a file that --config reads."""
        return self.parser.dump(self.config, skip_none=False)


def layered(args: list[str], base: dict[str, Any]) -> list[str]:
    """Merges the base and all --config files into one, and puts the flags behind it, parents before their settings."""
    merged, rest = base, []
    Parser.origins = {}
    for key, value in flags(args):
        if key != "config":
            rest.append((key, value))
            continue
        if value is None:
            raise ConfigError("--config needs a file")
        layer = read(Path(value))
        Parser.origins |= dict.fromkeys(keys(layer), value)
        merged = merge(merged, layer)
    words = [f"--{key}" if value is None else f"--{key}={value}" for key, value in parents_first(rest)]
    return ["--config", json.dumps(merged), *words]


def value_of(key: str, args: list[str]) -> str | None:
    """The value of a flag, read before the parser runs."""
    return next((value for name, value in flags(args) if name == key), None)


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
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
    ):
        warnings.filterwarnings("ignore", message=message)


def is_ours(error: BaseException) -> bool:
    """Whether this project's code raised an error: then it is what a user got wrong, and its message says so."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(ROOT / "src")


def main(verb: Callable[[list[str]], None]) -> None:
    """Runs a verb on the command line; what a user got wrong is one line and exit code 2, anything else keeps its traceback."""
    quiet()
    try:
        verb(sys.argv[1:])
    except ValueError as error:
        if not is_ours(error):
            raise
        fail(one_line(error))
    except MisconfigurationException as error:
        fail(one_line(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else one_line(error))
    except RuntimeError as error:
        if not re.search("onnection (closed|reset)|peer", str(error)):
            raise
        fail("another process of this run has ended, and this one with it", code=1)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
