"""The origins of a study's numbers: code, packages, systems and data of all its trials."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from src.analysis.marks import read_code, read_python
from src.analysis.results import StudyResults, TrialResults

Origins = list[tuple[str, list[str]]]


def list_origins(results: StudyResults) -> Origins:
    """Returns what trials were made from: (its name, the distinct values), in a fixed order."""
    found: dict[str, dict[str, None]] = {}
    for trial in results.trials.values():
        for name, value in read_origins(trial):
            found.setdefault(name, {})[value] = None
    return [(name, list(values)) for name, values in sorted(found.items(), key=order_origin)]


def order_origin(item: tuple[str, object]) -> tuple[int, str]:
    """Returns the place of an origin: code, data, system, then packages by their names."""
    first = ("code", "data", "Python", "system")
    name = item[0]
    return (first.index(name) if name in first else len(first), name)


def read_origins(trial: TrialResults) -> Iterator[tuple[str, str]]:
    """Gives what one trial was made from."""
    if code := read_code(trial):
        yield "code", code
    if python := read_python(trial):
        yield "Python", python
    if platform := trial.record.get("platform"):
        yield "system", str(platform)
    for package, version in (trial.record.get("versions") or {}).items():
        yield str(package), str(version)
    for file in find_data_files(trial.record.get("data")):
        yield "data", file


def find_data_files(data: object) -> Iterator[str]:
    """Gives the data files of a fingerprint, at any depth, with their hashes and rows."""
    if not isinstance(data, Mapping):
        return
    content: dict[str, Any] = dict(data)
    if not isinstance(content.get("sha256"), str):
        for value in content.values():
            yield from find_data_files(value)
        return
    name = PurePath(str(content.get("path") or content.get("given") or "a file")).name
    rows = f", {content['rows']} rows" if content.get("rows") is not None else ""
    yield f"{name}, SHA-256 {content['sha256'][:12]}{rows}"
