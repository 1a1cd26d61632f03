"""References of whole tasks: a model for each class label or number, measured as a network is."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.analysis.references import Labelled, Learner, Matrix, Predictor, Reference, repeat
from src.errors import UserError
from src.tasks import (
    MISSING,
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Ordinal,
    Regression,
    Task,
    is_labelled,
)
from src.tasks.evaluation import TaskEvaluation
from src.tasks.metric_classes import spell_metric
from src.tasks.weighted_metrics import expand_weights

# (N, F + C) inputs -> (N, O) outputs of a task
Head = Callable[[Matrix], Tensor]
KINDS = (Ordinal, Classification, BinaryClassification, MultilabelClassification, Regression)
STAGES = {"val": "validation", "test": "test"}  # {split: the name of its metrics in a run}
HALF = 0.5  # rows of a class that training rows do not have
EVEN = 32  # numbers that a processor computes at once, at most


@dataclass
class SplitRows:
    """The rows of a split.

    Attributes:
        x: (N, F + C) numbers, then codes of categories; None where nothing reads them.
        targets: {task: (N,) or (N, L)}; of labels of tokens or pixels, each counts as a row.
        weights: {task: (N,)} weights of the rows; a task that is not there has weight 1.
    """

    x: np.ndarray | None
    targets: dict[str, Tensor]
    weights: dict[str, Tensor] = field(default_factory=dict)

    def weights_of(self, task: str) -> Tensor:
        """Returns the weights of a task's rows (N,)."""
        return self.weights.get(task, torch.ones(len(self.targets[task])))

    def encode(self, reference: Reference) -> dict[str, Matrix]:
        """Returns {task: inputs (N, F)} as a reference encodes them."""
        if self.x is None or not isinstance(reference, Learner):
            return {name: np.empty((len(y), 0)) for name, y in self.targets.items()}
        return dict.fromkeys(self.targets, reference.encode(self.x))


def find_kind(task: Task) -> type[Task] | None:
    """Returns the kind that says what a task's outputs mean; None for outputs of another kind."""
    for kind in KINDS:
        if isinstance(task, kind):
            own = type(task)
            meaning = ("predict", "out_features")
            same = all(getattr(own, part) is getattr(kind, part) for part in meaning)
            return kind if same else None
    return None


def refuse_unfit(
    kind: type[Reference], tasks: Mapping[str, Task], is_other: bool, dense: Collection[str]
) -> None:
    """Refuses data that a reference cannot be fitted to.

    Args:
        kind: The reference.
        tasks: {name: task}.
        is_other: Whether inputs are neither numbers nor categories: texts, graphs.
        dense: Tasks with a label for each token or pixel.

    Raises:
        UserError: The data are such.
    """
    if not issubclass(kind, Learner):
        return
    name = kind.__name__.lower()
    way_out = "the reference constant is for any data"
    if is_other:
        raise UserError(
            f"the reference {name} reads tables and images, no sequences or graphs; {way_out}"
        )
    for task, described in tasks.items():
        if task in dense:
            raise UserError(
                f"the reference {name} gives a row one label, but task '{task}' has one for each "
                f"token or pixel; {way_out}"
            )
        if find_kind(described) is None:
            raise UserError(
                f"the reference {name} does not know what the outputs of task '{task}' mean, "
                f"which is of the kind {type(described).__name__}; {way_out}"
            )


class ReferenceHeads:
    """A reference of all tasks, fitted to training rows.

    Args:
        reference: How a column is predicted.
        tasks: {name: task}.
        train: Training rows.
        val: Validation rows, which choose what a reference leaves open.
    """

    def __init__(
        self, reference: Reference, tasks: Mapping[str, Task], train: SplitRows, val: SplitRows
    ) -> None:
        self.reference = reference
        if train.x is not None and isinstance(reference, Learner):
            reference.learn_inputs(train.x)
        encoded = train.encode(reference), val.encode(reference)
        self.heads: dict[str, Head] = {}
        for name, task in tasks.items():
            inputs = encoded[0][name], encoded[1][name]
            targets = train.targets[name], val.targets[name]
            weights = train.weights_of(name), val.weights_of(name)
            self.heads[name] = fit_task(reference, name, task, inputs, targets, weights)

    def __call__(self, rows: SplitRows) -> dict[str, Tensor]:
        """Returns {task: outputs (N, O)} for the rows of a split."""
        encoded = rows.encode(self.reference)
        return {name: head(encoded[name]) for name, head in self.heads.items()}


