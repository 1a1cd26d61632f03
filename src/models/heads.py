"""The heads of all tasks; alike heads run as one product.

A loop over T small heads costs T launches of everything. T alike heads on one feature cost one
matrix product, with their weights put side by side. Each head stays a module with its own
parameters (``heads.<task>``), so that checkpoints, learning rates, placement and sharding see
heads, and only the arithmetic is batched.
"""

from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.errors import UserError
from src.models.backward.head_gradients import HeadActivations
from src.tasks import Task, is_labelled
from src.tasks.dependence import find_parent, multiply_probabilities, order_by_dependence
from src.tasks.head import Head

HALVES = (torch.half, torch.bfloat16)


@dataclass(frozen=True)
class Group:
    """K alike tasks: their names, and one of them for all."""

    names: tuple[str, ...]
    task: Task

    def stack(self, targets: Mapping[str, Tensor]) -> Tensor:
        """Stacks the K targets: (B, ..., K) for scalar labels, (B, ..., K, L) for vectors."""
        dim = -1 - self.task.event_dims
        if len(self.names) == 1:
            return targets[self.names[0]].unsqueeze(dim)
        return torch.stack([targets[name] for name in self.names], dim)

    def sum_per_task(
        self, elements: Tensor, weights_BK: Tensor | None = None, by_row: bool = False
    ) -> Tensor:
        """Sums elements of the targets' shape to (K,), each times the weight of its row.

        Args:
            elements: (B, ..., K) or (B, ..., K, L).
            weights_BK: (B, K); None weighs all alike.
            by_row: Whether rows are kept apart, (B, K).
        """
        k = elements.ndim - 1 - self.task.event_dims
        if weights_BK is not None:
            shape = [1] * elements.ndim
            shape[0], shape[k] = weights_BK.shape
            elements = elements * weights_BK.view(shape)
        kept = (0, k) if by_row else (k,)
        summed = [d for d in range(elements.ndim) if d not in kept]
        return elements.sum(summed) if summed else elements

    def stack_weights(self, weights: Mapping[str, Tensor], like: Tensor) -> Tensor | None:
        """Stacks the weights of the K tasks' rows, (B, K); None where no task has any.

        Args:
            weights: {task: (B,)}; a task that is not there has weight 1.
            like: (B, ...) A tensor on the device where they are used.
        """
        if not any(name in weights for name in self.names):
            return None
        columns = []
        for name in self.names:
            own = weights[name] if name in weights else torch.ones(len(like))
            # a sum of weights in 16 bits would have three digits
            columns.append((own.float() if own.dtype in HALVES else own).to(like.device))
        return torch.stack(columns, -1)

    def fill_in(
        self,
        elements: Tensor,
        targets: Tensor,
        outputs: Tensor,
        taught: Mapping[str, Tensor],
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """Lets a teacher's outputs stand for missing labels.

        Args:
            elements: The losses of the known labels, of the shape of the targets.
            targets: (B, ..., K) or (B, ..., K, L).
            outputs: (B, ..., K, O).
            taught: {task: (B, ..., O)} The teacher's outputs, NaN where there are none.
            temperature: See :meth:`src.tasks.distilling.Distilling.distil`.

        Returns:
            The losses with those of the teacher's, and where there is a label of either kind.
        """
        known = is_labelled(targets)
        columns = []
        for k, name in enumerate(self.names):
            none = torch.full_like(outputs[..., k, :], torch.nan)
            columns.append(taught[name].to(none) if name in taught else none)
        teacher = torch.stack(columns, -2).detach()

        is_taught = ~teacher.isnan().any(-1)
        is_taught = is_taught.view(*is_taught.shape, *[1] * self.task.event_dims)
        filled = is_taught & ~known
        distances = self.task.distil(outputs, teacher.nan_to_num(), targets, temperature)
        return torch.where(filled, distances, elements), known | filled


class Heads(nn.Module):
    """One head per task.

    Args:
        tasks: {name: task}.
        feature_sizes: {name: size of the features its head reads}.

    Attributes:
        groups: Groups of alike tasks. Their names, one group after the other, are the order of T
            throughout the model.
        paths: {task: the name of its head as a module}.
        factors: {task: the task whose probability is a factor of its own}, each behind the tasks
            that it depends on; its output is the logit of the product.
        temperature: The temperature at which a teacher's outputs stand for labels.
    """

    temperature: float = 1.0

    def __init__(self, tasks: Mapping[str, Task], feature_sizes: Mapping[str, int]) -> None:
        super().__init__()
        heads = {name: task.head(feature_sizes[name]) for name, task in tasks.items()}

        self.paths = name_heads(tasks)
        for name, head in heads.items():
            self.add_module(self.paths[name], head)

        groups: dict[Hashable, list[str]] = defaultdict(list)
        for name, head in heads.items():
            # a head of another class runs by itself
            batched = type(head) is Head
            groups[(tasks[name].loss_key(), feature_sizes[name]) if batched else name].append(name)
        self.groups = tuple(Group(tuple(names), tasks[names[0]]) for names in groups.values())

        self.tasks = dict(tasks)
        self.factors: dict[str, str] = {}
        for name in order_by_dependence(tasks):
            parent = find_parent(tasks[name])
            if parent is not None:
                self.factors[name] = parent

    def __getitem__(self, name: str) -> Head:
        head = getattr(self, self.paths[name])
        assert isinstance(head, Head)
        return head

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns per group the outputs (B, ..., K, O), in fp32 where the features have less."""
        return self._run(features, None)

    def record(
        self, features: Mapping[str, Tensor], activations: HeadActivations
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Runs the heads, and notes the activations that the gradients of the tasks need.

        Returns:
            The outputs as ``forward`` gives them, and the outputs of the first layers, where a
            later backward pass starts.
        """
        outputs = self._run(features, activations)
        return outputs, [first for first, _ in activations.first]

    def _run(
        self, features: Mapping[str, Tensor], activations: HeadActivations | None
    ) -> list[Tensor]:
        found = []
        for group in self.groups:
            own = [features[name] for name in group.names]
            outputs = self._run_group(group, own, activations)
            found.append(outputs.float() if outputs.dtype in HALVES else outputs)
        return self._multiply(found, features, activations) if self.factors else found

    def _multiply(
        self,
        outputs: list[Tensor],
        features: Mapping[str, Tensor],
        activations: HeadActivations | None,
    ) -> list[Tensor]:
        """Returns outputs in which logits of conditional probabilities are those of products."""
        factors = self.split(outputs)
        logits = dict(factors)
        for name in self.factors:
            for other in self.list_factors(name):
                factor = factors[other]
                if activations is not None:
                    # gradients of this task's loss are kept apart from those of the other's
                    activations.copies.append(list(factors).index(name))
                    group = Group((other,), self.tasks[other])
                    factor = self._run_group(group, [features[other]], activations).squeeze(-2)
                factor = factor.to(logits[name])
                logits[name] = multiply_probabilities(factor, logits[name])
        found = []
        for group, output in zip(self.groups, outputs, strict=True):
            changes = any(name in self.factors for name in group.names)
            own = [logits[name] for name in group.names]
            found.append(torch.stack(own, -2) if changes else output)
        return found

    def list_factors(self, name: str) -> list[str]:
        """Returns the tasks whose probabilities are factors of a task's, the nearest first."""
        found = []
        while name in self.factors:
            name = self.factors[name]
            found.append(name)
        return found

    def _run_group(
        self, group: Group, features: list[Tensor], activations: HeadActivations | None
    ) -> Tensor:
        heads = [self[name] for name in group.names]
        if len(heads) == 1 and activations is None:
            return heads[0](features[0]).unsqueeze(-2)
        if type(heads[0]) is not Head:
            assert activations is not None
            x = activations.copy_features(features[0], list(heads[0].parameters()))
            return heads[0](x).unsqueeze(-2)

        # neighbours on one device are one product
        linears = [head.linears for head in heads]
        outputs = []
        for _, run in groupby(range(len(heads)), lambda k: linears[k][0].weight.device):
            places = list(run)
            own = [features[k] for k in places]
            outputs.append(run_together([linears[k] for k in places], own, activations))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, -2)

    def split(self, outputs: list[Tensor]) -> dict[str, Tensor]:
        """Splits the outputs of groups into {task: (B, ..., O)}."""
        found = {}
        for group, output in zip(self.groups, outputs, strict=True):
            for k, name in enumerate(group.names):
                found[name] = output[..., k, :]
        return found

    def loss_sums(
        self,
        outputs: list[Tensor],
        targets: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None = None,
        taught: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the sums of the element losses and the counts of known labels, both (T,).

        With weights of rows, an element's loss counts times the weight of its row, and a label
        counts as that weight.

        Args:
            outputs: The outputs of the groups, for rows of this process.
            targets: {task: targets} of the same rows.
            weights: {task: (B,)} weights of these rows; a task that is not there has weight 1.
            taught: {task: (B, ..., O)} A teacher's outputs, which stand for missing labels.

        Raises:
            UserError: The encoder gives features for each pixel or token, and the data one label
                for all of them, or the other way round.
        """
        sums = []
        counts = []
        for group, elements, known, rows in self._take_losses(outputs, targets, weights, taught):
            sums.append(group.sum_per_task(elements, rows))
            counts.append(group.sum_per_task(known, rows))
        return torch.cat(sums), torch.cat(counts)

    def losses_by_row(
        self,
        outputs: list[Tensor],
        targets: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None = None,
        taught: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the parts of the sums of ``loss_sums`` that come from each row, both (B, T)."""
        sums = []
        counts = []
        for group, elements, known, rows in self._take_losses(outputs, targets, weights, taught):
            sums.append(group.sum_per_task(elements, rows, by_row=True))
            counts.append(group.sum_per_task(known.to(elements), rows, by_row=True))
        return torch.cat(sums, 1), torch.cat(counts, 1)

    def _take_losses(
        self,
        outputs: list[Tensor],
        targets: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None,
        taught: Mapping[str, Tensor] | None,
    ) -> Iterator[tuple[Group, Tensor, Tensor, Tensor | None]]:
        """Yields of each group its elements' losses, where labels are known, and rows' weights."""
        for group, output in zip(self.groups, outputs, strict=True):
            stacked = group.stack(targets)
            labels = stacked.shape[: stacked.ndim - group.task.event_dims]
            if output.shape[:-1] != labels:
                raise UserError(
                    f"task '{group.names[0]}' has labels of shape {tuple(labels[1:-1])} for each "
                    "sample, but the encoder's features are of shape "
                    f"{tuple(output.shape[1:-2])}: use an encoder whose features are one for each "
                    "label, or set pooled true for a label of the whole sample"
                )
            rows = group.stack_weights(weights, stacked) if weights else None
            elements = group.task.losses(output, stacked)
            known = is_labelled(stacked)
            if taught and any(name in taught for name in group.names):
                elements, known = group.fill_in(elements, stacked, output, taught, self.temperature)
            yield group, elements, known, rows

    def label_counts(
        self, targets: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Returns the counts of known labels (T,), before any output is there.

        Args:
            targets: {task: targets} of some rows.
            weights: {task: (B,)} weights of these rows, as :meth:`loss_sums` takes them.
        """
        counts = []
        for group in self.groups:
            stacked = group.stack(targets)
            rows = group.stack_weights(weights, stacked) if weights else None
            counts.append(group.sum_per_task(is_labelled(stacked), rows))
        return torch.cat(counts)


def name_heads(tasks: Iterable[str]) -> dict[str, str]:
    """Returns {task: the name of its head as a module}: no module has that of an attribute."""
    names = list(tasks)
    taken = {*dir(Heads), *dir(nn.ModuleDict()), "paths", "groups", "tasks", "factors"}
    return {name: free_name(name, taken, names) for name in names}


def free_name(name: str, taken: Container[str], others: Container[str]) -> str:
    """Returns the name, with underscores behind it if it is taken."""
    path = name
    for n in count(1):
        if path not in taken and (path == name or path not in others):
            break
        path = name + "_" * n
    return path


def run_together(
    heads: Sequence[Sequence[nn.Linear]],
    features: Sequence[Tensor],
    activations: HeadActivations | None,
) -> Tensor:
    """Returns the outputs (B, ..., K, O) of K alike heads, from the linear layers of each.

    The heads are on one device, to which their features are brought; the outputs come back.
    """
    layers = list(zip(*heads, strict=True))
    weight, bias = stack_layers(layers[0])
    home = features[0].device
    if all(z is features[0] for z in features):
        x = F.linear(features[0].to(weight.device), weight.flatten(0, 1), bias.flatten())
        x = x.view(*x.shape[:-1], *bias.shape)
    else:
        x = batched_linear(torch.stack(list(features), -2).to(weight.device), weight, bias)
    if activations is not None:
        if not x.requires_grad:
            # these heads are frozen, and the encoder still needs the gradients at their outputs
            x = x.detach().requires_grad_()
        activations.add_first_layer(x, weight)
    for layer in layers[1:]:
        weight, bias = stack_layers(layer)
        if activations is not None:
            activations.add_later_layer(weight, bias)
        x = batched_linear(F.gelu(x), weight, bias)
    return x.to(home)


def stack_layers(layers: tuple[nn.Linear, ...]) -> tuple[Tensor, Tensor]:
    """Returns the weights (K, O, I) and biases (K, O) of K alike linear layers."""
    if len(layers) == 1:
        return layers[0].weight.unsqueeze(0), layers[0].bias.unsqueeze(0)
    weights = torch.stack([layer.weight for layer in layers])
    biases = torch.stack([layer.bias for layer in layers])
    return weights, biases


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Applies K linear layers, each to its own features: (..., K, I) -> (..., K, O)."""
    return torch.einsum("...ki,koi->...ko", x, weight) + bias
