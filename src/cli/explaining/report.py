"""Explanations as people read them: tables on a terminal, files, TensorBoard, and a page."""

import io
from collections.abc import Mapping
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from src.analysis.explanations.page import render_explanation
from src.analysis.explanations.pictures import draw_task, to_png
from src.analysis.explanations.results import (
    Explanation,
    OutputExplanation,
    TaskExplanation,
    to_record,
)
from src.analysis.explanations.summary import summarise_words
from src.cli.prediction import quote_formulas
from src.files.atomic import write_atomically
from src.files.typed import to_json

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 20  # columns or words that are printed for each output
RECORD, PAGE = "explain.json", "explain.html"
SUFFIX = ".explain"  # of the event file for TensorBoard


def show(found: Explanation) -> None:
    """Prints the columns, or the words, of each output, and the checks."""
    console = Console()
    print(f"{found.method} on {found.rows}; baseline: {found.baseline}", flush=True)
    words = summarise_texts(found)
    for task in found.tasks:
        for own in task.outputs:
            title = f"{own.output.title}: {own.output.meaning}"
            print(f"{title} ({own.output.unit})" if own.output.unit else title, flush=True)
            if found.has_table:
                console.print(tabulate_columns(own), crop=False)
            if own.output.title in words:
                console.print(tabulate_words(words[own.output.title]), crop=False)
    if len(found.tasks) > 1 and found.has_table:
        print("share of each input in an output's attributions, %", flush=True)
        console.print(tabulate_shares(found), crop=False)
    console.print(tabulate_checks(found), crop=False)
    print(
        "gap: how far attributions are from adding up, of the mean difference from the baseline; "
        "area: how much faster the score falls without the largest attributions than in random "
        "order",
        flush=True,
    )


def tabulate_columns(own: OutputExplanation) -> Table:
    """Returns the most important columns of an output, with their intervals."""
    table = Table("input", box=None)
    for heading in ("mean |a|", "95 %", "mean a", "95 %", "with value"):
        table.add_column(heading, justify="right")
    for one in own.columns[:SHOWN]:
        follows = one["with_value"]
        table.add_row(
            one["column"],
            f"{one['mean_abs']:.4g}",
            f"{one['low']:.4g} to {one['high']:.4g}",
            f"{one['mean']:+.4g}",
            f"{one['mean_low']:+.4g} to {one['mean_high']:+.4g}",
            "" if follows is None else f"{follows:+.2f}",
        )
    if len(own.columns) > SHOWN:
        table.add_row(f"and {len(own.columns) - SHOWN} more")
    return table


def tabulate_words(words: "DataFrame") -> Table:
    """Returns the words with the largest mean |attribution|."""
    table = Table("word", box=None)
    for heading in ("times", "mean |a|", "mean a"):
        table.add_column(heading, justify="right")
    for word, times, size, mean in words.head(SHOWN).itertuples(index=False):
        table.add_row(str(word), str(times), f"{size:.4g}", f"{mean:+.4g}")
    return table


def tabulate_shares(found: Explanation) -> Table:
    """Returns tasks beside each other: the part of each input in an output's attributions."""
    outputs = [own for task in found.tasks for own in task.outputs]
    table = Table("input", box=None)
    for own in outputs:
        table.add_column(own.output.title, justify="right")
    by_output = [{one["column"]: one for one in own.columns} for own in outputs]
    order = sorted(
        found.features.columns, key=lambda name: -max(own[name]["share"] for own in by_output)
    )
    for name in order[:SHOWN]:
        cells = []
        for columns in by_output:
            one = columns[name]
            sign = "+" if one["mean"] >= 0 else "-"
            cells.append(f"{100 * one['share']:.1f} {sign}")
        table.add_row(name, *cells)
    return table


def tabulate_checks(found: Explanation) -> Table:
    """Returns completeness of each output, and the area between the deletion curves."""
    table = Table("output", box=None)
    for heading in ("mean", "at baseline", "mean gap", "largest gap", "area", "95 %"):
        table.add_column(heading, justify="right")
    for task in found.tasks:
        for place, own in enumerate(task.outputs):
            check, deletion = own.completeness, task.deletion
            cells = [f"{float(own.at_rows.mean()):.4g}", f"{float(own.at_baseline.mean()):.4g}"]
            gaps = (check.mean, check.largest) if check else None
            cells += [f"{100 * gap:.3g} %" for gap in gaps] if gaps else ["-", "-"]
            if deletion is not None and not place:
                interval = f"{deletion.low:.4f} to {deletion.high:.4f}"
                cells += [f"{deletion.area:.4f}", interval]
            table.add_row(own.output.title, *cells)
    return table