def fit_task(
    reference: Reference,
    name: str,
    task: Task,
    inputs: tuple[Matrix, Matrix],
    targets: tuple[Tensor, Tensor],
    weights: tuple[Tensor, Tensor],
) -> Head:
    """Fits a reference to a task: one model, or one for each label or number of a vector.

    Args:
        reference: How a column is predicted.
        name: The task's name.
        task: The task.
        inputs: Encoded inputs (N, F) of training and validation rows.
        targets: Targets (N,) or (N, L) of the same rows.
        weights: Weights (N,) of the same rows.
    """
    kind = find_kind(task)
    if kind is None:
        return repeat_outputs(minimise_loss(task, targets[0], weights[0]))
    if isinstance(task, Classification):
        train = label(inputs[0], targets[0], weights[0], task.class_weights)
        val = label(inputs[1], targets[1], weights[1], task.class_weights)
        predict = fit_classes(reference, name, train, val, len(task.classes))
        if isinstance(task, Ordinal):
            return lambda x: task.to_outputs(torch.from_numpy(predict(x))).float()
        return lambda x: to_outputs(predict(x))

    # each column of a vector is a problem of its own
    columns = [name]
    if isinstance(task, MultilabelClassification):
        columns = [f"{name}.{label}" for label in task.labels]
    elif isinstance(task, Regression) and task.names:
        columns = [f"{name}.{output}" for output in task.names]
    fitted = []
    for k, column in enumerate(columns):
        factors = None if isinstance(task, Regression) else (1.0, find_pos_weight(task, k))
        own = [y if y.ndim == 1 else y[:, k] for y in targets]
        train = label(inputs[0], own[0], weights[0], factors)
        val = label(inputs[1], own[1], weights[1], factors)
        if isinstance(task, Regression):
            fitted.append(fit_numbers(reference, column, train, val, task.monitor == "mae"))
        else:
            fitted.append(to_logits(fit_classes(reference, column, train, val, 2)))
    return lambda x: to_outputs(np.stack([predict(x) for predict in fitted], 1))


def label(
    x: Matrix, targets: Tensor, weights: Tensor, class_weights: tuple[float, ...] | None = None
) -> Labelled:
    """Returns the rows whose label is known and counts in the loss.

    Args:
        x: (N, F) inputs.
        targets: (N,) targets.
        weights: (N,) weights of the rows.
        class_weights: A factor on the loss of each class, or none.
    """
    known = is_labelled(targets).numpy()
    y = targets.numpy()
    weight = weights.double().numpy().copy()
    if class_weights is not None:
        weight[known] *= np.asarray(class_weights)[y[known].astype(int)]
    return Labelled(x, y, weight).keep(known & (weight > 0))


def find_pos_weight(task: Task, label: int) -> float:
    """Returns the factor on the loss of positive elements."""
    weight = getattr(task, "pos_weight", 1.0)
    return weight[label] if isinstance(weight, tuple) else weight


def fit_classes(
    reference: Reference, column: str, train: Labelled, val: Labelled, classes: int
) -> Predictor:
    """Fits a model of classes; one that training rows do not have is given the half of a row.

    Returns:
        Maps encoded inputs to log probabilities (N, classes).
    """
    seen = np.unique(train.y).astype(int)
    rest = np.log(HALF / max(len(train), 1))
    found = np.full(classes, rest)
    if len(seen) < 2:
        found[seen] = 0.0
        return repeat(found)
    predict = reference.classify(column, train, val.keep(np.isin(val.y, seen)))

    def predict_all(x: Matrix) -> np.ndarray:
        scores = np.full((x.shape[0], classes), rest)
        scores[:, seen] = predict(x)
        return scores

    return predict_all


def fit_numbers(
    reference: Reference, column: str, train: Labelled, val: Labelled, absolute: bool
) -> Predictor:
    """Fits a model of standardised numbers; it is 0, their mean, where no label is known."""
    if not len(train):
        return repeat(0.0)
    return reference.regress(column, train, val, absolute)


def to_logits(predict: Predictor) -> Predictor:
    """Turns log probabilities (N, 2) into the logit (N,) of the second class."""

    def predict_logits(x: Matrix) -> np.ndarray:
        scores = predict(x)
        return scores[:, 1] - scores[:, 0]

    return predict_logits


def to_outputs(values: np.ndarray) -> Tensor:
    """Returns numbers as a head's outputs, fp32."""
    return torch.from_numpy(np.array(values)).float()


def repeat_outputs(outputs: Tensor) -> Head:
    """Returns a head of the same outputs (O,) for each row."""
    return lambda x: outputs.expand(x.shape[0], -1)


