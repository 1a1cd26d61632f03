"""The network of a model: encoder, sharing architecture, heads and balancer."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from src.balancing import Balancer
from src.balancing.gradients import CpuBalancer
from src.batch import InputShape
from src.models.backward.jacobian import keep_graph_buffers
from src.models.cost import describe_cost
from src.models.encoders import Encoder
from src.models.encoders.encoder import check_each
from src.models.evaluation import Evaluation
from src.models.fairness import Fairness
from src.models.feature_selection import Selection, check_closing
from src.models.heads import Heads
from src.models.meta import Meta
from src.models.own_weights import list_own_weights
from src.models.sharing import EncoderFactory, Sharing, StackedEncoders, check_owners
from src.models.task_notes import describe_choices, describe_score
from src.models.transfer.finetune import Finetune
from src.models.transfer.freezing import Freezing
from src.models.transfer.lora import add_adapters, check_sharing
from src.overhead import LeanModule
from src.runner import Runner
from src.tasks import Task
from src.tasks.calibration.calibrators import Calibrator

if TYPE_CHECKING:
    from pandas import DataFrame


class MultiTaskNetwork(LeanModule):
    """A shared encoder, one head per task, and a balancer: all of a model but its training.

    Args:
        tasks: {name: task}, as the data module declares them.
        input_shape: The shape of one sample, as the data module says.
        encoder: Makes an encoder from the input shape.
        sharing: Makes the sharing architecture from an encoder factory and the task names.
        balancer: Makes the balancer from {task: likelihood of its loss}.
        select: Makes what learns which inputs a task needs, around the sharing architecture; None
            for none.
        checkpoint_activations: Whether stages keep their inputs alone for the backward pass.
        seed: Seed of the initial weights.
        meta: Makes the way to learn from episodes from the tasks; None learns from rows.
        fairness: Makes what compares groups of people from the tasks and the groups' names; None
            for none.
        groups: The names of the groups, as the data say.

    Attributes:
        penalties: Further scalars of the parameters that each step minimises besides the losses,
            such as the distance to the weights that a run started from.
        runner: Runs the network; a strategy that cuts it over processes puts its own here.
        chosen_tasks: The tasks with the thresholds that the latest validation chose; a checkpoint
            keeps them.
        score_weights: {task: how much it counts in val/score and test/score}.
        calibration: {task: the map of its outputs wherever nothing trains}, see ``calibrate``.
        finetune: Which parts train; it is read when the network is built.
        freezing: The parameters that do not train, or not yet.
    """

    freezing: Freezing

    def __init__(
        self,
        tasks: dict[str, Task],
        input_shape: InputShape,
        encoder: Callable[[InputShape], Encoder],
        sharing: Callable[[EncoderFactory, Sequence[str]], Sharing],
        balancer: Callable[[Mapping[str, str]], Balancer],
        select: Callable[[Sharing, InputShape], Selection] | None,
        checkpoint_activations: bool,
        seed: int,
        meta: Callable[[Mapping[str, Task]], Meta] | None = None,
        fairness: Callable[[Mapping[str, Task], Sequence[str]], Fairness] | None = None,
        groups: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.input_shape = input_shape
        self.seed = seed
        self.checkpoint_activations = checkpoint_activations
        self.make_encoder = check_each(encoder)
        self.make_sharing = sharing
        self.make_balancer = balancer
        self.meta = meta(tasks) if meta is not None else None
        self.make_selection = select
        self.make_fairness = fairness
        self.groups = tuple(groups)
        self.penalties: list[Callable[[], Tensor | None]] = []
        self.runner: Runner = Runner()
        self.chosen_tasks = dict(tasks)
        # the tasks with the thresholds that a checkpoint holds
        self.restored_tasks = dict(tasks)
        self.calibration: Mapping[str, Calibrator] = {}
        self.score_weights = dict.fromkeys(tasks, 1.0)
        self.finetune = Finetune()

    def configure_model(self) -> None:
        """Builds the network once, from the seed alone."""
        if hasattr(self, "heads"):
            return
        precision = torch.get_default_dtype()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            torch.set_default_dtype(torch.float32)  # a run in fp64 starts from the same numbers
            make_encoder: EncoderFactory = partial(self.make_encoder, self.input_shape)
            if self.finetune.lora is not None:
                make_encoder = add_adapters(make_encoder, self.finetune.lora)
            self.sharing = self.make_sharing(make_encoder, list(self.tasks))
            if self.make_selection is not None:
                selection = self.make_selection(self.sharing, self.input_shape)
                check_closing(selection, self.input_shape)
                self.sharing = selection
            self.heads = Heads(self.tasks, self.sharing.feature_sizes)
            check_owners(self.sharing, self.input_shape.example())
            if self.finetune.lora is not None:
                check_sharing(self.sharing)
            self.freezing = Freezing(self, self.finetune)
        torch.set_default_dtype(precision)
        for module in self.sharing.modules():
            if isinstance(module, Encoder | StackedEncoders):
                module.recompute = self.checkpoint_activations

        # the order of T
        self.names = tuple(name for group in self.heads.groups for name in group.names)
        likelihoods = {name: self.tasks[name].likelihood for name in self.names}
        self.fairness: Fairness | None = None
        if self.make_fairness is not None:
            in_order = {name: self.tasks[name] for name in self.names}
            self.fairness = self.make_fairness(in_order, self.groups)
            likelihoods = self.fairness.name_objectives(likelihoods)
        self.balancer = self.make_balancer(likelihoods)
        if self.balancer.level == "parameters":
            keep_graph_buffers()
        if isinstance(self.balancer, CpuBalancer):
            shared, _ = self.shared_and_private()
            self.balancer.prepare(sum(p.numel() for p in shared))

        if self.meta is not None:
            self.meta.prepare(self)

        metrics = {
            self.heads.paths[name]: task.assemble_metrics() for name, task in self.tasks.items()
        }
        self.metrics = nn.ModuleDict(metrics)
        self.evaluation: Evaluation | None = None

    @property
    def selection(self) -> Selection | None:
        """The module that learns which inputs each task needs; None where there is none."""
        return self.sharing if isinstance(self.sharing, Selection) else None

    def parts(self) -> dict[str, nn.Module]:
        """Returns the modules that a strategy can place or shard, by path.

        The encoders' stages come first, in the order in which they run, then the heads.
        """
        self.configure_model()
        found: dict[str, nn.Module] = {}
        for path, stage in self.sharing.parts().items():
            found[f"sharing.{path}"] = stage
        for name in self.tasks:
            found[f"heads.{self.heads.paths[name]}"] = self.heads[name]
        return found

    def shared_and_private(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Returns the parameters of several tasks, and of one, in the architecture.

        Parameters that begin to train in a later epoch are among them.
        """
        trained = self.freezing.select_trained(self.sharing.named_parameters(), "sharing.")
        ids = {id(p) for p in trained}
        shared = [p for p in self.sharing.shared_parameters() if id(p) in ids]
        ids -= {id(p) for p in shared}
        return shared, [p for p in trained if id(p) in ids]

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; frozen modules stay in evaluation."""
        super().train(mode)
        if mode and hasattr(self, "freezing"):
            self.freezing.hold_modes(self)
        return self

    def penalty(self) -> Tensor | None:
        """Returns the sum of all that a step minimises besides the losses; None for none."""
        found = [source() for source in (self.sharing.penalty, *self.penalties)]
        terms = [term for term in found if term is not None]
        if not terms:
            return None
        # parts of the network may lie on several devices
        return torch.stack([term.to(terms[0].device) for term in terms]).sum()

    def own_weights(self) -> dict[str, list[tuple[str, int | None]]] | None:
        """Returns the entries of the state that belong to one task; None where tasks share any."""
        if self.heads.factors:
            return None
        return list_own_weights(self.sharing, self.heads, self.heads.paths)

    def notes(self) -> list[str]:
        """Returns a line each on how the tasks share, how they are balanced, and the score."""
        self.configure_model()
        selection = self.selection
        sharing = type(selection.architecture if selection else self.sharing).__name__
        if selection is not None:
            sharing += f" behind {type(selection).__name__}"
        level = self.balancer.level
        where = f", by gradients of the shared {level}" if level else ""
        if level == "parameters" and not any(True for _ in self.sharing.shared_parameters()):
            where += f"; {sharing} has none, so that each task follows its own gradient"
        if self.balancer.reads_preference and not self.sharing.takes_preference:
            where += f"; {sharing} takes no preference, so that it stays even"
        make = partial(self.make_encoder, self.input_shape)
        cost = describe_cost(self.sharing, make, self.input_shape)
        return [
            f"sharing {sharing}: {cost}",
            f"balancer {type(self.balancer).__name__}{where}",
            *([] if self.fairness is None else self.fairness.notes()),
            describe_score(self.tasks, self.score_weights),
            *self.freezing.describe(self),
        ]

    def calibrate(self, calibration: Mapping[str, Calibrator]) -> None:
        """Maps outputs from now on, except in training mode, and moves chosen thresholds along.

        Thresholds that were set by hand stay: they speak of probabilities as they come out.

        Args:
            calibration: {task: the map of its outputs}; empty gives outputs as they are.
        """
        self.calibration = calibration
        chosen = dict(self.restored_tasks)
        for name, calibrator in calibration.items():
            if chosen[name] is not self.tasks[name]:
                chosen[name] = calibrator.move_thresholds(chosen[name])
        self.chosen_tasks = chosen

    def calibrate_outputs(self, grouped: list[Tensor]) -> list[Tensor]:
        """Returns the outputs (B, ..., K, O) of groups of heads, mapped where tasks have a map."""
        if self.training or not self.calibration:
            return grouped
        found = []
        for group, outputs in zip(self.heads.groups, grouped, strict=True):
            columns = list(outputs.unbind(-2))
            for k, name in enumerate(group.names):
                if name in self.calibration:
                    columns[k] = self.calibration[name].apply(columns[k])
            found.append(torch.stack(columns, -2))
        return found

    @property
    def compares_groups(self) -> bool:
        """Whether the losses of a step depend on groups of rows over the whole batch."""
        return self.fairness is not None and self.fairness.changes_losses

    def measure_groups(self) -> dict[str, float]:
        """Returns {tag: value} of groups in training since the last call, for curves."""
        return self.fairness.measure() if self.fairness is not None else {}

    def metrics_of(self, name: str) -> MetricCollection:
        """Returns the metrics of a task in the current evaluation."""
        return cast(MetricCollection, self.metrics[self.heads.paths[name]])

    def decode(self, name: str, outputs: Tensor) -> dict[str, Any]:
        """Returns a task's outputs (B, O) for people, at the thresholds that validation chose."""
        return self.chosen_tasks[name].decode(outputs)

    def figures(self) -> "dict[str, DataFrame]":
        """Returns {title: table} of the sharing architecture, as the latest evaluation saw it."""
        with self.runner.gather_weights(self.sharing):
            return self.sharing.figures(self._observed())

    def summary(self) -> list[str]:
        """Returns a line each on what was learnt and shown, and what validation has chosen."""
        with self.runner.gather_weights(self.sharing):
            lines = self.sharing.summary(self._observed())
        lines += self.balancer.summary()
        if self.fairness is not None:
            lines += self.fairness.summary()
        if self.meta is not None:
            lines += self.meta.summary()
        return [*lines, *describe_choices(self.tasks, self.chosen_tasks)]

    def _observed(self) -> dict[str, Tensor]:
        return self.evaluation.observed if self.evaluation is not None else {}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads weights, into a network that is built now if it is not."""
        self.configure_model()
        return super().load_state_dict(state_dict, strict=strict, assign=assign)
