"""Calibrators fitted to the outputs and labels of rows that trained nothing, in fp64."""

from collections.abc import Callable
from functools import partial
from math import exp, log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.errors import UserError
from src.tasks.binary import BinaryClassification
from src.tasks.calibration.calibrators import (
    Calibrator,
    OrdinalTemperature,
    Platt,
    QuantileMap,
    Temperature,
)
from src.tasks.calibration.likelihood import compute_nll
from src.tasks.classification import Classification
from src.tasks.increments import LEAST
from src.tasks.labels import is_labelled
from src.tasks.multilabel import MultilabelClassification
from src.tasks.ordinal import Ordinal
from src.tasks.quantiles import Quantiles
from src.tasks.task import Task

HIGHEST = 50.0  # a temperature beyond it, or below its inverse, is no finding
HALVINGS = 60  # of an interval of temperatures
STEPS = 100  # of Newton's method


def fit_calibrator(
    task: Task, outputs: Tensor, targets: Tensor, weights: Tensor | None = None
) -> Calibrator:
    """Returns the calibrator of a task.

    Args:
        task: The task.
        outputs: (N, ..., O) as the network gives them.
        targets: (N, ...) or (N, ..., L); elements whose label is missing do not count.
        weights: (N,) weights of the rows; None weighs all alike.

    Raises:
        UserError: There is no calibrator of such a task, or the rows tell none.
    """
    if not is_labelled(targets).any():
        raise UserError("no validation row has a label")
    rows = torch.ones(len(targets)) if weights is None else weights
    if isinstance(task, BinaryClassification):
        return fit_platt(outputs, targets[..., None], rows)
    if isinstance(task, MultilabelClassification):
        return fit_platt(outputs, targets, rows)
    if isinstance(task, Ordinal):
        make = partial(OrdinalTemperature, method=task.method)
        return fit_temperature(task, make, outputs, targets, rows)
    if isinstance(task, Classification):
        return fit_temperature(task, Temperature, outputs, targets, rows)
    if isinstance(task, Quantiles) and len(task.levels) > 1:
        return fit_quantiles(task, outputs, targets, rows)
    raise UserError(
        f"a {type(task).__name__} predicts no distribution that could be mapped; Quantiles would"
    )


def fit_temperature(
    task: Classification,
    make: Callable[[float], Calibrator],
    outputs: Tensor,
    targets: Tensor,
    weights: Tensor,
) -> Calibrator:
    """Returns the calibrator of the temperature with the least negative log likelihood.

    That is convex in 1 / temperature, and so has one minimum in its logarithm, which golden
    sections find to nine digits.

    Args:
        task: The task.
        make: Makes the calibrator of a temperature.
        outputs: (N, ..., O).
        targets: (N, ...).
        weights: (N,).

    Raises:
        UserError: There is no least one.
    """
    x = outputs.double()

    def measure(log_temperature: float) -> float:
        losses = compute_nll(task, make(exp(log_temperature)).apply(x), targets)
        shape = [len(weights)] + [1] * (losses.ndim - 1)
        return float((losses * weights.double().view(shape)).sum())

    low, high = -log(HIGHEST), log(HIGHEST)
    golden = (5**0.5 - 1) / 2
    a, b = low, high
    c, d = b - golden * (b - a), a + golden * (b - a)
    at_c, at_d = measure(c), measure(d)
    for _ in range(HALVINGS):
        if at_c <= at_d:
            b, d, at_d = d, c, at_c
            c = b - golden * (b - a)
            at_c = measure(c)
        else:
            a, c, at_c = c, d, at_d
            d = a + golden * (b - a)
            at_d = measure(d)
        if b - a < 1e-7:
            break
    found = (a + b) / 2
    if found > high - 1e-3:
        raise UserError("labels of validation rows do not follow the predictions at all")
    if found < low + 1e-3:
        raise UserError("all validation rows are predicted right, which bounds no temperature")
    return make(exp(found))


