"""The data that a run was trained on, also where a command has opened it on new rows."""

from src.batch import Batch
from src.cli.app import CLI
from src.cli.loaded_run import LoadedRun, load_rows
from src.cli.members import Member
from src.cli.runs import read_settings
from src.data import MultiTaskDataModule, Split
from src.errors import UserError

MOST_NUMBERS = 20_000_000  # that rows in memory have together, where nobody has set --rows


def open_own_data(member: Member, purpose: str) -> MultiTaskDataModule:
    """Returns the data of a run, with its training rows.

    Args:
        member: The run, as a command has opened it.
        purpose: What needs them, for messages.

    Raises:
        UserError: They are not where they were.
    """
    data: MultiTaskDataModule = member.cli.datamodule
    if not data.is_new:
        return data
    try:
        own: MultiTaskDataModule = open_apart(member).cli.datamodule
        own.check_files()
        len(own.split("train"))
    except (UserError, OSError) as error:
        raise UserError(f"{purpose} needs the rows that the run was trained on: {error}") from None
    return own


def open_apart(member: Member) -> Member:
    """Opens a run once more, on the CPU and on the rows that it was trained on."""
    trust = member.cli.config["trust"]
    packages = [name.strip() for name in trust.split(",")] if trust else []
    words = "--accelerator cpu --trainer.logger false --trainer.enable_checkpointing false"
    cli = CLI(words.split(), read_settings(member.run, packages))
    return Member(member.run, member.checkpoint, cli)


def load_limited(data: MultiTaskDataModule, split: Split, limit: int | None, most: int) -> Batch:
    """Returns rows of a split, as many as fit well into memory.

    Args:
        data: The data.
        split: The split.
        limit: Most rows, as the user has set it; None for as many as suit.
        most: Most rows where the user has set nothing.

    Raises:
        UserError: There are none.
    """
    if limit is None:
        limit = min(most, max(1, MOST_NUMBERS // count_numbers(load_rows(data, split, 1))))
    return load_rows(data, split, limit)


def count_numbers(row: Batch) -> int:
    """Returns how many numbers a row has, of inputs and labels."""
    inputs = row.inputs if isinstance(row.inputs, dict) else {"": row.inputs}
    tensors = [*inputs.values(), *row.targets.values()]
    return sum(tensor.numel() for tensor in tensors)


def find_label_problem(run: LoadedRun, split: Split) -> str | None:
    """Says why the rows of a split have no labels, as new rows may have none; None if they do."""
    if not run.data.is_new:
        return None
    try:
        load_rows(run.data, split, 1)
    except UserError as error:
        return str(error)
    return None
