"""The methods of ``python -m src.merge``: each from the runs to one sharing architecture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from src.analysis.merging.adamerging import (
    compute_entropy,
    has_entropy,
    learn_coefficients,
    merge_by_coefficients,
)
from src.analysis.merging.average import average
from src.analysis.merging.dare import sum_dropped
from src.analysis.merging.fisher import merge_by_fisher
from src.analysis.merging.regmean import merge_by_regression
from src.analysis.merging.soup import choose_ingredients
from src.analysis.merging.task_arithmetic import GRID, choose_scale, sum_vectors
from src.analysis.merging.ties import merge_vectors
from src.analysis.merging.weights import add, check_weights, merge_weighted
from src.cli.merge_call import Call
from src.cli.merge_measure import EntropyOfRows, measure_fishers, measure_grams
from src.cli.merge_runs import MergedRun
from src.cli.progress_bar import show_progress
from src.data import MultiTaskDataModule
from src.errors import UserError, suggest_or_list
from src.models import MultiTaskModel

State = dict[str, Tensor]


@dataclass
class Merging:
    """All that a method can look at.

    Attributes:
        call: The command line.
        runs: The runs.
        model: The merged model, which has the heads of all.
        data: The rows of all tasks.
        score: Returns the score on validation rows of a sharing architecture, given the weights of
            the runs for heads of tasks that several of them train.
    """

    call: Call
    runs: Sequence[MergedRun]
    model: MultiTaskModel
    data: MultiTaskDataModule
    score: Callable[[State, Sequence[float]], float]

    @property
    def states(self) -> list[State]:
        """The sharing architectures of the runs."""
        return [run.shared for run in self.runs]

    @property
    def start(self) -> State:
        """The sharing architecture that all runs started from."""
        start = self.runs[0].origin.state
        assert start is not None
        return start

    @property
    def uniform(self) -> list[float]:
        """Equal weights of the runs."""
        return [1 / len(self.runs)] * len(self.runs)


@dataclass
class Merged:
    """The result of a method.

    Attributes:
        state: The sharing architecture, by names without ``sharing.``.
        weights: The weights of the runs, by which heads of a task that several of them train are
            averaged.
        line: What was chosen, in words.
        record: What was chosen, for the record of the run.
    """

    state: State
    weights: Sequence[float]
    line: str = ""
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        merge: Merges.
        flags: The flags that it reads, besides those of all methods.
        needs_start: Whether it reads the weights that the runs started from.
        runs_networks: Whether rows pass through the network of each run.
    """

    merge: Callable[[Merging], Merged]
    flags: tuple[str, ...] = ()
    needs_start: bool = False
    runs_networks: bool = False


def find_method(name: str) -> Method:
    """Returns a method by its name.

    Raises:
        UserError: There is none of that name.
    """
    if name not in METHODS:
        raise UserError(f"--method is '{name}'; {suggest_or_list(name, METHODS)}")
    return METHODS[name]


# -- sums of networks ------------------------------------------------------------------------------
def merge_by_average(merging: Merging) -> Merged:
    """Merges by the plain average."""
    return Merged(average(merging.states), merging.uniform)


def merge_by_weights(merging: Merging) -> Merged:
    """Merges by the weights that the command line gives.

    Raises:
        UserError: It gives none, or not one for each run, or they do not sum to 1.
    """
    weights = merging.call.weights
    if weights is None:
        raise UserError("--method weights needs --weights, one for each run: --weights 0.5,0.3,0.2")
    merged = merge_weighted(merging.states, weights)
    return Merged(merged, weights, record={"weights": list(weights)})


def merge_by_soup(merging: Merging) -> Merged:
    """Merges by the greedy soup: the average of the runs that validation rows choose."""
    count = len(merging.runs)
    with show_progress("soup", 2 * count - 1) as advance:

        def measure(chosen: Sequence[int]) -> float:
            advance()
            found = average([merging.states[number] for number in chosen])
            return merging.score(found, share(chosen, count))

        chosen, best = choose_ingredients(count, measure)
    names = ", ".join(merging.runs[number].path for number in chosen)
    merged = average([merging.states[number] for number in chosen])
    return Merged(
        merged,
        share(chosen, count),
        f"soup of {names}, chosen on validation rows (score {best:.4f})",
        {"chosen": [merging.runs[number].path for number in chosen]},
    )


def share(chosen: Sequence[int], count: int) -> list[float]:
    """Returns equal weights of the chosen ones of some runs, 0 for the others."""
    return [1 / len(chosen) if number in chosen else 0.0 for number in range(count)]


# -- sums of what the runs have learnt -------------------------------------------------------------
def scale_vector(merging: Merging, vector: Mapping[str, Tensor], record: Any) -> Merged:
    """Returns the start plus a multiple of a task vector, by the factor given or the best one."""
    scale = merging.call.scale
    line = ""
    if scale is None:
        with show_progress("scale", len(GRID)) as advance:

            def measure(factor: float) -> float:
                advance()
                return merging.score(add(merging.start, vector, factor), merging.uniform)

            scale, best = choose_scale(measure)
        line = f"scale {scale:g}, chosen on validation rows (score {best:.4f})"
    state = add(merging.start, vector, scale)
    return Merged(state, merging.uniform, line, {**record, "scale": scale})