# -- Platt -----------------------------------------------------------------------------------------
def fit_platt(outputs: Tensor, targets: Tensor, weights: Tensor) -> Platt:
    """Returns Platt's scaling of each label; one without both classes keeps its logits.

    Args:
        outputs: (N, ..., L) logits.
        targets: (N, ..., L) of 0, 1 or NaN.
        weights: (N,).

    Raises:
        UserError: The rows of no label tell a scaling.
    """
    elements = weights.double().view(-1, *[1] * (outputs.ndim - 1)).expand(outputs.shape)
    pairs: list[tuple[float, float]] = []
    reasons: list[str] = []
    for k in range(outputs.shape[-1]):
        y = targets[..., k].double()
        known = is_labelled(y) & (elements[..., k] > 0)
        try:
            pairs.append(
                find_platt(outputs[..., k].double()[known], y[known], elements[..., k][known])
            )
        except UserError as error:
            reasons.append(str(error))
            pairs.append((1.0, 0.0))
    if len(reasons) == len(pairs):
        raise UserError(reasons[0])
    return Platt(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def find_platt(x: Tensor, y: Tensor, weights: Tensor) -> tuple[float, float]:
    """Returns the a and b for which sigmoid(a x + b) has the least cross-entropy.

    Labels are softened as Platt has it, to (P + 1) / (P + 2) of P positive rows and 1 / (Q + 2) of
    Q negative ones, so that there is a finite optimum where a threshold parts the classes. Newton's
    method, with steps that are halved until the loss falls (Lin, Lin and Weng, Machine Learning
    2007).

    Args:
        x: (N,) logits, fp64.
        y: (N,) 0 or 1.
        weights: (N,) above 0.

    Raises:
        UserError: There is one class alone, or the order of rows is no better than chance.
    """
    positive = float((weights * y).sum())
    negative = float((weights * (1 - y)).sum())
    if not positive or not negative:
        raise UserError("all validation rows are of one class")
    t = torch.where(y > 0.5, (positive + 1) / (positive + 2), 1 / (negative + 2))

    # Newton's steps are well conditioned where logits have mean 0 and spread 1
    centre, spread = x.mean(), x.std(correction=0)
    if not spread > 0:
        raise UserError("all validation rows have the same prediction")
    z = torch.stack([(x - centre) / spread, torch.ones_like(x)], -1)

    def measure(parameters: Tensor) -> Tensor:
        logits = z @ parameters
        return (weights * (F.softplus(logits) - t * logits)).sum()

    parameters = torch.tensor([0.0, log((positive + 1) / (negative + 1))], dtype=torch.float64)
    loss = measure(parameters)
    for _ in range(STEPS):
        p = (z @ parameters).sigmoid()
        gradient = z.T @ (weights * (p - t))
        curvature = (z.T * (weights * p * (1 - p))) @ z + 1e-12 * torch.eye(2).double()
        step = torch.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-10 and measure(parameters - size * step) > loss:
            size /= 2
        parameters = parameters - size * step
        loss = measure(parameters)
        if (size * step).abs().max() < 1e-12:
            break
    slope = float(parameters[0] / spread)
    if slope <= 0:
        raise UserError(
            "the order of validation rows by their predictions is no better than chance"
        )
    return slope, float(parameters[1] - parameters[0] / spread * centre)


# -- quantiles -------------------------------------------------------------------------------------
def fit_quantiles(task: Quantiles, outputs: Tensor, targets: Tensor, weights: Tensor) -> Calibrator:
    """Returns the map of levels that rows tell, see :class:`QuantileMap`.

    The level of a label is where the predicted quantile function has it. R is the distribution of
    these levels, which is monotone as it is; R^-1(t) is their t-quantile.

    Args:
        task: The task.
        outputs: (N, Q).
        targets: (N,).
        weights: (N,).

    Raises:
        UserError: The rows are too few for the outer levels, or tell no order of them.
    """
    known = is_labelled(targets) & (weights > 0)
    quantiles = task.predict(outputs[known].double())
    levels = find_levels(quantiles, targets[known].double(), task.levels)
    outer = min(task.levels[0], 1 - task.levels[-1])
    if len(levels) < 1 / outer:
        raise UserError(f"{len(levels)} validation rows are too few for the level {outer:g}")
    ordered, places = levels.sort()
    shares = weights.double()[known][places]
    # each row stands in the middle of its own share
    middles = (shares.cumsum(0) - shares / 2) / shares.sum()
    read_at = np.interp(task.levels, middles.numpy(), ordered.numpy())
    calibrator = QuantileMap(task.levels, tuple(read_at.tolist()))
    if not calibrator.suits(task):
        raise UserError("labels of validation rows repeat too often to tell its quantiles apart")
    return calibrator


def find_levels(quantiles: Tensor, labels: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Returns the level (N,) at which a predicted quantile function has the label.

    The function is linear between quantiles, and goes on so beyond the outer ones.

    Args:
        quantiles: (N, Q), which increase.
        labels: (N,).
        levels: Their Q levels.
    """
    at = quantiles.new_tensor(levels)
    k = (quantiles < labels[:, None]).sum(-1).sub(1).clamp(0, len(levels) - 2)
    low = quantiles.gather(-1, k[:, None]).squeeze(-1)
    high = quantiles.gather(-1, k[:, None] + 1).squeeze(-1)
    share = (labels - low) / (high - low).clamp(min=LEAST)
    return at[k] + share * (at[k + 1] - at[k])
