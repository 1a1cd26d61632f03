"""The contract of every way of choosing inputs: an architecture around another one."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from src.batch import InputShape
from src.errors import UserError, suggest_or_list
from src.models.feature_selection.columns import find_choosable
from src.models.feature_selection.step_sizes import StepSizes
from src.models.sharing.gates import make_table
from src.models.sharing.sharing import Owned, Sharing
from src.runner import Shards

if TYPE_CHECKING:
    from pandas import DataFrame


class Selection(Sharing):
    """A sharing architecture that learns which of its inputs each task needs.

    It runs an architecture, and adds a penalty for each input that stays open.

    Attributes:
        measure: The name of the numbers that :meth:`openness` returns.
        way_out: What to do where an architecture or encoder reads inputs that are closed.
        at_end: The table and the open columns of each task when training ended; None before.

    Args:
        architecture: The architecture that runs behind it.
        shape: The shape of one sample.
        strength: Strength of the penalty, or one for each task.
        warmup: Epochs in which the penalty grows linearly from 0 to its strength.
    """

    measure: str
    way_out: str

    def __init__(
        self,
        architecture: Sharing,
        shape: InputShape,
        strength: float | dict[str, float],
        warmup: float,
    ) -> None:
        # no factory: the architecture is there
        nn.Module.__init__(self)
        kind = type(self).__name__
        if not isinstance(architecture, Sharing):
            raise UserError(
                f"{kind} is no sharing architecture but goes around one: set --model.select {kind}"
            )
        if not 0 <= warmup < inf:
            raise UserError(f"{kind}: warmup {warmup} must be a number of epochs from 0")
        self.tasks = architecture.tasks
        self.columns = find_choosable(shape, kind)
        self.strengths = read_strengths(kind, strength, self.tasks)
        self.warmup = warmup
        self.architecture = architecture
        self.feature_sizes = architecture.feature_sizes
        self.one_feature = architecture.one_feature
        self.reads_weights = architecture.reads_weights
        self.takes_preference = architecture.takes_preference
        self.at_end: tuple[DataFrame, dict[str, list[str]]] | None = None
        # whether training has begun: before, networks are tried out without noise
        self.begun = False
        # the share of the strength that counts in this step
        self.share = 1.0

    # -- what training tells it --------------------------------------------------------------------
    def begin_step(self, epoch: float, shards: Shards | None) -> None:
        """Sets the strength of a step.

        Args:
            epoch: The number of epochs before the step.
            shards: The layout of the parameters; None where this process has whole ones.
        """
        self.begun = True
        self.share = min(1.0, epoch / self.warmup) if self.warmup else 1.0

    def finish_step(self, steps: StepSizes) -> None:
        """Runs behind each step of the optimizer, for ways that set weights to zero.

        Args:
            steps: The sizes of the step.
        """

    # -- what it has learnt ------------------------------------------------------------------------
    @abstractmethod
    def openness(self) -> Tensor:
        """Returns how open each column is for each task: (T, D), detached."""

    @abstractmethod
    def is_open(self) -> Tensor:
        """Returns whether a task's outputs depend on a column: bool (T, D)."""

    @abstractmethod
    def closed_state(self) -> dict[str, Tensor]:
        """Returns {name of a parameter: values} with which all columns are closed."""

    def tabulate(self) -> "DataFrame":
        """Returns the table of tasks (rows) and columns, see :meth:`openness`."""
        names = [column.name for column in self.columns]
        return make_table(self.openness(), self.tasks, names)

    def list_open(self) -> dict[str, list[str]]:
        """Returns {task: the columns that its outputs depend on}."""
        names = [column.name for column in self.columns]
        return {
            task: [name for name, is_open in zip(names, row, strict=True) if is_open]
            for task, row in zip(self.tasks, self.is_open().tolist(), strict=True)
        }

    def finish(self) -> None:
        """Keeps what has been learnt when training ends, whatever weights are loaded afterwards."""
        self.at_end = self.tabulate(), self.list_open()

    def measure_tasks(self) -> dict[str, float]:
        """Returns {what is logged: the number of columns that are open for a task}."""
        return {f"inputs/{task}": float(len(names)) for task, names in self.list_open().items()}

    # -- the architecture --------------------------------------------------------------------------
    def forward(self, inputs: Tensor | dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the features of the architecture."""
        features: Mapping[str, Tensor] = self.architecture(inputs)
        return features

    def owners(self) -> Iterator[Owned]:
        """Yields the parameters of the architecture."""
        yield from self.architecture.owners()

    def tensor_parallel_plan(self) -> dict[str, tuple[str, int]]:
        """Returns the plan of the architecture."""
        plan = self.architecture.tensor_parallel_plan()
        return {f"architecture.{path}": entry for path, entry in plan.items()}

    def penalty(self) -> Tensor | None:
        """Returns the penalty of the architecture."""
        return self.architecture.penalty()

    def draw_preference(self, key: int, progress: Callable[[], float]) -> Tensor:
        """Lets the architecture draw the preference of a training step."""
        return self.architecture.draw_preference(key, progress)

    def prefer(self, preference: Mapping[str, float]) -> None:
        """Lets the architecture evaluate by a preference."""
        self.architecture.prefer(preference)

    def on_epoch_end(self) -> None:
        """Tells the architecture."""
        self.architecture.on_epoch_end()

    def observe(self) -> dict[str, Tensor]:
        """Returns what the architecture observes."""
        return self.architecture.observe()

    def figures(self, means: Mapping[str, Tensor]) -> "dict[str, DataFrame]":
        """Returns the tables of the architecture, and that of tasks and inputs."""
        return {f"inputs by {self.measure}": self.tabulate(), **self.architecture.figures(means)}

    def summary(self, means: Mapping[str, Tensor]) -> list[str]:
        """Returns a line on how many inputs each task reads, and what the architecture tells."""
        total = len(self.columns)
        counts = [f"{task} {len(names)}" for task, names in self.list_open().items()]
        line = f"of {total} inputs these weights read: {', '.join(counts)}"
        return [line, *self.architecture.summary(means)]


def read_strengths(
    kind: str, strength: float | Mapping[str, float], tasks: Sequence[str]
) -> list[float]:
    """Returns the strength of each task's penalty.

    Raises:
        UserError: A strength is below 0 or not finite, is of no task, or is lacking.
    """
    key = "model.select.strength"
    each = strength if isinstance(strength, Mapping) else dict.fromkeys(tasks, strength)
    for name, value in each.items():
        if name not in tasks:
            hint = suggest_or_list(name, tasks)
            raise UserError(f"{key} names '{name}', which is no task; {hint}")
        if not 0 <= value < inf:
            place = f"{key}.{name}" if isinstance(strength, Mapping) else key
            raise UserError(f"{kind}: {place} is {value}; it must be a number from 0")
    absent = [name for name in tasks if name not in each]
    if absent:
        raise UserError(f"{key} leaves out {', '.join(absent)}: 0 leaves all inputs open to a task")
    return [float(each[name]) for name in tasks]


def check_closing(selection: Selection, shape: InputShape) -> None:
    """Checks that nothing but a constant is left of inputs when all columns are closed.

    The weights are moved a little, so that no column is closed by accident.

    Args:
        selection: The selection, built.
        shape: The shape of one sample.

    Raises:
        UserError: Features still differ between rows.
    """
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Any] = {}
    for name, p in selection.named_parameters():
        state[name] = p.detach() + 0.02 * torch.randn(p.shape, generator=generator).to(p)
    state |= selection.closed_state()
    training = selection.training
    selection.eval()
    with (
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),
    ):
        features = functional_call(selection, state, (shape.example(4),))
    selection.train(training)

    for task, z in features.items():
        if not bool((z == z[:1]).all()):
            raise UserError(
                f"{type(selection).__name__} closes inputs, but with "
                f"{type(selection.architecture).__name__} and this encoder task '{task}' would "
                f"still read them: {selection.way_out}"
            )
