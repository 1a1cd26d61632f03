"""The work of ``python -m src.explain``: attributions of a run's tasks, with their checks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.analysis.explanations.checks import (
    Deletion,
    measure_completeness,
    measure_deletion,
)
from src.analysis.explanations.methods import (
    COMPLETE,
    PERMUTATIONS,
    Explained,
    Method,
    attribute,
    import_captum,
)
from src.analysis.explanations.outputs import ExplainedOutput, list_outputs
from src.analysis.explanations.path import Features, InputPath, Inputs
from src.analysis.explanations.results import (
    Explanation,
    OutputExplanation,
    TaskExplanation,
)
from src.analysis.explanations.summary import summarise_columns
from src.batch import Batch, InputShape
from src.cli.explaining.call import OWN, ExplainCall, check_settings
from src.cli.explaining.layout import (
    describe_baseline,
    list_features,
    make_baseline,
    read_numbers,
    take_baselines,
)
from src.cli.explaining.report import show, write
from src.cli.explaining.sharing import explain_sharing
from src.cli.explaining.words import (
    name_rows,
    read_labels,
    read_predictions,
    read_values,
    spell_tokens,
)
from src.cli.loaded_run import LoadedRun, open_one_run
from src.cli.progress_bar import show_progress
from src.cli.selection_rows import as_dict, draw_samples
from src.cli.selection_scores import score_rows
from src.cli.terminal import remark
from src.errors import UserError, suggest_or_list
from src.models import MultiTaskModel
from src.tasks import Task, is_labelled

DRAWS = 20  # of the rows, for intervals
DRAWN = 200  # training rows that GradientShap draws baselines from
DRAWN_FOR_TEXTS = 20
MOST_IMAGES = 2000  # training images that make a mean


def explain_run(args: list[str]) -> None:
    """Explains a run, and prints and writes what it finds.

    Args:
        args: The command line after the command.

    Raises:
        UserError: A setting is wrong, or what the run does has no attributions.
    """
    member = open_one_run(args, OWN, "src.explain")
    config = member.cli.config
    call = check_settings(config)
    folder = Path(config["out"] or member.run.path / "explain")
    run = LoadedRun(member)
    if run.model.meta is not None:
        raise UserError(
            "src.explain explains predictions of rows alone; this run predicts the rows of an "
            "episode from its other rows"
        )
    if config["sharing"]:
        explain_sharing(run, call.split, call.rows, folder)
        return
    import_captum()
    found = Explaining(run, call).explain()
    for line in run.data.remarks:
        remark(line)
    show(found)
    folder.mkdir(parents=True, exist_ok=True)
    written = write(found, folder, run.run.path)
    print(f"results: {', '.join(str(path) for path in written)}", flush=True)


class Explaining:
    """Explains the tasks of a run on some of its rows.

    Args:
        run: The run.
        call: What is asked for.
    """

    def __init__(self, run: LoadedRun, call: ExplainCall) -> None:
        self.run = run
        self.call = call
        shape = run.data.input_shape
        if call.method == "Permutation" and find_texts(shape):
            raise UserError(
                "--method Permutation exchanges columns among rows, and the tokens of texts have "
                "none in common: use FeatureAblation"
            )
        self.batch: Batch = run.load_rows(call.split, call.rows)
        self.outputs = run.predict(self.batch.inputs)
        self.tasks = choose_tasks(call.task, self.outputs)

        self.coarse = call.method in ("FeatureAblation", "Permutation")
        self.features = list_features(shape, self.batch.inputs, self.coarse)
        pictures = any(len(own.dense) == 3 for _, own in shape.members or (("", shape),))
        training = run.load_rows("train", MOST_IMAGES if pictures else None)
        baseline = make_baseline(call.baseline, training.inputs)
        self.path = InputPath(self.batch.inputs, baseline, self.features)
        self.training: Inputs | None = None
        if call.method == "GradientShap":
            # of a text each baseline has the length of the row, and runs for each row
            self.drawn = DRAWN_FOR_TEXTS if find_texts(shape) else DRAWN
            self.training = run.load_rows("train", self.drawn).inputs
        self.trained_rows = len(training)
        self.samples = draw_samples(call.seed, len(self.batch), DRAWS)

    def explain(self) -> Explanation:
        """Explains each task."""
        chosen = {
            name: list_outputs(name, self.run.tasks[name], self.call.classes) for name in self.tasks
        }
        total = sum(self._count_calls(len(outputs)) for outputs in chosen.values())
        tasks = []
        with show_progress("explaining", total) as advance:
            for name, outputs in chosen.items():
                tasks.append(self._explain_task(name, outputs, advance))
        return self._describe(tasks)

    def _count_calls(self, outputs: int) -> int:
        """Counts the calls of the network for a task."""
        parts = -(-len(self.batch) // self.run.batch_size)
        deletion = 4 * (min(10, len(self.features)) + 1) * parts
        rows = max(1, self.run.batch_size // self.call.steps)
        calls = {
            "FeatureAblation": (len(self.features) + 1) * parts,
            "Permutation": PERMUTATIONS * (len(self.features) + 1) * parts,
        }
        return deletion + outputs * calls.get(self.call.method, -(-len(self.batch) // rows))

    def _explain_task(
        self, name: str, outputs: list[ExplainedOutput], advance: Callable[[], None]
    ) -> TaskExplanation:
        """Explains the outputs of one task, by the weights of its own."""
        model = self.run.use_weights_of(name)
        # gradients are of the rows alone
        model.requires_grad_(False)
        task = self.run.tasks[name]
        plain = self.outputs[name]
        found = []
        for output in outputs:
            own = Explained(
                self.path,
                make_runner(model, name),
                output.read,
                plain,
                self.run.batch_size,
                advance,
            )
            found.append(self._explain_output(own, output))
        importance = torch.stack([own.attributions.abs() for own in found]).sum(0)
        return TaskExplanation(
            name,
            task.describe_score(),
            found,
            self._delete(model, name, task, importance, advance),
            read_predictions(self.run, name, plain),
            read_labels(self.run, name, self.batch.targets[name]),
        )

    def _explain_output(self, own: Explained, output: ExplainedOutput) -> OutputExplanation:
        """Explains one output of a task."""
        call = self.call
        rows = torch.arange(len(self.batch))
        zeros = torch.zeros(len(rows), len(self.features), dtype=own.dtype)
        at_rows = own.read(own.plain, own.plain)
        if self.training is None:
            at_baseline = own.in_parts(zeros, rows)
            attributions = attribute(own, call.method, call.seed, call.steps)
        else:
            # what attributions add up to is the difference from the mean over baselines
            taken = take_baselines(self.training)
            path = InputPath(self.batch.inputs, taken, self.features)
            count = len(next(iter(taken.values())))
            own = Explained(path, own.run, own.read, own.plain, own.size, own.advance)
            at_baseline = average_baselines(own, count, bool(find_texts(self.run.data.input_shape)))
            attributions = attribute(own, call.method, call.seed, call.steps, count)
        check = None
        if call.method in COMPLETE:
            check = measure_completeness(attributions, at_rows, at_baseline)
        by_column = self.features.sum_by_column(attributions)
        numbers = read_numbers(self.features, as_dict(self.batch.inputs))
        columns = summarise_columns(self.features.columns, by_column, numbers)
        return OutputExplanation(output, attributions, at_rows, at_baseline, columns, check)

    def _delete(
        self,
        model: MultiTaskModel,
        name: str,
        task: Task,
        importance: Tensor,
        advance: Callable[[], None],
    ) -> Deletion | None:
        """Measures how the score of a task falls without what attributions name."""
        if not bool(is_labelled(self.batch.targets[name]).any()):
            return None
        run = make_runner(model, name)
        every = torch.arange(len(self.batch))

        def predict(positions: Tensor) -> Tensor:
            found = []
            for part in every.split(self.run.batch_size):
                inputs, path = self.path.at(positions[part], part)
                with torch.no_grad(), path:
                    found.append(run(inputs))
                advance()
            return torch.cat(found)

        def score(outputs: Tensor, sample: np.ndarray) -> float:
            return score_rows(task, name, {name: outputs}, self.batch, sample)

        return measure_deletion(
            importance, self.path.find_real(), predict, score, self.samples, self.call.seed
        )

    def _describe(self, tasks: list[TaskExplanation]) -> Explanation:
        """Returns the explanation with the rows in the data's own words."""
        data, shape, call = self.run.data, self.run.data.input_shape, self.call
        images, pixels, tokens = {}, {}, {}
        given = as_dict(self.batch.inputs)
        for member, own in shape.members or (("", shape),):
            prefix = f"{member}/" if member else ""
            if len(own.dense) == 3:
                images[member or "image"] = given[f"{prefix}dense"]
                pixels[member or "image"] = self.features.places[f"{prefix}dense"][0]
            if own.tokens:
                tokens[member or "text"] = self.features.places[f"{prefix}tokens"]
        baseline = describe_baseline(call.baseline, shape)
        if any(not own.tokens for _, own in shape.members or (("", shape),)):
            baseline += f" (of {self.trained_rows} training rows)"
        if self.training is not None:
            baseline = f"training rows, drawn from {self.drawn}; of a deleted feature: {baseline}"
        return Explanation(
            name_run(self.run.run.path),
            call.method,
            f"{len(self.batch)} rows of the {call.split} split",
            baseline,
            self.features,
            name_rows(data, call.split, self.batch),
            tasks,
            read_values(data, call.split, self.batch, self.features.columns),
            images,
            pixels,
            spell_tokens(data, shape, self.batch),
            tokens,
            list_notes(call.method, self.features, self.coarse and bool(images)),
        )


