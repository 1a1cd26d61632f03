"""The end of a training that has chosen inputs: a table, and a configuration without the rest."""

from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.table import Table

from src.cli.app import CLI
from src.files.atomic import write_atomically
from src.files.yaml12 import dump, load
from src.monitoring import say
from src.run import Run

if TYPE_CHECKING:
    from pandas import DataFrame

TABLE = "selection.csv"
CONFIG = "selected.yaml"
SHOWN = 40  # columns that are printed


@rank_zero_only
def report_selection(cli: CLI, run: Run | None) -> None:
    """Prints and saves how open each input was for each task when the training ended.

    Where the data have a setting for their input columns, the run folder gets a configuration that
    trains anew on the columns that are open for some task, without a selection.

    Args:
        cli: Data, model and trainer, after training.
        run: The run folder; None for a run that keeps nothing.
    """
    selection = cli.model.selection
    if selection is None or selection.at_end is None:
        return
    table, chosen = selection.at_end
    names = [column.name for column in selection.columns]
    kept = [name for name in names if any(name in own for own in chosen.values())]
    say(f"inputs by {selection.measure}, at the end of training")
    Console().print(tabulate(table, chosen), crop=False)
    if run is None:
        return

    path = run.path / TABLE
    write_atomically(path, lambda file: file.write(table.to_csv(index_label="task").encode()))
    settings = make_config(cli, kept) if kept else None
    if not kept:
        say(f"no input is open for any task: lower model.select.strength; the table is in {path}")
    elif settings is None:
        say(f"{len(kept)} of {len(names)} inputs are open for some task; the table is in {path}")
    else:
        config = run.path / CONFIG
        write_atomically(config, lambda file: file.write(settings.encode()))
        say(
            f"{len(kept)} of {len(names)} inputs are open for some task; train on them alone: "
            f"python -m src.train --config {config}"
        )


def tabulate(table: "DataFrame", chosen: dict[str, list[str]]) -> Table:
    """Returns a table of inputs (rows) and tasks, the most open first; closed ones are grey."""
    shown = Table("input", box=None)
    for task in table.index:
        shown.add_column(str(task), justify="right")
    ordered = table.max(axis=0).sort_values(ascending=False, kind="stable").index
    for name in ordered[:SHOWN]:
        cells = []
        for task in table.index:
            value = f"{table.loc[task, name]:.3f}"
            cells.append(value if name in chosen[task] else f"[dim]({value})[/dim]")
        shown.add_row(str(name), *cells)
    if len(ordered) > SHOWN:
        shown.add_row(f"and {len(ordered) - SHOWN} more")
    return shown


def make_config(cli: CLI, columns: list[str]) -> str | None:
    """Returns the run's configuration with these input columns and no selection.

    It is None where the data have no setting for their columns.
    """
    config: dict[str, Any] = load(cli.yaml)
    settings = config["data"].get("init_args") or {}
    if "inputs" not in settings or not cli.model.input_shape.columns:
        return None
    settings["inputs"] = columns
    config["model"]["select"] = None
    head = "# the run's configuration, on the inputs that its selection has left open\n"
    return head + dump(config)
