"""Columns of tables in the weights of an encoder: matched by name, whatever their order."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError
from src.models.encoders.columns import Axis, ReadsColumns, TableColumns
from src.models.network import MultiTaskNetwork
from src.models.sharing.gates import GateInput
from src.models.transfer.named_tensors import NamedTensor, name_all
from src.models.transfer.source import Source
from src.models.transfer.task_axes import Key

Entries = dict[Key, NamedTensor]
OF_TABLE = ("numeric", "categorical")


@dataclass(frozen=True)
class Stem:
    """A module of an encoder that reads the columns of a table.

    Attributes:
        path: Its path in the encoder.
        module: The module.
    """

    path: str
    module: ReadsColumns


def move_columns(
    model: MultiTaskNetwork,
    source: Source,
    inputs: Sequence[Mapping[str, Any]],
    ours: Entries,
    theirs: Entries,
) -> tuple[Entries, Entries, str]:
    """Names the entries of two states after the columns of tables, where these differ.

    Args:
        model: The model.
        source: The source.
        inputs: The entries of the model's input columns in a schema.
        ours: The entries of the model's architecture.
        theirs: Those of the source's.

    Returns:
        The entries of both; and what is new or gone, "" where nothing is.

    Raises:
        UserError: Inputs differ in what cannot move by name.
    """
    if not inputs or not source.inputs:
        return ours, theirs, ""
    refuse_other_members(source, inputs)
    here, there = (read_columns(entries, source) for entries in (inputs, source.inputs))
    if here == there and list(here.categories) == list(there.categories):
        return ours, theirs, ""

    stems = find_stems(model)
    gates = any(isinstance(module, GateInput) for module in model.sharing.modules())
    if not stems or gates:
        who = type(model.sharing).__name__ if gates else "its encoder"
        raise UserError(
            f"{source.path}: has other input columns ({describe_columns(here, there)}), and {who} "
            "has weights that cannot move between columns: keep the columns and their order, or "
            "take --model.sharing HardSharing with --model.encoder MLP or TabularTransformer"
        )
    return (
        name_columns(ours, here, stems),
        name_columns(theirs, there, stems),
        describe_columns(here, there),
    )


def refuse_other_members(source: Source, inputs: Sequence[Mapping[str, Any]]) -> None:
    """Refuses texts, images and other inputs besides columns that the source has not.

    Raises:
        UserError: There are some, or a text has another tokenizer.
    """
    here, there = (list_members(entries) for entries in (inputs, source.inputs))
    if list(here) != list(there) and (len(here) > 1 or len(there) > 1 or len(here) != len(there)):
        raise UserError(
            f"{source.path}: reads {name_all(list(there)) or 'columns alone'}, and this run "
            f"{name_all(list(here)) or 'columns alone'}: the encoder has a part for each input, "
            "so that these must be the same, in the same order"
        )
    for (name, ours), theirs in zip(here.items(), there.values(), strict=True):
        if ours.get("tokenizer") != theirs.get("tokenizer"):
            raise UserError(
                f"{source.path}: the tokens of '{name}' have other numbers there: leave "
                "init_from.normalisation at source, which takes over the tokenizer"
            )


def list_members(entries: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Returns the inputs that are no numeric or categorical columns, by name."""
    return {str(e.get("column")): e for e in entries if e.get("kind") not in OF_TABLE}


def read_columns(entries: Sequence[Mapping[str, Any]], source: Source) -> TableColumns:
    """Returns the columns of a table in a schema.

    Raises:
        UserError: The schema is damaged.
    """
    try:
        return TableColumns.of_schema(entries)
    except (KeyError, TypeError):
        raise UserError(f"{source.path}: its schema.json is damaged") from None


def find_stems(model: MultiTaskNetwork) -> list[Stem]:
    """Finds the modules of the encoder that read columns; one encoder is made to look at."""
    with torch.random.fork_rng(devices=[]):
        encoder: nn.Module = model.make_encoder(model.input_shape)
    return [
        Stem(path, module)
        for path, module in encoder.named_modules()
        if isinstance(module, ReadsColumns)
    ]


def name_columns(entries: Entries, columns: TableColumns, stems: Sequence[Stem]) -> Entries:
    """Names the entries of modules that read columns after these."""
    names = {".".join(map(str, key)): key for key in entries}
    renamed: dict[Key, tuple[Key, NamedTensor]] = {}
    for stem in stems:
        for prefix in find_prefixes(names, stem.path):
            state = {
                name.removeprefix(f"{prefix}."): entries[key].tensor
                for name, key in names.items()
                if name.startswith(f"{prefix}.")
            }
            for name, (new, axes) in name_entries(stem.module, columns, state).items():
                key = names[f"{prefix}.{name}"]
                entry = entries[key]
                own = {entry.tensor.ndim + dim: axis for dim, axis in axes.items()}
                short = key[: len(key) - len(name.split("."))]
                renamed[key] = ((*short, new), NamedTensor(entry.tensor, {**entry.axes, **own}))
    return dict(renamed.get(key, (key, entry)) for key, entry in entries.items())


def find_prefixes(names: Iterable[str], path: str) -> list[str]:
    """Returns the paths in an architecture at which its encoders have the module of a path."""
    found: dict[str, None] = {}
    for name in names:
        before, inside, _ = f".{name}".partition(f".{path}.")
        if inside:
            found[f"{before}.{path}".removeprefix(".")] = None
    return list(found)


def name_entries(
    module: ReadsColumns, columns: TableColumns, state: Mapping[str, Tensor]
) -> dict[str, tuple[Hashable, dict[int, Axis]]]:
    """Names the entries of one module; none where its state is of other columns."""
    try:
        return module.name_inputs(columns, state)
    except KeyError:
        return {}


def describe_columns(here: TableColumns, there: TableColumns) -> str:
    """Says which columns are new, which are gone, and which have new words."""
    ours, theirs = here.names, there.names
    new = [name for name in ours if name not in theirs]
    gone = [name for name in theirs if name not in ours]
    words = [
        name
        for name, axis in here.categories.items()
        if name in there.categories and set(axis.labels) - set(there.categories[name].labels)
    ]
    parts = [f"new columns: {name_all(new)}"] if new else []
    parts += [f"columns gone: {name_all(gone)}"] if gone else []
    parts += [f"new words in: {name_all(words)}"] if words else []
    return "; ".join(parts)
