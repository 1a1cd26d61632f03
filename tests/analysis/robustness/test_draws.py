"""Random numbers of corruptions depend on the row, and on nothing beside it."""

import torch
from scipy.stats import kstest

from src.analysis.robustness.draws import RowDraws

IDS = torch.tensor([7, 0, 3, 12_345])


def test_a_row_has_its_numbers_in_any_batch():
    together = RowDraws(3, "noise", 2, IDS).draw_normal("a", 5)
    for place, row in enumerate(IDS):
        alone = RowDraws(3, "noise", 2, row[None]).draw_normal("a", 5)
        assert torch.equal(alone[0], together[place])


def test_a_shorter_row_has_the_first_numbers_of_a_longer_one():
    draws = RowDraws(3, "tokens", 2, IDS)
    assert torch.equal(draws.draw_uniform("a", 9)[:, :4], draws.draw_uniform("a", 4))


def test_seed_corruption_severity_row_and_stream_each_change_the_numbers():
    def draw(seed=0, name="noise", severity=1, row=0, stream="a"):
        return RowDraws(seed, name, severity, torch.tensor([row])).draw_uniform(stream, 4)

    changes = {"seed": 1, "name": "missing", "severity": 2, "row": 1, "stream": "b"}
    found = [draw(), *(draw(**{key: value}) for key, value in changes.items())]
    assert len({tuple(one[0].tolist()) for one in found}) == len(found)


def test_numbers_are_uniform_and_normal():
    draws = RowDraws(0, "noise", 1, torch.arange(5000))
    assert kstest(draws.draw_uniform("a", 4).flatten().numpy(), "uniform").pvalue > 0.01
    assert kstest(draws.draw_normal("a", 4).flatten().numpy(), "norm").pvalue > 0.01
