"""The record that a run keeps of its data, so that no later command takes other rows for them.

For each file, the record holds its path, its size and a hash of its content; for each row, the side
of the split that it is on, and a short hash of its inputs. A file with the same content is the
run's file, wherever it lies.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import numpy as np

from src.data.kinds import task_from_plain
from src.data.rows import Inputs, LazyValues
from src.data.tables.columns import Categorical, Column, Numeric, name_kind, to_plain
from src.data.tables.labels import Labels
from src.data.tables.sensitive import SensitiveRecord
from src.files.typed import Count, Damaged, Such, find_mismatch, read_json

if TYPE_CHECKING:
    from src.data.tables.table import Table

LETTERS = {"train": "t", "val": "v", "test": "e"}
BYTES = 6  # of a row's hash; among a million different rows, two share theirs once in 280 times


def fingerprint_file(path: str | Path) -> dict[str, Any]:
    """Returns the path, size and content hash of a file.

    A folder is known by the names and sizes of its files.
    """
    place = Path(path)
    if place.is_dir():
        return fingerprint_folder(place)
    with place.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {
        "path": str(place.resolve()),
        "bytes": place.stat().st_size,
        "sha256": digest.hexdigest(),
    }


def fingerprint_folder(folder: Path) -> dict[str, Any]:
    """Returns the path and size of a folder, and a hash of the names and sizes of its files."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    digest = hashlib.sha256(json.dumps(sizes).encode())
    return {
        "path": str(folder.resolve()),
        "bytes": sum(sizes.values()),
        "sha256": digest.hexdigest(),
    }


def is_same(path: str | Path, record: Mapping[str, Any]) -> bool:
    """Returns whether a file or folder exists and has the content of a record."""
    place = Path(path)

    # the size is known at once, the hash only after the whole file is read
    if place.is_file() and place.stat().st_size != record["bytes"]:
        return False
    if not place.exists():
        return False
    return bool(fingerprint_file(place)["sha256"] == record["sha256"])


def pack_sides(rows: Mapping[str, np.ndarray]) -> str:
    """Writes the side of each row as a letter: t trains, v validates, e tests."""
    side = np.full(sum(map(len, rows.values())), "?")
    for name, numbers in rows.items():
        side[numbers] = LETTERS[name]
    return "".join(side)


def unpack_sides(text: str) -> dict[str, np.ndarray]:
    """Returns the row numbers of each side that :func:`pack_sides` wrote down."""
    side = np.array(list(text))
    return {name: np.flatnonzero(side == letter) for name, letter in LETTERS.items()}


def hash_rows(inputs: Inputs) -> np.ndarray:
    """Hashes the inputs of each row, as a network reads them: (N,) uint64."""
    import pandas as pd

    # 48 of 64 bits tell rows apart well enough, and keep the schema small
    several = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    columns: list[np.ndarray] = []
    for values in several:
        if isinstance(values, LazyValues):
            columns.append(values.hash_rows())
        else:
            columns += list(values.flatten(1).numpy().T)
    if not columns:
        return np.zeros(len(several[0]), dtype=np.uint64)
    frame = pd.DataFrame(dict(enumerate(columns)))
    return pd.util.hash_pandas_object(frame, index=False).to_numpy() >> np.uint64(8 * (8 - BYTES))


def pack_hashes(hashes: np.ndarray) -> str:
    """Writes hashes as text."""
    raw = hashes.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - BYTES :]
    return base64.b64encode(raw.tobytes()).decode()


def unpack_hashes(text: str) -> np.ndarray:
    """Returns the hashes that :func:`pack_hashes` wrote down."""
    raw = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8).reshape(-1, BYTES)
    whole = np.zeros((len(raw), 8), dtype=np.uint8)
    whole[:, 8 - BYTES :] = raw
    return whole.view(">u8").ravel().astype(np.uint64)


class FileRecord(TypedDict):
    """The entry of a file in a schema."""

    given: str
    path: str
    bytes: Count
    sha256: str
    rows: Count
    columns: list[str]


class Description(TypedDict):
    """A task: its kind, and settings, which the kind itself checks."""

    kind: str


class TaskRecord(TypedDict):
    """The entry of a task in a schema: how its labels are read, and the task."""

    labels: Labels
    task: Description


class Schema(TypedDict):
    """The record that a run keeps of a table."""

    inputs: Annotated[list[dict[str, Any]], Such("at least one", bool)]
    tasks: Annotated[dict[str, TaskRecord], Such("with at least one task", bool)]
    dropped: dict[str, str]
    files: Annotated[
        dict[str, FileRecord],
        Such("with train", lambda files: "train" in files and files.keys() <= LETTERS.keys()),
    ]
    sides: Annotated[
        str, Such("a t, v or e for each row", lambda sides: set(sides) <= set(LETTERS.values()))
    ]
    hashes: str
    sensitive: NotRequired[SensitiveRecord]
    seal: str


def make_schema(table: Table) -> dict[str, Any]:
    """Returns how columns are read, and which rows are on which side, for later commands."""
    tasks = {}
    for name, labels in table.labels.items():
        tasks[name] = {"labels": labels.to_plain(), "task": table.tasks[name].describe()}
    schema = {
        "inputs": [to_plain(column) for column in table.columns],
        "tasks": tasks,
        "dropped": table.dropped,
        "files": table.table_files.records,
        "sides": pack_sides(table.rows),
        "hashes": pack_hashes(hash_rows(table.encode_inputs_of("train"))),
    }
    if table.groups_of_rows is not None:
        schema["sensitive"] = table.groups_of_rows.to_record()
    return add_seal(schema)