def minimise_loss(task: Task, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Returns the constant outputs (O,) with the lowest training loss, for any kind of task.

    Args:
        task: The task.
        targets: (N,) or (N, L) targets.
        weights: (N,) weights of the rows; None weighs all alike.
    """
    known = is_labelled(targets)
    rows = known if known.ndim == 1 else known.any(1)
    kept = targets[rows]
    own = (torch.ones(len(targets)) if weights is None else weights)[rows].double()
    own = expand_weights(own, kept)
    total = (own * known[rows]).sum()
    kept = kept.double() if kept.is_floating_point() else kept
    outputs = torch.zeros(task.out_features, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [outputs], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = task.losses(outputs.expand(len(kept), -1), kept)
        loss = (own * losses).sum() / total
        loss.backward()
        return loss

    if len(kept):
        with torch.inference_mode(False), torch.enable_grad():
            optimizer.step(closure)
    return outputs.detach().float()


def measure(
    heads: Callable[[SplitRows], Mapping[str, Tensor]],
    tasks: Mapping[str, Task],
    splits: Mapping[str, SplitRows],
    batch_size: int,
    score_weights: Mapping[str, float] | None = None,
) -> dict[str, dict[str, float]]:
    """Measures a reference on validation rows, which choose thresholds, and then on test rows.

    It runs on one process: nothing waits for others.

    Args:
        heads: Maps the rows of a split to {task: outputs (N, O)}.
        tasks: {name: task}.
        splits: The rows of 'val' and perhaps 'test'.
        batch_size: Rows of a batch.
        score_weights: {task: weight of its score}; None weighs all alike.

    Returns:
        {'validation', 'test': {key: value}}, as a run keeps its metrics.
    """
    metrics = {name: task.assemble_metrics() for name, task in tasks.items()}
    for collection in metrics.values():
        for metric in collection.values():
            metric.distributed_available_fn = lambda: False
    chosen = dict(tasks)
    found = {}
    for stage, key in STAGES.items():
        if stage not in splits:
            continue
        rows = splits[stage]
        outputs = heads(rows)
        evaluation = TaskEvaluation(tasks, metrics, chosen, score_weights)
        losses = {}
        for name, task in tasks.items():
            total = 0.0
            count = 0.0
            batches = outputs[name].split(batch_size), rows.targets[name].split(batch_size)
            of_rows = rows.weights_of(name).split(batch_size)
            for (output, target), known in zip(map(fill_up, *batches), of_rows, strict=True):
                weights = F.pad(known, (0, len(target) - len(known)))
                own = weights if name in rows.weights else None
                task.update_metrics(metrics[name], output, target, own)
                elements = expand_weights(weights, target)
                total += float((elements * task.losses(output, target)).sum())
                count += float((elements * is_labelled(target)).sum())
            losses[name] = total, count
        found[key] = evaluation.finish(stage, losses, choose=stage == "val")
    return found


def fill_up(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Fills a batch up to a multiple of ``EVEN`` rows; the labels of the added ones are missing.

    torch computes the last numbers of an uneven batch one by one, with another rounding: of equal
    logits, theirs would be other probabilities, and a constant would seem to rank rows.
    """
    added = -len(outputs) % EVEN
    if not added or not len(outputs):
        return outputs, targets
    missing = float("nan") if targets.is_floating_point() else MISSING
    more = outputs[-1:].expand(added, *outputs.shape[1:])
    none = targets.new_full((added, *targets.shape[1:]), missing)
    return torch.cat([outputs, more]), torch.cat([targets, none])


def find_worse(
    tasks: Mapping[str, Task],
    found: Mapping[str, float],
    constant: Mapping[str, float],
    stages: Collection[str] = ("val", "test"),
) -> list[str]:
    """Describes the tasks that are predicted no better than by a constant, by their monitor.

    Args:
        tasks: {name: task}.
        found: {stage/task/metric: value} of a model.
        constant: The same of the constant.
        stages: The stages to look at.
    """
    worse = []
    for name, task in tasks.items():
        for stage in stages:
            key = f"{stage}/{name}/{task.monitor}"
            ours = found.get(key, float("nan"))
            theirs = constant.get(key, float("nan"))
            # of two numbers that are not defined none is better
            if (ours >= theirs) if task.prefers_less(task.monitor) else (ours <= theirs):
                metric = spell_metric(task.monitor)
                worse.append(f"{name}: {stage} {metric} {ours:.4g} (constant {theirs:.4g})")
    return worse
