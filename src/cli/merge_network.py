"""The network that runs are merged into: one sharing architecture, and the heads of all runs."""

from collections.abc import Sequence

from torch import Tensor

from src.analysis.merging.weights import merge_weighted
from src.cli.app import CLI
from src.cli.merge_runs import MergedRun
from src.cli.merge_start import SHARING
from src.errors import UserError, suggest_or_list

State = dict[str, Tensor]


class Network:
    """The merged network: one sharing architecture, and the head of each task from its own run.

    Args:
        cli: Its data, model and trainer.
        runs: The runs.
        heads: {task: number of the run whose head counts}, as the user has chosen.

    Attributes:
        owners: {task: numbers of the runs that its head is from}.
        untrained: The tasks that no run trains.

    Raises:
        UserError: The user has chosen a head that is not there, or the architecture has parts of
            one task each.
    """

    def __init__(self, cli: CLI, runs: Sequence[MergedRun], heads: dict[str, int]) -> None:
        self.cli = cli
        self.runs = runs
        self.model = cli.model
        self.model.configure_model()
        self.owners = find_owners(list(self.model.tasks), runs, heads)
        self.untrained = [
            name for name in self.model.tasks if not any(name in run.trained for run in runs)
        ]
        self.refuse_own_parts()
        self.rest = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def refuse_own_parts(self) -> None:
        """Refuses parts of the sharing architecture that belong to one task, where tasks differ.

        Raises:
            UserError: There are some.
        """
        trained = {tuple(sorted(run.trained)) for run in self.runs}
        names = {tuple(run.model.tasks) for run in self.runs}
        sharing = self.model.sharing
        if len(trained) == len(names) == 1:
            return
        paths = {id(p): name for name, p in sharing.named_parameters()}
        for owned in sharing.owners():
            if owned.parameters and (owned.slices or set(owned.tasks) != set(sharing.tasks)):
                raise UserError(
                    f"{type(sharing).__name__} has parts that belong to one task each, such as "
                    f"{SHARING}{paths[id(owned.parameters[0])]}: runs that train different tasks "
                    "are merged with HardSharing, runs of the same tasks with any architecture"
                )

    def describe(self, method: str) -> list[str]:
        """Returns a line each on the runs: which tasks they give their heads to."""
        lines = [f"merging {len(self.runs)} runs by {method}"]
        for number, run in enumerate(self.runs):
            heads = [task for task, owners in self.owners.items() if number in owners]
            lines.append(f"run {number + 1}: {run.path}, heads {', '.join(heads) or 'none'}")
        averaged = [task for task, owners in self.owners.items() if len(owners) > 1]
        if averaged:
            names = ", ".join(averaged)
            lines.append(f"heads of {names} are averaged over the runs that train them")
        if self.untrained:
            names = ", ".join(self.untrained)
            lines.append(f"no run trains {names}: heads are as run 1 has them, and do not count")
        return lines

    def load(self, shared: State, weights: Sequence[float]) -> None:
        """Gives the model a sharing architecture, and the heads of the runs.

        Args:
            shared: By names without ``sharing.``.
            weights: One for each run, for heads of tasks that several runs train.
        """
        state = {**self.rest}
        state |= {f"{SHARING}{name}": tensor for name, tensor in shared.items()}
        for task, owners in self.owners.items():
            state |= self.merge_head(task, owners, weights)
        self.model.load_state_dict(state)

    def merge_head(self, task: str, owners: Sequence[int], weights: Sequence[float]) -> State:
        """Returns the entries of a task's head: from its run, or averaged over several."""
        heads = []
        for number in owners:
            run = self.runs[number]
            prefix = f"heads.{run.model.heads.paths[task]}."
            own = {key: value for key, value in run.state.items() if key.startswith(prefix)}
            heads.append({key.removeprefix(prefix): value for key, value in own.items()})
        chosen = [weights[number] for number in owners]
        total = sum(chosen)
        # none of the runs that were chosen trains the task
        shares = [w / total for w in chosen] if total else [1 / len(owners)] * len(owners)
        merged = merge_weighted(heads, shares) if len(heads) > 1 else heads[0]
        path = f"heads.{self.model.heads.paths[task]}."
        return {path + key: value for key, value in merged.items()}

    def validate(self) -> dict[str, float]:
        """Returns the metrics of the loaded weights on validation rows, and chooses thresholds."""
        trainer = self.cli.trainer
        trainer.validate(self.model, self.cli.datamodule, verbose=False)
        values = trainer.callback_metrics
        return {key: float(value) for key, value in values.items() if key.startswith("val/")}

    def score(self, shared: State, weights: Sequence[float]) -> float:
        """Returns the score on validation rows of a sharing architecture."""
        self.load(shared, weights)
        return self.validate()["val/score"]


def find_owners(
    tasks: Sequence[str], runs: Sequence[MergedRun], heads: dict[str, int]
) -> dict[str, list[int]]:
    """Returns {task: numbers of the runs whose heads make its own}.

    They are the runs that train it, the first one that has it where none does, or the user's
    choice.

    Raises:
        UserError: The user has chosen a run without the task, or heads have other shapes.
    """
    for task, number in heads.items():
        if task not in tasks:
            raise UserError(
                f"--heads names '{task}', which is no task; {suggest_or_list(task, tasks)}"
            )
        if task not in runs[number].model.tasks:
            raise UserError(f"--heads: run {number + 1}, {runs[number].path}, has no task '{task}'")
    owners: dict[str, list[int]] = {}
    for task in tasks:
        having = [k for k, run in enumerate(runs) if task in run.model.tasks]
        training = [k for k in having if task in runs[k].trained]
        owners[task] = [heads[task]] if task in heads else training or having[:1]
        shapes = []
        for number in owners[task]:
            head = runs[number].model.heads[task].state_dict()
            shapes.append({key: tuple(value.shape) for key, value in head.items()})
        refuse_hidden_layers(task, [runs[number] for number in owners[task]], owners[task][0])
        if any(shape != shapes[0] for shape in shapes):
            raise UserError(
                f"task '{task}' has heads of other shapes in {runs[owners[task][0]].path} and "
                f"others: choose one, as --heads '{{{task}: {owners[task][0] + 1}}}'"
            )
    return owners


def refuse_hidden_layers(task: str, runs: Sequence[MergedRun], first: int) -> None:
    """Refuses to average heads whose hidden units began in different orders.

    Args:
        task: The task.
        runs: The runs whose heads would be averaged.
        first: The number of the first of them, from 0.

    Raises:
        UserError: They have hidden layers, and other starts.
    """
    starts = [run.origin.heads.get(task) for run in runs]
    one = starts[0]
    for run, other in zip(runs, starts, strict=True):
        if len(run.model.heads[task].linears) < 2 or run is runs[0]:
            continue
        if not is_same(one, other):
            raise UserError(
                f"the heads of task '{task}' have hidden layers, and those of {runs[0].path} and "
                f"{run.path} started from other weights, so that their average is no head: choose "
                f"one, as --heads '{{{task}: {first + 1}}}'"
            )


def is_same(one: State | None, other: State | None) -> bool:
    """Returns whether two heads have the same weights; False where one is not known."""
    if one is None or other is None or one.keys() != other.keys():
        return False
    return all(tensor.equal(other[key]) for key, tensor in one.items())