def name_run(path: Path) -> str:
    """Returns the name of a run folder, with that of its experiment."""
    whole = path.resolve()
    return f"{whole.parent.name}/{whole.name}"


def choose_tasks(task: str | None, outputs: dict[str, Tensor]) -> list[str]:
    """Returns the tasks that are explained.

    Raises:
        UserError: There is no such task, or none that has one output a row.
    """
    if task is not None and task not in outputs:
        raise UserError(f"--task is '{task}'; {suggest_or_list(task, outputs)}")
    asked = list(outputs) if task is None else [task]
    chosen = [name for name in asked if outputs[name].ndim == 2]
    left_out = [name for name in asked if name not in chosen]
    reason = "labels each token or pixel of a row, and has no number of the whole row to explain"
    if not chosen:
        raise UserError(f"task '{left_out[0]}' {reason}")
    for name in left_out:
        remark(f"task '{name}' is left out: it {reason}")
    return chosen


def find_texts(shape: InputShape) -> bool:
    """Returns whether rows have tokens."""
    return any(own.tokens for _, own in shape.members or (("", shape),))


def make_runner(model: MultiTaskModel, name: str) -> Callable[[Inputs], Tensor]:
    """Returns a function of inputs that puts out what a task does."""

    def run(inputs: Inputs) -> Tensor:
        outputs: Tensor = model(inputs)[name]
        return outputs

    return run


