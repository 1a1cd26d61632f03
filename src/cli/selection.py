"""The importance of a run's inputs: the work of ``python -m src.select``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

from src.analysis.charts.importance import draw_importance
from src.analysis.importance import (
    Importance,
    sort_importance,
    summarise_drops,
    tabulate_importance,
)
from src.batch import Batch
from src.cli.flags import Flag
from src.cli.loaded_run import Inputs, LoadedRun, open_one_run
from src.cli.output import check_output
from src.cli.progress_bar import show_progress
from src.cli.selection_rows import (
    draw_samples,
    find_columns,
    permute_column,
    read_constants,
)
from src.cli.selection_scores import Scores
from src.cli.terminal import remark
from src.data import Split
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.models import MultiTaskModel
from src.models.feature_selection import InputColumn

OWN = (
    Flag("split", str, "val", "train, val or test: the rows that are scored."),
    Flag("repeats", int, 20, "Permutations of each column, and draws of the rows."),
    Flag("method", str, "both", "permutation, constant, or both."),
    Flag("out", str | None, None, "A .csv or .json file; a .png or .pdf one for a picture."),
    Flag("overwrite", bool, False, "Replace the file that --out names."),
)
METHODS = ("permutation", "constant")
SHOWN = 30  # columns that are printed for each task
HEADINGS = {"permutation": "permuted", "constant": "constant"}
NOTE = (
    "permuted: the values of the column are dealt out to other rows; constant: each row has the "
    "mean of the training rows, or their commonest word. Columns that tell the same share their "
    "importance: each may look unimportant, since the model has the other"
)


def select_inputs(args: list[str]) -> list[Importance]:
    """Measures how much each task's score falls without each column, and prints it.

    Args:
        args: The command line after the command.

    Returns:
        The importances, the most important column of a task first.

    Raises:
        UserError: A setting is wrong, or the run's data have no columns.
    """
    member = open_one_run(args, OWN, "src.select")
    cli = member.cli
    config = cli.config
    split, repeats, method = config["split"], config["repeats"], config["method"]
    if split not in ("train", "val", "test"):
        raise UserError(f"--split is '{split}'; it must be train, val or test")
    if repeats < 2:
        raise UserError(f"--repeats is {repeats}; an interval needs at least 2")
    if method not in (*METHODS, "both"):
        raise UserError(f"--method is '{method}'; it must be permutation, constant or both")
    endings = [".csv", ".json", ".png", ".pdf"]
    out = check_output(config["out"], endings, [member]) if config["out"] else None
    columns = find_columns(cli.datamodule.input_shape)

    data = cli.datamodule
    described = data.describe(cast(Split, split))
    run = LoadedRun(member)
    rows = run.load_rows(cast(Split, split))
    training = run.load_rows("train") if method != "permutation" else None
    measured = Measuring(run, rows, columns, repeats, config["seed_everything"])
    found = measured.measure(METHODS if method == "both" else (method,), training)
    for line in data.remarks:
        remark(line)
    print(described, flush=True)
    show(found, cli.model, out)
    return found


class Measuring:
    """Scores a run on rows in which one column after the other tells nothing.

    Args:
        run: The run.
        rows: The rows that are scored.
        columns: The columns.
        repeats: The number of permutations, and of draws of the rows.
        seed: Seed of both.
    """

    def __init__(
        self, run: LoadedRun, rows: Batch, columns: Sequence[InputColumn], repeats: int, seed: int
    ) -> None:
        self.run = run
        self.rows = rows
        self.columns = columns
        self.repeats = repeats
        self.seed = seed
        self.samples = draw_samples(seed, len(rows), repeats)

    def measure(self, methods: Sequence[str], training: Batch | None) -> list[Importance]:
        """Returns the importance of each column, for each task and method.

        Args:
            methods: permutation, constant, or both.
            training: The training rows, which constants are taken from.
        """
        plain = self._score(iter([self.rows.inputs]))
        found = []
        with show_progress("columns", len(self.columns) * len(methods)) as advance:
            for column in self.columns:
                for method in methods:
                    changed = self._change(column, method, training)
                    if changed is not None:
                        found += self._compare(column, method, plain, self._score(changed))
                    advance()
        return sort_importance(found)

    def _score(self, changed: Iterator[Inputs]) -> Scores:
        """Scores changed rows, whole and on draws of them."""
        return Scores(self.run.predict, self.run.tasks, self.rows, self.samples, changed)

    def _change(
        self, column: InputColumn, method: str, training: Batch | None
    ) -> Iterator[Inputs] | None:
        """Returns rows in which a column tells nothing; None where there is no such constant."""
        if method == "permutation":
            return permute_column(self.rows.inputs, column, self.seed, self.repeats)
        assert training is not None
        constants = read_constants(training.inputs, column)
        return None if constants is None else iter([constants.put_into(self.rows.inputs)])

    def _compare(
        self, column: InputColumn, method: str, plain: Scores, other: Scores
    ) -> list[Importance]:
        """Returns the importance of a column for each task."""
        found = []
        for task in self.run.tasks:
            score = plain.whole[task][0]
            whole = [score - value for value in other.whole[task]]
            pairs = zip(plain.resampled[task], other.resampled[task], strict=True)
            drop, low, high = summarise_drops(whole, [a - b for a, b in pairs])
            found.append(Importance(task, column.name, method, score, drop, low, high))
        return found


def show(found: Sequence[Importance], model: MultiTaskModel, out: Path | None) -> None:
    """Prints the importances, and writes them to a file.

    Args:
        found: The importances.
        model: The model, whose tasks say what a score is.
        out: A .csv or .json file for numbers, a .png or .pdf one for a picture; None for none.
    """
    console = Console()
    for name, task in model.tasks.items():
        of_task = [one for one in found if one.task == name]
        score = of_task[0].score
        title = f"{name}: fall of {task.describe_score()}, which is {score:.4f}"
        methods = list(dict.fromkeys(one.method for one in of_task))
        # a title of the table would be as narrow as the table
        print(title, flush=True)
        table = Table("input", box=None)
        for method in methods:
            table.add_column(HEADINGS[method], justify="right")
            table.add_column("95 %", justify="right")
        columns = list(dict.fromkeys(one.column for one in of_task if one.method == methods[0]))
        columns += [one.column for one in of_task if one.column not in columns]
        by_key = {(one.column, one.method): one for one in of_task}
        for column in columns[:SHOWN]:
            cells: list[str] = []
            for method in methods:
                one = by_key.get((column, method))
                if one is None:
                    cells += ["-", ""]
                else:
                    cells += [f"{one.drop:.4f}", f"{one.low:.4f} to {one.high:.4f}"]
            table.add_row(column, *cells)
        if len(columns) > SHOWN:
            table.add_row(f"and {len(columns) - SHOWN} more")
        console.print(table, crop=False)
    print(NOTE, flush=True)
    if out is not None:
        write_results(found, out)


def write_results(found: Sequence[Importance], out: Path) -> None:
    """Writes importances as numbers or as a picture, by the ending of the file's name."""
    if out.suffix in (".png", ".pdf"):
        figure = draw_importance(found)
        kind = out.suffix[1:]
        write_atomically(out, lambda file: figure.savefig(file, format=kind, dpi=150))
    elif out.suffix == ".json":
        rows = [vars(one) for one in found]
        write_atomically(out, lambda file: file.write(to_json({"importance": rows})))
    else:
        text = tabulate_importance(found).to_csv(index=False)
        write_atomically(out, lambda file: file.write(text.encode()))
