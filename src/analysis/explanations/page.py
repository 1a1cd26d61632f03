"""The pages of explanations: one HTML file each that opens offline, with pictures in it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from src.analysis.explanations.results import Explanation, OutputExplanation, TaskExplanation

if TYPE_CHECKING:
    from pandas import DataFrame

HERE = Path(__file__).parent
MOST_COLUMNS = 30  # in a table
MOST_ROWS = 6  # that are explained one by one
MOST_PARTS = 8  # of the explanation of one row
MOST_WORDS = 20
STRONGEST = 0.75  # opacity of the largest weight


@dataclass(frozen=True)
class Token:
    """A token as a page shows it.

    Attributes:
        word: The token.
        weight: Its attribution.
        colour: The colour behind it.
    """

    word: str
    weight: float
    colour: str


def render_explanation(
    found: Explanation, pictures: Mapping[str, bytes], words: "Mapping[str, DataFrame]"
) -> str:
    """Returns the page of an explanation.

    Args:
        found: What it shows.
        pictures: {task: a PNG file}.
        words: {title of an output: its words, the most important first}.
    """
    tasks = []
    for task in found.tasks:
        outputs = [describe_output(found, task, own, words) for own in task.outputs]
        tasks.append({"task": task, "picture": embed_png(pictures[task.task]), "outputs": outputs})
    return render("explain.html", found=found, tasks=tasks, most=MOST_COLUMNS)


def describe_output(
    found: Explanation,
    task: TaskExplanation,
    own: OutputExplanation,
    words: "Mapping[str, DataFrame]",
) -> dict[str, Any]:
    """Returns what a page shows of one output."""
    largest = max((one["mean_abs"] for one in own.columns), default=0.0) or 1.0
    shown = own.columns if found.has_table else []
    frame = words.get(own.output.title)
    return {
        "own": own,
        "columns": [(one, 100 * one["mean_abs"] / largest) for one in shown[:MOST_COLUMNS]],
        "hidden": max(0, len(shown) - MOST_COLUMNS),
        "rows": [describe_row(found, task, own, row) for row in pick_rows(own)],
        "words": [] if frame is None else frame.head(MOST_WORDS).to_dict("records"),
    }


def pick_rows(own: OutputExplanation) -> list[int]:
    """Returns rows from the largest to the smallest number, evenly over the order of all rows."""
    order = own.at_rows.argsort(descending=True).tolist()
    count = min(MOST_ROWS, len(order))
    if count < 2:
        return order
    return [order[round(k * (len(order) - 1) / (count - 1))] for k in range(count)]


def describe_row(
    found: Explanation, task: TaskExplanation, own: OutputExplanation, row: int
) -> dict[str, Any]:
    """Returns what a page shows of the explanation of one row."""
    by_column = found.features.sum_by_column(own.attributions[row : row + 1])[0]
    order = by_column.abs().argsort(descending=True).tolist()[:MOST_PARTS]
    parts = []
    # a column that is as at the baseline has no part
    order = [place for place in order if float(by_column[place])]
    for place in order if found.has_table else []:
        column = found.features.columns[place]
        value = found.values[column][row] if column in found.values else ""
        parts.append((column, "missing" if value is None else value, float(by_column[place])))
    texts = {
        column: colour_tokens(words[row], own.attributions[row][found.tokens[column]])
        for column, words in found.words.items()
    }
    return {
        "id": found.ids[row],
        "prediction": task.predictions[row],
        "label": task.labels[row],
        "value": float(own.at_rows[row]),
        "baseline": float(own.at_baseline[row]),
        "parts": parts,
        "texts": texts,
    }


def colour_tokens(words: Sequence[str | None], weights: Tensor) -> list[Token]:
    """Returns tokens with their colours: blue raises the output, red lowers it."""
    largest = float(weights.abs().max()) or 1.0
    tokens = []
    for word, weight in zip(words, weights.tolist(), strict=True):
        if word is None:
            continue
        strength = STRONGEST * abs(weight) / largest
        red, green, blue = (11, 98, 164) if weight >= 0 else (180, 68, 26)
        tokens.append(Token(word, weight, f"rgba({red},{green},{blue},{strength:.3f})"))
    return tokens


def render_sharing(
    run: str, lines: Sequence[str], pictures: Sequence[tuple[str, str, bytes]]
) -> str:
    """Returns the page of how tasks share.

    Args:
        run: The run folder's name.
        lines: What a person should know, one sentence each.
        pictures: Title, caption and PNG file of each figure.
    """
    figures = [(title, caption, embed_png(png)) for title, caption, png in pictures]
    return render("sharing.html", run=run, lines=lines, figures=figures)


def render(template: str, **values: object) -> str:
    """Returns a page; what users have named is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # the style of the report of a study
    style = Markup((HERE.parent / "page.css").read_text() + (HERE / "explain.css").read_text())
    return environment.get_template(template).render(style=style, **values)


def embed_png(content: bytes) -> Markup:
    """Returns a PNG file as an address that holds it."""
    return Markup(f"data:image/png;base64,{base64.b64encode(content).decode()}")
