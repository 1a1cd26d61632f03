"""What a run keeps of its data, so that no later command takes other rows for them.

A record holds for each file its place, its size and a hash of its content; for each row the side of the split that it is on, and a
short hash of its inputs. A file is the run's if its content is.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

LETTERS = {"train": "t", "val": "v", "test": "e"}
BYTES = 6  # of a row's hash: two unlike rows of a million share theirs once in 280 times


def fingerprint(path: str | Path) -> dict[str, Any]:
    """Returns the place, size and content hash of a file."""
    place = Path(path)
    with place.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"path": str(place.resolve()), "bytes": place.stat().st_size, "sha256": digest.hexdigest()}


def is_same(path: str | Path, record: Mapping[str, Any]) -> bool:
    """Whether a file is there and has the content of a record."""
    place = Path(path)
    if not place.is_file() or place.stat().st_size != record["bytes"]:
        return False
    return bool(fingerprint(place)["sha256"] == record["sha256"])


def letters(rows: Mapping[str, np.ndarray]) -> str:
    """Writes down which side each row is on, a letter a row: t trains, v validates, e tests."""
    side = np.full(sum(map(len, rows.values())), "?")
    for name, numbers in rows.items():
        side[numbers] = LETTERS[name]
    return "".join(side)


def rows_of(text: str) -> dict[str, np.ndarray]:
    """Returns the rows of each side that :func:`letters` wrote down."""
    side = np.array(list(text))
    return {name: np.flatnonzero(side == letter) for name, letter in LETTERS.items()}


def row_hashes(inputs: Mapping[str, Tensor]) -> np.ndarray:
    """Returns a hash of the inputs of each row as a network reads them: (N,) uint64."""
    import pandas as pd

    arrays = [values.numpy() for values in inputs.values()]
    columns = [column for array in arrays for column in array.T]
    if not columns:
        return np.zeros(len(arrays[0]), dtype=np.uint64)
    frame = pd.DataFrame(dict(enumerate(columns)))
    return pd.util.hash_pandas_object(frame, index=False).to_numpy() >> np.uint64(8 * (8 - BYTES))


def packed(hashes: np.ndarray) -> str:
    """Writes hashes down as text."""
    raw = hashes.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - BYTES :]
    return base64.b64encode(raw.tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """Returns the hashes that :func:`packed` wrote down."""
    raw = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(-1, BYTES)
    whole = np.zeros((len(raw), 8), dtype=np.uint8)
    whole[:, 8 - BYTES :] = raw
    return whole.view(">u8").ravel().astype(np.uint64)


def read_schema(path: str) -> dict[str, Any]:
    """Reads the schema.json of a run on a table.

    Raises:
        ValueError: It is damaged.
    """
    try:
        saved = json.loads(Path(path).read_text())
        complete = {"inputs", "tasks", "files", "sides", "hashes"} <= saved.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not complete:
        raise ValueError(f"{path} is damaged: it does not say what the run's data were")
    return saved


def difference(before: np.ndarray, now: np.ndarray) -> str:
    """Says how the rows of a file have changed, from the hashes of their inputs."""
    if len(before) == len(now) and (before == now).all():
        return "its inputs are the same, its labels or other columns are not"
    if len(before) == len(now) and (np.sort(before) == np.sort(now)).all():
        return "its rows stand in another order"
    old, counts = np.unique(before, return_counts=True)
    new, others = np.unique(now, return_counts=True)
    place = np.searchsorted(old, new).clip(max=len(old) - 1)
    shared = np.minimum(np.where(old[place] == new, counts[place], 0), others).sum()
    return (
        f"it has {len(now)} rows where it had {len(before)}, of which {len(now) - shared} are new or changed and "
        f"{len(before) - shared} are gone"
    )