def write(found: Explanation, folder: Path, run: Path) -> list[Path]:
    """Writes rows, summaries, pictures, the page, and a page for TensorBoard.

    Args:
        found: The explanation.
        folder: Where files go.
        run: The run folder, which TensorBoard reads.

    Returns:
        The files that people open.
    """
    pictures: dict[str, bytes] = {}
    for task in found.tasks:
        stem = name_file(task.task)
        pictures[task.task] = to_png(draw_task(found, task))
        put(folder / f"{stem}.png", pictures[task.task])
        text = tabulate_rows(found, task).to_csv(index=False)
        put(folder / f"{stem}.csv", text.encode())
        for column, pixels in found.pixels.items():
            maps = torch.stack([own.attributions[:, pixels] for own in task.outputs], 1)
            write_array(folder / f"{stem}.{name_file(column)}.npy", maps.float().numpy())
    put(folder / RECORD, to_json(to_record(found)))
    page = folder / PAGE
    put(page, render_explanation(found, pictures, summarise_texts(found)).encode())
    add_to_board(run, {f"explain/{name}": png for name, png in pictures.items()})
    return [page, folder / RECORD]


def put(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    write_atomically(path, methodcaller("write", content))


def write_array(path: Path, values: "np.ndarray") -> None:
    """Writes heat maps (N, outputs, H, W)."""
    write_atomically(path, lambda file: np.save(file, values))


def name_file(name: str) -> str:
    """Returns the name of a task or column as that of a file."""
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in name)


def tabulate_rows(found: Explanation, task: TaskExplanation) -> "DataFrame":
    """Returns the attributions of rows.

    Of a table a line for each row and output, with a column for each input and its value in words
    beside it; of a text a line for each token; of images a line with the sum.
    """
    from pandas import DataFrame, concat

    frames = []
    for own in task.outputs:
        frame = DataFrame(
            {
                "id": found.ids,
                "output": own.output.name or task.task,
                "predicted": task.predictions,
                "label": task.labels,
                "value": own.at_rows.double().tolist(),
                "baseline": own.at_baseline.double().tolist(),
            }
        )
        if found.words and not found.has_table:
            frames.append(spread_tokens(found, own, frame))
            continue
        sums = found.features.sum_by_column(own.attributions.double())
        names = found.features.columns if found.has_table else ("sum",)
        more: dict[str, Any] = {}
        for place, name in enumerate(names):
            more[f"attribution.{name}"] = sums[:, place].tolist()
            if name in found.values:
                more[f"input.{name}"] = found.values[name]
        frames.append(concat([frame, DataFrame(more)], axis=1))
    return quote_formulas(concat(frames, ignore_index=True))


def spread_tokens(found: Explanation, own: OutputExplanation, frame: "DataFrame") -> "DataFrame":
    """Returns a line for each token of each row."""
    from pandas import DataFrame

    ((column, words),) = found.words.items()
    weights = own.attributions[:, found.tokens[column]].double()
    lines = []
    for row, own_words in enumerate(words):
        for place, word in enumerate(own_words):
            if word is not None:
                lines.append((row, place + 1, word, float(weights[row, place])))
    tokens = DataFrame(lines, columns=["row", "position", "token", "attribution"])
    joined = tokens.merge(frame, left_on="row", right_index=True).drop(columns="row")
    return joined[[*frame.columns, "position", "token", "attribution"]]


def summarise_texts(found: Explanation) -> "dict[str, DataFrame]":
    """Returns {title of an output: its words, the most important first}."""
    summaries = {}
    for task in found.tasks:
        for own in task.outputs:
            words: list[list[str | None]] = [[] for _ in found.ids]
            places = []
            for column, rows in found.words.items():
                places.append(found.tokens[column])
                words = [[*before, *row] for before, row in zip(words, rows, strict=True)]
            if places:
                weights = own.attributions[:, torch.cat(places)]
                summaries[own.output.title] = summarise_words(words, weights)
    return summaries


def add_to_board(run: Path, pictures: Mapping[str, bytes]) -> None:
    """Adds pictures to the run's pages in TensorBoard, in place of those of an earlier call.

    Args:
        run: The run folder.
        pictures: {tag: a PNG file}.
    """
    from PIL import Image
    from torch.utils.tensorboard.writer import SummaryWriter

    suffix = f"{SUFFIX}-{next(iter(pictures)).partition('/')[0]}"
    for earlier in run.glob(f"events.*{suffix}"):
        earlier.unlink()
    with SummaryWriter(str(run), filename_suffix=suffix) as writer:
        for tag, png in pictures.items():
            pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
            writer.add_image(tag, pixels, dataformats="HWC")
