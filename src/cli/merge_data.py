"""The data of merged runs: one data module with the tasks of all of them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from src.cli.members import (
    NOT_COMPARED,
    Member,
    compare_data,
    find_place,
    read_fingerprint,
    remove_places,
)
from src.data.tables.record import add_seal
from src.data.tables.table import Table
from src.errors import UserError
from src.files.yaml12 import load
from src.tasks import Task

# settings of a table that may differ between runs of other targets: which columns are inputs is
# seen in their schemas
OF_TARGETS = {"targets", "drop", "inputs"}
# fields of a task that shape its network and its training alone
OF_TRAINING = ("weight", "depth", "width", "pooled")
# entries of the schemas of tables that say what rows and inputs are
OF_ROWS = ("files", "sides", "hashes")


def is_table(member: Member) -> bool:
    """Returns whether the tasks of a run are columns of a table, and its schema is kept."""
    return isinstance(member.cli.datamodule, Table) and member.run.schema.is_file()


def find_other_rows(one: Member, other: Member) -> str | None:
    """Says which rows, inputs or settings of two runs' data differ; None where tasks alone do."""
    if not (is_table(one) and is_table(other)):
        return compare_data(one, other)
    ours = one.cli.config["data"].as_dict()
    theirs = other.cli.config["data"].as_dict()
    if ours["class_path"] != theirs["class_path"]:
        kinds = [data["class_path"].rpartition(".")[2] for data in (theirs, ours)]
        return f"its data are {kinds[0]}, not {kinds[1]}"

    here = one.cli.datamodule.schema() or {}
    there = other.cli.datamodule.schema() or {}
    for key in OF_ROWS[:2]:
        place = find_place(remove_places(here[key]), remove_places(there[key]))
        if place is not None:
            return (
                f"its rows are other ones, or on other sides of the split (they differ in {key}"
                f"{place}){list_settings(ours, theirs)}"
            )
    return compare_inputs(here["inputs"], there["inputs"])