def make_fingerprint(table: Table) -> dict[str, Any]:
    """Returns the files of a table, the number of rows on each side, and the fold that tests."""
    found: dict[str, Any] = {
        "files": table.schema()["files"],
        "rows": {name: len(numbers) for name, numbers in table.rows.items()},
    }
    if table.folds is not None:
        found["fold"] = {"folds": table.folds, "fold": table.fold}
    return found


def add_seal(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Adds to a schema a hash of its content.

    The hash reveals a changed value, even if the new value is possible.
    """
    return {**schema, "seal": compute_seal(schema)}


def compute_seal(schema: Mapping[str, Any]) -> str:
    """Returns the hash of a schema, without the hash that it may hold."""
    # sorted keys: the order in which a file lists them does not count
    content = {key: value for key, value in schema.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class SchemasOfSources(TypedDict):
    """The schema.json of a run on several sources, as far as it is not theirs."""

    sources: dict[str, dict[str, Any]]


def list_sources(path: str) -> list[str]:
    """Returns the sources of a run on several, by its schema.json; none of a run on one.

    Raises:
        Damaged: The file is no JSON, or no schema of sources.
    """
    if "sources" not in read_json(path, dict[str, Any]):
        return []
    return list(read_json(path, SchemasOfSources)["sources"])


def read_schema(
    path: str, kinds: Sequence[type[Column]] = (Numeric, Categorical), of: str | None = None
) -> dict[str, Any]:
    """Reads the schema.json of a run on a table.

    Args:
        path: The file.
        kinds: The kinds of input columns that it may hold.
        of: The source whose schema is taken, of a run on several; None where there is one.

    Raises:
        Damaged: It is not as the run has written it. The message names the entry and what belongs
            there, if that can be told.
    """
    if of is None:
        saved: dict[str, Any] = read_json(path, Schema)
    else:
        saved = read_json(path, SchemasOfSources)["sources"].get(of, {})
        if (mismatch := find_mismatch(saved, Schema)) is not None:
            raise Damaged(path, f"sources.{of}: {mismatch}")
    wrong = find_contradiction(saved, kinds)
    if wrong is not None:
        raise Damaged(path, wrong)
    if saved["seal"] != compute_seal(saved):
        raise Damaged(
            path, "a value is not what the run has written; restore the file, or train anew"
        )
    return saved


def find_contradiction(saved: Mapping[str, Any], kinds: Sequence[type[Column]]) -> str | None:
    """Says which entries of a schema, whose types are right, contradict others; None if none do."""
    train = saved["files"]["train"]
    for number, column in enumerate(saved["inputs"]):
        if wrong := find_wrong_input(column, f"inputs[{number}]", train["columns"], kinds):
            return wrong
    for name, record in saved["tasks"].items():
        if wrong := find_wrong_task(record, f"tasks.{name}", train["columns"]):
            return wrong

    # a letter and a hash for each row of the first file
    if len(saved["sides"]) != train["rows"]:
        return f"sides has {len(saved['sides'])} letters, where files.train.rows is {train['rows']}"
    try:
        count = len(unpack_hashes(saved["hashes"]))
    except ValueError:
        return "hashes is no base64 text of whole hashes"
    if count != train["rows"]:
        return f"hashes has {count} rows, where files.train.rows is {train['rows']}"
    return None


def find_wrong_input(
    column: Mapping[str, Any], place: str, columns: list[str], kinds: Sequence[type[Column]]
) -> str | None:
    """Says what is wrong in the entry of an input column; None if nothing is."""
    names = {name_kind(kind): kind for kind in kinds}
    kind = names.get(str(column.get("kind")))
    if kind is None:
        wanted = " or ".join(map(repr, names))
        return f"{place}.kind is {column.get('kind')!r}, where {wanted} belongs"
    settings = {key: value for key, value in column.items() if key != "kind"}
    if wrong := find_mismatch(settings, kind, place):
        return wrong
    source = column.get("source", column["column"])
    if source not in columns:
        return f"{place} reads '{source}', which is none of files.train.columns"
    return None


def find_wrong_task(record: Mapping[str, Any], place: str, columns: list[str]) -> str | None:
    """Says what is wrong in the entry of a task; None if nothing is."""
    try:
        task_from_plain(record["task"])
    except (ValueError, KeyError) as error:
        return f"{place}.task {error}"
    for column in record["labels"]["columns"]:
        if column not in columns:
            return f"{place}.labels reads '{column}', which is none of files.train.columns"
    return None


def describe_difference(before: np.ndarray, now: np.ndarray) -> str:
    """Says how the rows of a file have changed, from the hashes of their inputs."""
    if len(before) == len(now) and (before == now).all():
        return "its inputs are the same, its labels or other columns are not"
    if len(before) == len(now) and (np.sort(before) == np.sort(now)).all():
        return "its rows are in another order"

    # rows in common, each counted as often as both have it
    old, counts = np.unique(before, return_counts=True)
    new, others = np.unique(now, return_counts=True)
    place = np.searchsorted(old, new).clip(max=len(old) - 1)
    shared = np.minimum(np.where(old[place] == new, counts[place], 0), others).sum()
    return (
        f"it has {len(now)} rows where it had {len(before)}: "
        f"{len(now) - shared} are new or changed, and {len(before) - shared} are gone"
    )
