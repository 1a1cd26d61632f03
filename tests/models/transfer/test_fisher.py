"""The Fisher information against gradients of single rows, and where it is known in closed form."""

import torch

from src.models.transfer.fisher import measure_fisher
from tests.models.test_heads import model_of
from tests.toy import Toy


class Wide:
    """Rows of a toy with inputs as wide as the models of these tests."""

    def __init__(self, tasks):
        self.rows = Toy().split("train")
        self.tasks = tasks
        self.x = torch.randn(len(self.rows), 6, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, ids):
        batch = self.rows[ids]
        batch.inputs = self.x[ids].double()
        targets = {name: batch.targets[name] for name in self.tasks}
        batch.targets = {k: y.double() if y.is_floating_point() else y for k, y in targets.items()}
        return batch


def test_it_is_the_mean_of_squared_gradients_of_each_row_and_task():
    tasks = Toy().tasks
    model = model_of(tasks).double()
    rows = Wide(tasks)
    found = measure_fisher(model, rows, len(rows))

    p = next(p for p in model.sharing.parameters() if p.ndim > 1)
    expected = torch.zeros_like(p)
    for n in range(len(rows)):
        batch = rows[torch.tensor([n])]
        sums_T, counts_T = model.heads.loss_sums(
            model.heads(model.sharing(batch.inputs)), batch.targets
        )
        for k in range(len(sums_T)):
            if counts_T[k]:
                expected += torch.autograd.grad(sums_T[k], p, retain_graph=True)[0] ** 2
    name = next(name for name, q in model.named_parameters() if q is p)
    torch.testing.assert_close(found[name], expected / len(rows), rtol=1e-9, atol=1e-12)


def test_of_a_linear_output_it_is_the_mean_of_squared_residuals_times_inputs():
    tasks = {"number": Toy().tasks["number"]}
    model = model_of(tasks).double()
    rows = Wide(tasks)
    found = measure_fisher(model, rows, len(rows))
    batch = rows[torch.arange(len(rows))]
    z = model.sharing(batch.inputs)["number"]
    y = batch.targets["number"]
    residual = 2 * (model.heads.split(model.heads({"number": z}))["number"][:, 0] - y)
    g = (residual[:, None] * z).nan_to_num()
    name = next(name for name in found if name.startswith("heads.number") and "weight" in name)
    torch.testing.assert_close(found[name][0], (g**2).mean(0).detach(), rtol=1e-9, atol=1e-12)


def test_rows_are_spread_evenly_and_frozen_weights_stay_frozen():
    tasks = {"number": Toy().tasks["number"]}
    model = model_of(tasks).double()
    for p in model.sharing.parameters():
        p.requires_grad_(False)
    rows = Wide(tasks)
    read = []
    get = rows.__getitem__

    class Noted(Wide):
        def __getitem__(self, ids):
            read.extend(ids.tolist())
            return get(ids)

    found = measure_fisher(model, Noted(tasks), 3)
    assert read == [0, 105, 210]
    assert all(not p.requires_grad for p in model.sharing.parameters())
    assert any(f.any() for name, f in found.items() if name.startswith("sharing."))
