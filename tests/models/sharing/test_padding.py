"""Every sharing architecture keeps the features of padding at zero, and does not read it."""

from functools import partial

import pytest
import torch

from src.batch import InputShape
from src.models.encoders import Transformer
from tests.models.test_matrix import SHARINGS

SHAPE = InputShape(tokens=9, parts=5)
LENGTHS = (6, 4, 1)
TASKS = ("a", "b", "c", "d")


def draw_inputs(length):
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 9, (len(LENGTHS), 6), generator=draw)
    parts = torch.randint(1, 5, (len(LENGTHS), 6, 3), generator=draw)
    real = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    more = length - 6
    return {
        "tokens": torch.nn.functional.pad(tokens * real, (0, more)),
        "parts": torch.nn.functional.pad(parts * real[..., None], (0, 0, 0, more)),
    }


def make_sharing(name, seed):
    """An architecture whose weights are random, so that no bias is 0."""
    torch.manual_seed(seed)
    encoder = partial(Transformer, SHAPE, width=4, depth=2, heads=2)
    sharing = SHARINGS[name](encoder, TASKS).double()
    with torch.no_grad():
        for p in sharing.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return sharing


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(SHARINGS))
def test_features_of_padding_are_zero_and_not_read(name, training):
    for seed in range(2):
        sharing = make_sharing(name, seed).train(training)
        found = []
        for length in (6, 9):
            torch.manual_seed(0)
            with torch.no_grad():
                features = sharing(draw_inputs(length))
            assert set(features) == set(TASKS)
            found.append(features)
            for z in features.values():
                for row, real in enumerate(LENGTHS):
                    assert z[row, real:].abs().sum() == 0
                    assert z[row, :real].abs().sum(-1).min() > 0
        # more padding changes nothing
        for task, z in found[0].items():
            torch.testing.assert_close(found[1][task][:, :6], z)
