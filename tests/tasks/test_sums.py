import torch

from src.tasks.sums import Sums, spread_weights


def test_sums_of_batches_with_weights():
    metric = Sums(2)
    metric.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    metric.update(torch.tensor([[1.0, 1.0], [5.0, 7.0]]), torch.tensor([2.0, 0.5]))
    assert metric.compute().tolist() == [1 + 3 + 2 + 2.5, 2 + 4 + 2 + 3.5]
    assert metric.compute().dtype == torch.float64


def test_weights_of_rows_are_those_of_each_label():
    weights = torch.tensor([1.0, 3.0])
    assert spread_weights(weights, torch.zeros(2, 3)).tolist() == [1, 1, 1, 3, 3, 3]
    assert spread_weights(weights, torch.zeros(2)).tolist() == [1, 3]
