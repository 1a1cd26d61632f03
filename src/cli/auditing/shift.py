"""The audit of shift: how far the audited rows are from the training rows of a run."""

from collections.abc import Sequence
from dataclasses import asdict
from math import isnan

from rich.console import Console
from rich.table import Table

from src.analysis.shift.distances import Shift, compare_columns, find_beyond_chance
from src.analysis.shift.two_sample import TwoSampleTest, tell_apart
from src.analysis.shift.values import list_predictions, list_values, make_features
from src.batch import Batch
from src.cli.auditing.call import AuditCall
from src.cli.auditing.robustness_parts import describe_parts
from src.cli.flags import Flag
from src.cli.own_data import load_limited, open_own_data
from src.cli.terminal import remark
from src.data import MultiTaskDataModule, Split
from src.errors import UserError
from src.files.atomic import write_atomically
from src.files.typed import to_json
from src.models.padding import hide_padding

MOST_ROWS = 5000
SHOWN = 20  # columns that are printed
SHIFT: tuple[Flag, ...] = ()  # --rows is shared with the audit of robustness
NOTE = (
    "distance: Kolmogorov-Smirnov of numbers, total variation of categories, rare words taken "
    "together; *: chance alone explains it in less than 5 %, all columns of the table together"
)


def audit_shift(call: AuditCall) -> None:
    """Measures how far the audited rows are from the training rows, and predictions from others."""
    if call.run.model.meta is not None:
        remark("shift reads single rows, and this run learns from episodes: it is left out")
        return
    if call.split == "train" and not call.run.data.is_new:
        remark("shift compares rows with the training rows, and these are audited: it is left out")
        return
    own = open_own_data(call.run.member, "shift")
    # prediction reads no labels, which new rows may lack
    given: Split = "predict" if call.run.data.is_new else call.split
    limit = call.config["rows"]
    before = load_limited(own, "train", limit, MOST_ROWS)
    after = load_limited(call.run.data, given, limit, MOST_ROWS)

    parts = describe_parts(own)
    columns = compare_columns(list_values(parts, before.inputs), list_values(parts, after.inputs))
    test: TwoSampleTest | None = None
    try:
        features, categories = make_features(parts, before.inputs, after.inputs)
        seed = call.config["seed_everything"]
        test = tell_apart(features, categories, len(before), seed)
    except UserError as error:
        remark(str(error))
    other, predictions = compare_predictions(call, own, after, limit)

    print(f"shift of {len(after)} rows from {len(before)} training rows", flush=True)
    if test is not None:
        print(describe_test(test), flush=True)
    show_shifts("input", columns)
    if predictions:
        print(f"predictions, beside those of rows of the {other} split", flush=True)
        show_shifts("prediction", predictions)
    print(NOTE, flush=True)
    content = {
        "split": "new rows" if call.run.data.is_new else call.split,
        "rows": len(after),
        "training_rows": len(before),
        "two_sample_test": None if test is None else {**asdict(test), "alarms": test.alarms},
        "columns": describe_shifts(columns),
        "predictions": describe_shifts(predictions),
        "predictions_beside": other,
    }
    path = call.folder / "shift.json"
    write_atomically(path, lambda file: file.write(to_json(content)))


def compare_predictions(
    call: AuditCall, own: MultiTaskDataModule, after: Batch, limit: int | None
) -> tuple[Split, list[Shift]]:
    """Compares predictions with those of rows that the network was not trained on.

    A network is surer of its training rows than of others, which would look like a shift.

    Returns:
        The split of the other rows, and the shifts; none where there are no such rows.
    """
    other: Split = "test" if call.split == "val" and not call.run.data.is_new else "val"
    if not len(own.split(other)):
        remark(f"the run has no {other} rows whose predictions could be compared")
        return other, []
    rows = load_limited(own, other, limit, MOST_ROWS)
    predicted = [(call.run.predict(batch.inputs), batch.inputs) for batch in (rows, after)]
    outputs = [hide_padding(*one) for one in predicted]
    shifts: list[Shift] = []
    for name, task in call.run.tasks.items():
        ours, theirs = (list_predictions(name, task, one[name]) for one in outputs)
        shifts += compare_columns(ours, theirs)
    return other, sorted(shifts, key=lambda one: -one.distance)


def describe_test(test: TwoSampleTest) -> str:
    """Describes the result of the two-sample test in a line."""
    verdict = "the rows differ from those of training" if test.alarms else "no shift is found"
    return (
        f"two-sample test: a classifier tells them apart with AUC {test.auc:.3f} "
        f"({test.low:.3f} to {test.high:.3f}; 0.5: they are alike), p {test.p:.2g}: {verdict}"
    )


def show_shifts(title: str, shifts: Sequence[Shift]) -> None:
    """Prints a table of shifts, the largest first."""
    marked = {one.column for one in find_beyond_chance(shifts)}
    table = Table(box=None)
    table.add_column(title, no_wrap=True)
    for heading in ("distance", "std. means", "missing"):
        table.add_column(heading, justify="right")
    table.add_column("largest change")
    for one in shifts[:SHOWN]:
        mean = "" if isnan(one.mean_difference) else f"{one.mean_difference:+.2f}"
        missing = ""
        if one.is_share:
            missing = f"{one.missing_before:.3f} -> {one.missing_after:.3f}"
        words = one.words if not one.unseen else f"{one.words}; new words {one.unseen:.3f}"
        star = "*" if one.column in marked else " "
        table.add_row(one.column, f"{one.distance:.3f}{star}", mean, missing, words)
    if len(shifts) > SHOWN:
        table.add_row(f"and {len(shifts) - SHOWN} more")
    Console().print(table, crop=False)


def describe_shifts(shifts: Sequence[Shift]) -> list[dict[str, object]]:
    """Returns shifts as plain values, each with whether it is beyond chance."""
    marked = {id(one) for one in find_beyond_chance(shifts)}
    return [{**asdict(one), "beyond_chance": id(one) in marked} for one in shifts]
