import pytest
import torch

from src.batch import SENSITIVE
from src.errors import UserError
from src.models.fairness import GroupDRO
from tests.models.fairness.examples import GROUPS, TASKS, make_batch, make_heads, make_outputs


def test_weights_and_losses_are_those_of_the_paper() -> None:
    heads = make_heads()
    names = [name for group in heads.groups for name in group.names]
    fairness = GroupDRO({name: TASKS[name] for name in names}, GROUPS, step_size=0.5)
    q = {name: [1 / 3] * 3 for name in names}
    for step in range(4):
        batch = make_batch(seed=step)
        if step == 2:
            # a batch without the last group
            batch.extras[SENSITIVE].clamp_(max=1)
        outputs = make_outputs(heads, seed=10 + step)
        sums_T, counts_T = fairness.loss_sums(heads, outputs, batch, learns=True)
        ours = torch.autograd.grad((sums_T / counts_T).sum(), outputs)

        robust = []
        for name in names:
            losses = []
            for g in range(3):
                # the losses of the group's rows alone
                only = {
                    key: target.masked_fill(
                        (batch.extras[SENSITIVE] != g).view(-1, *[1] * (target.ndim - 1)),
                        float("nan") if target.is_floating_point() else -100,
                    )
                    for key, target in batch.targets.items()
                }
                total, count = heads.loss_sums(outputs, only, batch.weights)
                place = names.index(name)
                losses.append(total[place] / count[place].clamp(min=1e-300))
            grown = [
                w * float(torch.exp(0.5 * own.detach()))
                for w, own in zip(q[name], losses, strict=True)
            ]
            q[name] = [w / sum(grown) for w in grown]
            robust.append(sum(w * own for w, own in zip(q[name], losses, strict=True)))
        theirs = torch.autograd.grad(torch.stack(robust).sum(), outputs)  # type: ignore[arg-type]

        torch.testing.assert_close(sums_T / counts_T, torch.stack(robust))  # type: ignore[arg-type]
        torch.testing.assert_close(float(counts_T.sum()), float(len(names)))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)
        for t, name in enumerate(names):
            assert fairness.weights_GT[:, t].tolist() == pytest.approx(q[name], rel=1e-12)

    shown = fairness.measure()
    assert shown["weight/binary/c"] == pytest.approx(q["binary"][2])
    assert len(fairness.summary()) == 1


def test_a_second_look_moves_no_weight() -> None:
    heads = make_heads()
    names = [name for group in heads.groups for name in group.names]
    fairness = GroupDRO({name: TASKS[name] for name in names}, GROUPS, step_size=0.5)
    fairness.loss_sums(heads, make_outputs(heads), make_batch(), learns=False)
    assert torch.equal(fairness.weights_GT, torch.full((3, 6), 1 / 3, dtype=torch.float64))
    assert "train/binary/loss/a" not in fairness.measure()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"model.fairness.step_size is -0.1"):
        GroupDRO(TASKS, GROUPS, step_size=-0.1)
    with pytest.raises(UserError, match=r"model.fairness.adjustment is inf"):
        GroupDRO(TASKS, GROUPS, adjustment=float("inf"))
