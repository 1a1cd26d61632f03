"""The record that a run keeps of a treebank, so that later commands read sentences as it did."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from src.data.kinds import task_from_plain
from src.data.tables.record import Description, add_seal, compute_seal, fingerprint_file, is_same
from src.errors import UserError
from src.files.typed import Count, Damaged, read_json

if TYPE_CHECKING:
    from src.data.treebanks.sections import TreebankSections
    from src.data.treebanks.treebank import Treebank


class TreebankFile(TypedDict):
    """The entry of a file in a schema."""

    path: str
    bytes: Count
    sha256: str


class TreebankSchema(TypedDict):
    """The record that a run keeps of a treebank."""

    words: list[str]
    lower: bool
    characters: str
    max_characters: Count
    tasks: dict[str, Description]
    targets: dict[str, str]
    files: dict[str, TreebankFile]
    seal: str


def make_schema(treebank: "Treebank") -> dict[str, Any]:
    """Returns the vocabularies, the tasks with their classes, and the files with their hashes."""
    files: dict[str, Any] = {}
    for paths in treebank.text.paths.values():
        files |= {path.name: fingerprint_file(path) for path in paths}
    return add_seal(
        {
            "words": treebank.words.words,
            "lower": treebank.lower,
            "characters": treebank.characters.characters,
            "max_characters": treebank.max_characters,
            "tasks": {name: task.describe() for name, task in treebank.tasks.items()},
            "targets": treebank.targets_of_tasks,
            "files": files,
        }
    )


def read_schema(path: str) -> dict[str, Any]:
    """Reads the schema.json of a run on a treebank.

    Raises:
        Damaged: It is not as the run has written it.
    """
    saved: dict[str, Any] = read_json(path, TreebankSchema)
    if saved["seal"] != compute_seal(saved):
        raise Damaged(
            path, "a value is not what the run has written; restore the file, or train anew"
        )
    for name, task in saved["tasks"].items():
        try:
            task_from_plain(task)
        except (ValueError, KeyError) as error:
            raise Damaged(path, f"tasks.{name} {error}") from None
    if saved["targets"].keys() != saved["tasks"].keys():
        raise Damaged(path, "targets and tasks name different tasks")
    return saved


def find_changed(text: "TreebankSections", files: dict[str, TreebankFile], all_there: bool) -> None:
    """Compares the files of a treebank and of its entities with the record of a run.

    Args:
        text: The treebank.
        files: The record.
        all_there: Whether each file must exist.

    Raises:
        UserError: One has another content, or is missing although it must exist.
    """
    folders = [folder for folder in (text.root, text.entities) if folder is not None]
    for name, record in files.items():
        paths = [path for folder in folders if (path := Path(folder) / name).is_file()]
        if paths and not any(is_same(path, record) for path in paths):
            raise UserError(
                f"{paths[0]}: is not the file that the run was trained with; restore it, or name "
                "new sentences by --data.path"
            )
        if not paths and all_there:
            raise UserError(f"{text.root}: {name} is missing, which the run was trained with")
