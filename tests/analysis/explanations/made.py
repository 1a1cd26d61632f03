"""Rows, features and networks for tests of explanations."""

from functools import partial

import torch
from torch.optim import SGD

from src.analysis.explanations.methods import Explained
from src.analysis.explanations.path import Features, InputPath
from src.balancing import StaticWeights
from src.cli.explaining.layout import list_features
from src.cli.selection_rows import as_dict
from src.models import MultiTaskModel
from tests.models.test_matrix import TASKS, in_double


def make_model(encoder, shape, sharing):
    """A network in double precision, its weights away from zeros, in evaluation."""
    model = MultiTaskModel(
        TASKS, shape, encoder, sharing, StaticWeights, partial(SGD, lr=0.1), None
    )
    model.configure_model()
    model.double().eval().requires_grad_(False)
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.add_(0.05 * torch.randn(p.shape, generator=draw, dtype=torch.float64))
    return model


def make_baseline(inputs):
    """A baseline that a network can read as a row: numbers, and the first word of each column."""
    draw = torch.Generator().manual_seed(7)
    found = {}
    for key, values in as_dict(inputs).items():
        if values.is_floating_point():
            found[key] = torch.randn(1, *values.shape[1:], generator=draw, dtype=torch.float64)
        else:
            found[key] = torch.ones(1, *values.shape[1:], dtype=torch.long)
    return found


def make_rows(shape, rows=4):
    """Inputs in double precision, their features, and a path to each from a baseline."""
    inputs = in_double(shape.example(rows))
    features = list_features(shape, inputs, coarse=False)
    return inputs, InputPath(inputs, make_baseline(inputs), features)


def sum_outputs(outputs, plain):
    """A number of a row: all its outputs, at all its places, in uneven parts."""
    weights = torch.linspace(1, 2, outputs[0].numel(), dtype=outputs.dtype)
    return outputs.flatten(1) @ weights


def explain(model, inputs, path, task="number", read=sum_outputs, size=1000):
    """A number of a network, explained on some rows."""
    plain = model(inputs)[task]
    return Explained(path, lambda own: model(own)[task], read, plain, size)


def make_columns(count):
    """Features that are columns of numbers."""
    names = tuple(f"x{k}" for k in range(count))
    every = torch.arange(count)
    return Features(names, names, every, {"dense": every})
