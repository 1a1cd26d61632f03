"""The members of an ensemble: several runs of the same tasks and the same rows, opened together."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from src.cli.app import CLI
from src.cli.flags import Flag
from src.cli.runs import OF_FILES, drop_flags, find_value, open_run
from src.errors import UserError
from src.files.typed import read_json
from src.run import Run

NAME = "ensemble.json"
# settings of the data that change no row, or whose meaning is compared elsewhere
NOT_COMPARED = OF_FILES | {"seed", "schema_path", "tasks"}
# fields of a task that shape its network and its training alone
OF_TRAINING = ("weight", "depth", "width", "pooled")


class EnsembleRecord(TypedDict):
    """The record of an ensemble's folder, ensemble.json.

    Attributes:
        members: The run folders, relative to the ensemble's.
    """

    members: list[str]


@dataclass
class Member:
    """A run that is opened.

    Attributes:
        run: Its folder.
        checkpoint: The checkpoint that counts.
        cli: Its data, model and trainer.
    """

    run: Run
    checkpoint: str
    cli: CLI


def list_members(args: list[str]) -> list[str]:
    """Returns the run folders that --run names: one, several with commas, or those of an ensemble.

    Raises:
        UserError: The record of an ensemble is damaged.
    """
    value = find_value("run", args)
    if value is None:
        return []
    # the name of a folder may hold a comma itself
    names = [value] if Path(value).is_dir() else [name.strip() for name in value.split(",")]
    folders: list[str] = []
    for name in names:
        record = Path(name) / NAME
        if record.is_file():
            found = cast(EnsembleRecord, read_json(record, EnsembleRecord))
            folders += [str(Path(name) / member) for member in found["members"]]
        else:
            folders.append(name)
    return folders


def open_members(args: list[str], own: Sequence[Flag], reads_files: bool = True) -> list[Member]:
    """Opens the runs that --run names, on the devices named now; mostly there is one.

    Args:
        args: The command line after the command.
        own: The flags that the command alone knows.
        reads_files: Whether the command reads the runs' data; otherwise they may be gone.

    Raises:
        UserError: One of them cannot be opened, or cannot be averaged with the first.
    """
    folders = list_members(args)
    if not folders:
        open_run(args, own)  # it answers for help, and asks for a run
    if "" in folders:
        raise UserError("--run: a name is missing beside a comma; it reads RUN1,RUN2,RUN3")

    rest = drop_flags(args, "run")
    members: list[Member] = []
    for folder in folders:
        checkpoint, cli = open_run(
            [*rest, f"--run={folder}"], own, says=not members, reads_files=reads_files
        )
        members.append(Member(Run(folder), str(checkpoint), cli))
        if (how := find_difference(members[0], members[-1])) is not None:
            raise UserError(f"--run: {folder} cannot be averaged with {members[0].run.path}: {how}")
    return members


# -- what members must have in common --------------------------------------------------------------
def find_difference(one: Member, other: Member) -> str | None:
    """Says in which tasks, rows or settings two runs differ; None where they can be averaged.

    Encoders, sharing, balancers and whatever else belongs to training may differ.
    """
    return (
        compare_data(one, other)
        or compare_tasks(one, other)
        or compare_scores(one, other)
        or compare_precision(one, other)
    )


def compare_tasks(one: Member, other: Member) -> str | None:
    """Says which task differs, or what of one."""
    ours = one.cli.model.tasks
    theirs = other.cli.model.tasks
    if set(ours) != set(theirs):
        return f"its tasks are {', '.join(theirs)}, not {', '.join(ours)}"
    for name, task in ours.items():
        here = task.describe()
        there = theirs[name].describe()
        for key in {**here, **there}:
            if key not in OF_TRAINING and here.get(key) != there.get(key):
                return f"its task '{name}' has {key} {there.get(key)}, not {here.get(key)}"
    return None


def compare_data(one: Member, other: Member) -> str | None:
    """Says which setting of the data differs, or which part of their record."""
    ours = one.cli.config["data"].as_dict()
    theirs = other.cli.config["data"].as_dict()
    if ours["class_path"] != theirs["class_path"]:
        kinds = [data["class_path"].rpartition(".")[2] for data in (theirs, ours)]
        return f"its data are {kinds[0]}, not {kinds[1]}"

    here = ours.get("init_args") or {}
    there = theirs.get("init_args") or {}
    keys = [key for key in {**here, **there} if key not in NOT_COMPARED]
    unlike = [key for key in keys if here.get(key) != there.get(key)]
    differing = [f"data.{key} {there.get(key)}, not {here.get(key)}" for key in unlike]

    # where there is a record of the rows, it counts, and settings only explain
    place = find_other_rows(one, other)
    recorded = one.run.schema.is_file() and other.run.schema.is_file()
    if differing and (place or not recorded):
        return f"it has {' and '.join(differing)}"
    return f"it was trained on other data (they differ in {place})" if place else None


def find_other_rows(one: Member, other: Member) -> str | None:
    """Returns the place in the records of two runs' data where they differ; None if they agree."""
    for read in (read_schema_record, read_fingerprint):
        place = find_place(read(one), read(other))
        if place is not None:
            return place.lstrip(".")
    return None


def read_schema_record(member: Member) -> Any:
    """Returns a run's schema without what belongs to no row; None where it has none."""
    return remove_places(member.cli.datamodule.schema())


def read_fingerprint(member: Member) -> Any:
    """Returns what identifies a run's data, without the places of files; None where nothing does.

    New rows have the fingerprint of no run.
    """
    data = member.cli.datamodule
    return None if data.is_new else remove_places(data.fingerprint())


def remove_places(record: Any) -> Any:
    """Returns a record in JSON's types, without paths, hashes of the whole, and tasks' settings."""
    plain = json.loads(json.dumps(record))

    def clean(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kept = [key for key in value if key not in ("path", "given", "seal", "task")]
        # other files or sides are the reason why other entries differ
        kept.sort(key=lambda key: key not in ("files", "sides"))
        return {key: clean(value[key]) for key in kept}

    return clean(plain)


def find_place(ours: Any, theirs: Any) -> str | None:
    """Returns the dotted key where two records differ first; None where they do not."""
    if ours == theirs:
        return None
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return ""
    for key in {**ours, **theirs}:
        place = find_place(ours.get(key), theirs.get(key))
        if place is not None:
            return f".{key}{place}"
    return ""


def compare_scores(one: Member, other: Member) -> str | None:
    """Says that scores are another mean over tasks."""
    ours = one.cli.model.score_weights
    theirs = other.cli.model.score_weights
    return None if ours == theirs else f"its score weighs tasks by {theirs}, not by {ours}"


def compare_precision(one: Member, other: Member) -> str | None:
    """Says that networks compute in another precision."""
    ours = one.cli.config["trainer"]["precision"]
    theirs = other.cli.config["trainer"]["precision"]
    if ours == theirs:
        return None
    return f"it computes in precision {theirs}, not {ours}: name one with --precision"
