import torch

from src.models.meta.inner_loop import descend, run_each


def quadratic(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    return 0.5 * (parameters["a"] ** 2).sum() + 3 * parameters["b"].sum()


def test_it_descends_at_the_rate_of_each_parameter():
    start = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([0.5])}
    path = list(descend(quadratic, start, {"a": 0.1, "b": 0.01}, 2, first_order=False))
    assert len(path) == 3
    assert path[0] is start
    torch.testing.assert_close(path[2]["a"], torch.tensor([1.0, -2.0]) * 0.9**2)
    torch.testing.assert_close(path[2]["b"], torch.tensor([0.5 - 2 * 0.01 * 3]))


def test_a_first_order_gradient_is_a_constant():
    for first_order, expected in ((False, 0.9), (True, 1.0)):
        a = torch.tensor([2.0], requires_grad=True)
        start = {"a": a, "b": torch.zeros(1)}
        *_, end = descend(quadratic, start, {"a": 0.1, "b": 0.1}, 1, first_order)
        (gradient,) = torch.autograd.grad(end["a"].sum(), a)
        assert float(gradient) == torch.tensor(expected)


def test_together_or_one_by_one():
    shared = {"w": torch.tensor([1.0, 2.0])}
    rows = {"x": torch.arange(12.0).view(3, 2, 2)}
    y = torch.arange(3.0)

    def function(w, x, y):
        return [x["x"] @ w["w"] + y, y * 2]

    together = run_each(function, (shared,), rows, y, batched=True)
    alone = run_each(function, (shared,), rows, y, batched=False)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)
    assert together[0].shape == (3, 2)
    assert float(together[0][1, 0]) == 4 + 2 * 5 + 1
