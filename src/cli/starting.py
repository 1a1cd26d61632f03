"""Starts the network of a new run from a trained one, and says what became of each part."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from src.cli.init_from import BACKBONE, InitFrom, name_class, read_source
from src.data import MultiTaskDataModule
from src.data.tables.columns import to_plain
from src.data.tables.table import Table
from src.errors import UserError
from src.files.typed import Damaged
from src.models import MultiTaskModel
from src.models.transfer.report import PartReport
from src.models.transfer.source import Source
from src.models.transfer.start import start_from

PRETRAINED = "Pretrained"
COLOURS = {"kept": "green", "grown": "cyan", "fresh": "yellow", "dropped": "dim"}


class Start:
    """The start of a new run: data and model are told of it as they are built.

    Args:
        settings: The section init_from.
        model: The section model of the run's configuration.

    Raises:
        UserError: There is nothing to start from, or its encoder is another one.

    Attributes:
        reports: What became of each part, once the model has its weights.
        inputs: The entries of the run's input columns in a schema; none where it has no columns.
    """

    def __init__(self, settings: InitFrom, model: Mapping[str, Any]) -> None:
        assert settings.source is not None
        self.settings = settings
        self.model = model
        self.source: Source = read_source(settings.source, settings.checkpoint, settings.task)
        self.reports: list[PartReport] = []
        self.inputs: list[dict[str, Any]] = []
        self._check_encoder()

    def _check_encoder(self) -> None:
        names = self.settings.names
        here = name_class(self.model.get("encoder"))
        there = self.source.encoder
        reads_heads_alone = names is not None and all(n.startswith("heads") for n in names)
        if not reads_heads_alone and None not in (here, there) and here != there:
            raise UserError(
                f"init_from {self.source.path}: its encoder is {there}, and this run's is {here}: "
                f"add --model.encoder {there}, or take --init_from.parts '[heads]'"
            )

    def tell_data(self, data: MultiTaskDataModule) -> None:
        """Lets data be read as the source read them, before anything is.

        Raises:
            UserError: The source is of other data.
        """
        if isinstance(data, Table) and self.source.schema is None:
            raise UserError(
                f"init_from {self.source.path}: there is no schema.json that says which columns "
                "its inputs were: name a run folder on a table"
            )
        if self.source.schema is None or self.settings.normalisation == "new":
            return
        try:
            data.start_from(self.source.schema, self.source.path)
        except Damaged as error:
            here, there = type(data).__name__, self.source.data
            if there in (None, here):
                raise
            raise UserError(
                f"init_from {self.source.path}: its data are of {there}, which reads inputs in "
                f"another way than {here}: name a run on {here}"
            ) from error

    def fill(self, model: MultiTaskModel, data: MultiTaskDataModule) -> None:
        """Gives the model its weights.

        Raises:
            UserError: They do not fit.
        """
        if isinstance(data, Table):
            self.inputs = [to_plain(column) for column in data.columns]
        try:
            self.reports = start_from(model, self.source, self.settings.names, self.inputs)
        except UserError as error:
            differing = list(list_differences(self.model, self.source.model))
            more = f" ({'; '.join(differing)})" if differing else ""
            what = str(error)
            where = "" if what.startswith("init_from") else "init_from "
            raise UserError(f"{where}{what}{more}") from None

    def tabulate(self) -> RichTable:
        """Returns the table of parts."""
        table = RichTable(box=None, pad_edge=False)
        for column in ("part", "weights", "why"):
            table.add_column(column)
        for report in self.reports:
            status = f"[{COLOURS[report.status]}]{report.status}[/]"
            table.add_row(report.part, status, report.why)
        return table


def list_differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    """Yields the settings of encoder and sharing that differ, for people."""
    for key in ("encoder", "sharing"):
        if key not in here or key not in there:
            continue
        ours = flatten(here.get(key), f"model.{key}")
        theirs = flatten(there.get(key), f"model.{key}")
        for name, value in ours.items():
            if name in theirs and theirs[name] != value:
                yield f"{name} is {theirs[name]} there, and {value} here"


def flatten(choice: Any, key: str) -> dict[str, Any]:
    """Returns {dotted key: value} of the choice of a class and its settings."""
    if not isinstance(choice, Mapping):
        return {key: choice}
    if "class_path" in choice:
        found = {key: name_class(choice)}
        for name, value in (choice.get("init_args") or {}).items():
            found |= flatten(value, f"{key}.{name}")
        return found
    return {key: dict(choice)}


def place_backbone(tree: dict[str, Any]) -> None:
    """Lets the encoder have the weights of a model of transformers that init_from names.

    Args:
        tree: The settings of a new run, which are changed.

    Raises:
        UserError: The encoder is no Pretrained one, or names another model.
    """
    section = tree.get("init_from") or {}
    source = section.get("source") if isinstance(section, dict) else None
    if not isinstance(source, str) or not is_backbone(Path(source)):
        return
    encoder = tree["model"].get("encoder")
    kind = name_class(encoder)
    if kind != PRETRAINED:
        raise UserError(
            f"init_from {source} is a model of transformers, the start of an encoder: add "
            f"--model.encoder {PRETRAINED} in the place of {kind}, or name a run folder"
        )
    if section.get("parts") not in (None, "encoder", ["encoder"]):
        raise UserError(
            f"init_from {source} is a model of transformers, and has an encoder alone: leave "
            "init_from.parts out"
        )
    settings = dict(encoder.get("init_args") or {}) if isinstance(encoder, dict) else {}
    if settings.get("name", source) != source:
        raise UserError(
            f"init_from {source} and model.encoder.name {settings['name']} are two models: leave "
            "out one of them"
        )
    path = encoder["class_path"] if isinstance(encoder, dict) else encoder
    settings |= {"name": source, "weights": True}
    tree["model"]["encoder"] = {"class_path": path, "init_args": settings}


def is_backbone(folder: Path) -> bool:
    """Returns whether a folder holds a model of transformers, and no run."""
    return (folder / BACKBONE).is_file() and not (folder / "config.yaml").is_file()