def merge_by_arithmetic(merging: Merging) -> Merged:
    """Merges by task arithmetic."""
    return scale_vector(merging, sum_vectors(merging.states, merging.start), {})


def merge_by_ties(merging: Merging) -> Merged:
    """Merges by TIES."""
    density = merging.call.density or 0.2
    vector = merge_vectors(merging.states, merging.start, density)
    return scale_vector(merging, vector, {"density": density})


def merge_by_dare(merging: Merging) -> Merged:
    """Merges by DARE, and task arithmetic on what it leaves."""
    density = merging.call.density or 0.5
    seed = merging.call.draw_seed
    vector = sum_dropped(merging.states, merging.start, density, seed)
    return scale_vector(merging, vector, {"density": density, "draw_seed": seed})


def merge_by_adamerging(merging: Merging) -> Merged:
    """Merges by coefficients that make predictions certain.

    Raises:
        UserError: No task predicts classes.
    """
    call = merging.call
    # a head that no run has trained is certain of nothing
    weights = merging.model.weights
    tasks = {name: task for name, task in merging.model.tasks.items() if weights[name] > 0}
    certain = [name for name, task in tasks.items() if has_entropy(task)]
    if not certain:
        raise UserError(
            "--method adamerging needs tasks with classes or yes-or-no labels, whose predictions "
            f"have an entropy, and {', '.join(tasks)} have none; use task_arithmetic"
        )
    entropy = EntropyOfRows(
        merging.model, merging.data, call.rows, call.draw_seed, certain, compute_entropy
    )
    merging.score(merging.states[0], merging.uniform)  # puts the heads in their places
    with show_progress("step", call.steps) as advance:

        def compute(tensors: Mapping[str, Tensor], step: int) -> Tensor:
            advance()
            return entropy(tensors, step)

        learnt = learn_coefficients(merging.states, merging.start, compute, call.steps, call.rate)
    left_out = [name for name in tasks if name not in certain]
    means = ", ".join(f"{float(row.mean()):.3f}" for row in learnt.values)
    line = f"mean coefficients of the runs {means}; entropy {learnt.entropies[0]:.4f} at first, "
    line += f"{learnt.entropies[-1]:.4f} at last, of validation rows without their labels"
    if left_out:
        line += f"; {', '.join(left_out)} left out, whose predictions have no entropy"
    record = {name: learnt.values[:, column].tolist() for column, name in enumerate(learnt.names)}
    merged = merge_by_coefficients(merging.states, merging.start, learnt)
    return Merged(merged, merging.uniform, line, {"coefficients": record})


# -- averages that look at rows --------------------------------------------------------------------
def merge_fisher(merging: Merging) -> Merged:
    """Merges by Fisher information on training rows."""
    weights = merging.call.weights or merging.uniform
    check_weights(weights, len(merging.runs))
    fishers = measure_fishers(merging.runs, merging.call.rows)
    merged = merge_by_fisher(merging.states, fishers, weights)
    record = {"rows": merging.call.rows, "weights": list(weights)}
    return Merged(merged, weights, record=record)


def merge_regmean(merging: Merging) -> Merged:
    """Merges by regression on the inputs of linear layers, on training rows.

    Raises:
        UserError: There are no linear layers.
    """
    grams = measure_grams(merging.runs, merging.call.rows)
    if not grams[0]:
        raise UserError(
            "--method regmean merges linear layers, and the encoder of these runs has none; use "
            "average"
        )
    call = merging.call
    merged = merge_by_regression(merging.states, grams, call.alpha)
    count = sum(tensor.numel() for tensor in merged.values())
    linear = sum(merged[name].numel() for name in grams[0])
    line = f"{linear / count:.0%} of the numbers are in linear layers; the others are averaged"
    return Merged(merged, merging.uniform, line, {"rows": call.rows, "alpha": call.alpha})


METHODS: dict[str, Method] = {
    "average": Method(merge_by_average),
    "weights": Method(merge_by_weights, ("weights",)),
    "task_arithmetic": Method(merge_by_arithmetic, ("scale",), needs_start=True),
    "ties": Method(merge_by_ties, ("scale", "density"), needs_start=True),
    "dare": Method(merge_by_dare, ("scale", "density", "draw_seed"), needs_start=True),
    "fisher": Method(merge_fisher, ("rows", "weights"), runs_networks=True),
    "regmean": Method(merge_regmean, ("rows", "alpha"), runs_networks=True),
    "adamerging": Method(
        merge_by_adamerging, ("rows", "steps", "rate", "draw_seed"), needs_start=True
    ),
    "soup": Method(merge_by_soup),
}