def average_baselines(own: Explained, count: int, by_row: bool) -> Tensor:
    """Returns the mean (N,) over baselines of the number at each.

    Args:
        own: The number.
        count: The number of baselines.
        by_row: Whether the outputs at a baseline depend on the row, as the length of a text does.
    """
    rows = torch.arange(len(own.path))
    total = torch.zeros(len(rows), dtype=torch.float64)
    if by_row:
        zeros = torch.zeros(len(rows), len(own.path.features), dtype=own.dtype)
        for number in range(count):
            total += own.in_parts(zeros, rows, torch.full_like(rows, number))
        return total / count

    every = torch.arange(count)
    zeros = torch.zeros(count, len(own.path.features), dtype=own.dtype)
    inputs, path = own.path.at(zeros, torch.zeros_like(every), every)
    with torch.no_grad(), path:
        outputs = own.run(inputs)
    # the number depends on the row by the class that it is about alone
    for baseline in outputs:
        total += own.read(baseline.expand(len(rows), -1), own.plain)
    return total / count


def list_notes(method: Method, features: Features, patches: bool) -> list[str]:
    """Returns what a person should know of a method, one sentence each."""
    notes = [
        "Columns that tell the same share their attribution: each may look unimportant, since the "
        "model has the other."
    ]
    if method == "GradientShap":
        notes.append(
            "GradientShap draws baselines and points: its gap is that of drawing, and more --steps "
            "make it smaller."
        )
    if method == "FeatureAblation":
        notes.append(
            "FeatureAblation: how much the output falls when one feature is put to the baseline; "
            "these need not add up, since features act together."
        )
    if method == "Permutation":
        notes.append(
            f"Permutation: how much the output falls when one feature is that of another row, a "
            f"mean over {PERMUTATIONS}; these need not add up."
        )
    if patches and any(name.startswith("patch") for name in features.names):
        notes.append("Each attribution of an image is of a patch of neighbouring pixels.")
    return notes