def list_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Returns the settings of the data that differ, for the end of a sentence; "" for none."""
    here = ours.get("init_args") or {}
    there = theirs.get("init_args") or {}
    keys = [key for key in {**here, **there} if key not in NOT_COMPARED | OF_TARGETS]
    unlike = [key for key in keys if here.get(key) != there.get(key)]
    words = [f"data.{key} {there.get(key)}, not {here.get(key)}" for key in unlike]
    return f": it has {' and '.join(words)}" if words else ""


def compare_inputs(ours: Sequence[Any], theirs: Sequence[Any]) -> str | None:
    """Says which input column of two tables differs, and in what; None where all are the same."""
    here = {column["column"]: column for column in remove_places({"": list(ours)})[""]}
    there = {column["column"]: column for column in remove_places({"": list(theirs)})[""]}
    for name in {**here, **there}:
        if name not in there:
            return f"column '{name}' is no input of it: name the targets of all runs in --data.drop"
        if name not in here:
            return f"it has a further input '{name}': name the targets of all runs in --data.drop"
        if here[name] != there[name]:
            keys = [key for key in here[name] if here[name][key] != there[name].get(key)]
            return f"its input '{name}' has another {keys[0] if keys else 'kind'}"
    if list(here) != list(there):
        return "its input columns have another order"
    return None


def find_other_tasks(one: Member, other: Member) -> str | None:
    """Says which task that two runs have differs, and in what; None where all are alike."""
    theirs = other.cli.model.tasks
    for name, task in one.cli.model.tasks.items():
        if name in theirs and (how := find_difference(task, theirs[name])) is not None:
            return f"its task '{name}' has {how}"
    return None


def find_difference(one: Task, other: Task) -> str | None:
    """Says in what two tasks differ besides their training; None where they do not."""
    here = one.describe()
    there = other.describe()
    for key in {**here, **there}:
        if key not in OF_TRAINING and here.get(key) != there.get(key):
            return f"{key} {there.get(key)}, not {here.get(key)}"
    return None


def find_unlike_rows(one: Member, other: Member) -> str | None:
    """Says where the rows of a run that is only shown beside others differ; None if nowhere."""
    records = [read_fingerprint(member) for member in (one, other)]
    place = find_place(*records)
    if place is None and is_table(one) and is_table(other):
        sides = [(member.cli.datamodule.schema() or {})["sides"] for member in (one, other)]
        place = None if sides[0] == sides[1] else "sides"
    return None if place is None else f"its rows are other ones (they differ in {place})"


# -- one data module for all -----------------------------------------------------------------------
def join_configs(members: Sequence[Member]) -> dict[str, Any]:
    """Returns a configuration with the tasks of all runs, otherwise that of the first.

    It is what a joint training on the same data starts from.
    """
    first = members[0]
    config = read_plain(first)
    settings = config["data"].setdefault("init_args", {}) or {}
    config["data"]["init_args"] = settings
    settings.pop("schema_path", None)
    # it starts from no run, but from several, and all of it is there to be trained
    config.pop("init_from", None)
    config.pop("finetune", None)

    # settings of tasks are by name, and those of the run that comes first count
    tasks: dict[str, Any] = {}
    for member in members:
        own = read_plain(member)["data"].get("init_args") or {}
        tasks = {**(own.get("tasks") or {}), **tasks}
    if tasks:
        settings["tasks"] = tasks
    if all(map(is_table, members)) and "targets" in settings:
        join_targets(settings, members)

    weights = join_weights(members)
    config["model"]["weights"] = weights or None
    scores = [(read_plain(member).get("watch") or {}).get("score") for member in members]
    if any(score != scores[0] for score in scores):
        # each run may have been selected by its own task: all that are trained count
        counted = {name: 1.0 for name in list_tasks(members) if weights.get(name) != 0}
        config.setdefault("watch", {})["score"] = counted if 0 in weights.values() else None
    return config


def read_plain(member: Member) -> dict[str, Any]:
    """Returns the configuration of a run, which has been looked at before, in plain types."""
    config: dict[str, Any] = load(member.run.config.read_text())
    return config


def list_tasks(members: Sequence[Member]) -> list[str]:
    """Returns the tasks of all runs, in the order in which the runs name them."""
    return list(dict.fromkeys(name for member in members for name in member.cli.model.tasks))


def join_weights(members: Sequence[Member]) -> dict[str, float]:
    """Returns {task: fixed weight} where it is not the task's own; 0 where no run trains a task.

    Of several runs that train a task the first one's weight counts.
    """
    weights: dict[str, float] = {}
    stated: dict[str, float] = {}
    for member in members:
        model = member.cli.model
        for name, task in model.tasks.items():
            stated.setdefault(name, task.weight)
            weights[name] = weights.get(name) or model.weights[name]
    return {name: weight for name, weight in weights.items() if weight != stated[name]}


def join_targets(settings: dict[str, Any], members: Sequence[Member]) -> None:
    """Puts the targets of all runs into the settings of a table, and takes them from ``drop``."""
    targets: dict[str, Any] = {}
    columns: set[str] = set()
    for member in members:
        data = member.cli.datamodule
        assert isinstance(data, Table)
        for name, own in data.targets.items():
            targets.setdefault(name, own[0] if data.single[name] else own)
            columns.update(own)
    dropped: list[str] = []
    for member in members:
        own = read_plain(member)["data"]["init_args"].get("drop") or []
        dropped += [column for column in own if column not in dropped]
    settings["targets"] = targets
    settings["drop"] = [column for column in dropped if column not in columns] or None


def join_schemas(members: Sequence[Member]) -> dict[str, Any] | None:
    """Returns the schema of the first run with the tasks of all; None where runs keep none."""
    first = members[0].cli.datamodule.schema()
    if first is None or not all(map(is_table, members)):
        return first
    schema = copy.deepcopy(first)
    for member in members[1:]:
        own = member.cli.datamodule.schema() or {}
        schema["tasks"] = {**own["tasks"], **schema["tasks"]}
    # in the order in which the runs name them
    schema["tasks"] = {name: schema["tasks"][name] for name in list_tasks(members)}
    columns = {column for task in schema["tasks"].values() for column in task["labels"]["columns"]}
    schema["dropped"] = {
        column: why for column, why in schema["dropped"].items() if column not in columns
    }
    schema.pop("seal", None)
    return add_seal(schema)


def refuse_unjoined(members: Sequence[Member]) -> None:
    """Refuses runs whose tasks of one name are not alike.

    Raises:
        UserError: They are not.
    """
    for number, other in enumerate(members):
        for one in members[:number]:
            if (how := find_other_tasks(one, other)) is not None:
                raise UserError(
                    f"--runs: {other.run.path} cannot be merged with {one.run.path}: {how}"
                )
