"""References of whole tasks of each kind: outputs, missing labels, and metrics by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, r2_score, roc_auc_score

from src.analysis.reference_tasks import (
    ReferenceHeads,
    SplitRows,
    find_kind,
    find_worse,
    measure,
    minimise_loss,
    refuse_unfit,
)
from src.analysis.references import Boosting, Constant, Linear
from src.batch import InputShape
from src.errors import UserError
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    is_labelled,
)
from src.tasks.decisions import find_best_threshold
from tests.toy import Toy

TASKS = Toy().tasks
SHAPE = Toy().input_shape


def split_rows(inputs=True):
    """Returns rows of one kind, which the splits of the toy are not, labels missing among them."""
    whole = Toy().split("train")
    found = {}
    for name, first, step in (("train", 0, 2), ("val", 1, 4), ("test", 3, 4)):
        rows = whole[torch.arange(first, 211, step)]
        found[name] = SplitRows(rows.inputs.numpy() if inputs else None, rows.targets)
    return found


@dataclass(frozen=True, kw_only=True)
class Counts(Regression):
    """Log rates of counts, whose outputs are no standardised numbers."""

    def losses(self, outputs, targets):
        mask = is_labelled(targets)
        known = targets.where(mask, 0)
        return F.poisson_nll_loss(outputs.squeeze(-1), known, reduction="none") * mask

    def predict(self, outputs):
        return outputs.exp()


# -- outputs ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Constant, Linear, Boosting])
def test_outputs_of_each_kind_of_task_are_those_of_a_head(kind):
    rows = split_rows(kind is not Constant)
    heads = ReferenceHeads(kind(SHAPE, 0), TASKS, rows["train"], rows["val"])
    outputs = heads(rows["test"])
    for name, task in TASKS.items():
        assert outputs[name].shape == (52, task.out_features)
        assert outputs[name].dtype == torch.float32
        assert outputs[name].isfinite().all()
    if kind is Constant:
        return

    # far better than a constant where there is something to learn
    found = measure(heads, TASKS, rows, 24)["test"]
    assert found["test/number/r2"] > 0.6
    assert found["test/vector/r2"] > 0.6
    assert found["test/binary/auroc"] > 0.85
    assert found["test/labels/auroc"] > 0.85
    assert found["test/class/accuracy"] > 0.6


@pytest.mark.parametrize("kind", [Linear, Boosting])
def test_rows_without_a_label_are_left_out(kind):
    rows = split_rows()
    tasks = {name: TASKS[name] for name in ("binary", "vector")}
    heads = ReferenceHeads(kind(SHAPE, 0), tasks, rows["train"], rows["val"])

    # the model of a label is the one of the rows that have it
    known = is_labelled(rows["train"].targets["binary"])
    fewer = SplitRows(rows["train"].x[known], {"binary": rows["train"].targets["binary"][known]})
    of_binary = {"binary": tasks["binary"]}
    reference = kind(SHAPE, 0)
    alone = ReferenceHeads(reference, of_binary, fewer, rows["val"])(rows["test"])["binary"]
    both = heads(rows["test"])["binary"]
    # inputs are scaled by all training rows
    tolerance = 0.05 if kind is Linear else 1e-6
    torch.testing.assert_close(alone, both, rtol=tolerance, atol=tolerance)
    assert 0 < int(known.sum()) < 106


def test_a_constant_has_shares_log_odds_and_means():
    tasks = {
        "c": Classification(classes=("a", "b", "c", "d")),
        "b": BinaryClassification(classes=("n", "y"), pos_weight=3.0),
        "m": MultilabelClassification(labels=("u", "v")),
        "r": Regression(mean=(0.0,), std=(1.0,)),
        "e": Regression(mean=(0.0,), std=(1.0,), monitor="mae"),
        "v": Regression(names=("u", "v"), mean=(0.0, 0.0), std=(1.0, 1.0)),
        "none": Regression(mean=(0.0,), std=(1.0,)),
    }
    nan = float("nan")
    numbers = torch.tensor([0.0, 1.0, 5.0, nan])
    targets = {
        "c": torch.tensor([0, 0, 1, -100]),
        "b": torch.tensor([0.0, 1.0, nan, 0.0]),
        "m": torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, nan], [0.0, 1.0]]),
        "r": numbers,
        "e": numbers,
        "v": torch.stack([numbers, -numbers], 1),
        "none": torch.full((4,), nan),
    }
    rows = SplitRows(None, targets)
    outputs = ReferenceHeads(Constant(InputShape((1,)), 0), tasks, rows, rows)(rows)
    assert all((output == output[0]).all() for output in outputs.values())
    first = {name: output[0].double() for name, output in outputs.items()}

    # a class that training rows do not have is given the half of a row
    shares = torch.tensor([2 / 3, 1 / 3, 1 / 6, 1 / 6], dtype=torch.float64)
    torch.testing.assert_close(first["c"], shares.log(), rtol=1e-6, atol=0)
    assert float(first["b"]) == pytest.approx(np.log(3 * 1 / 2), rel=1e-6)
    assert float(first["m"][0]) == pytest.approx(np.log(1 / 3), rel=1e-6)
    assert float(first["m"][1]) == pytest.approx(np.log(3 / 0.5), rel=1e-6)
    assert first["r"].tolist() == [2.0]
    assert first["e"].tolist() == [1.0]
    assert first["v"].tolist() == [2.0, -2.0]
    assert first["none"].tolist() == [0.0]


@settings(max_examples=15)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_the_constant_of_lowest_loss_is_the_known_one(classes):
    """Where both are defined, the search finds the closed form."""
    # one label of each class, so that no score is infinite
    y = torch.tensor([0, 1, 2, *classes])
    task = Classification(classes=("a", "b", "c"))
    found = minimise_loss(task, y).log_softmax(-1).exp()
    torch.testing.assert_close(found, torch.bincount(y) / len(y), rtol=1e-4, atol=1e-5)
    numbers = torch.cat([y.float(), torch.tensor([float("nan")])])
    found = minimise_loss(Regression(mean=(0.0,), std=(1.0,)), numbers)
    torch.testing.assert_close(found, y.float().mean()[None], rtol=1e-4, atol=1e-5)


def test_a_kind_that_nobody_knows_has_the_constant_of_lowest_loss():
    task = Counts(mean=(0.0,), std=(1.0,))
    assert find_kind(task) is None
    targets = torch.tensor([0.0, 3.0, float("nan"), 9.0])
    rows = SplitRows(None, {"n": targets})
    heads = ReferenceHeads(Constant(InputShape((1,)), 0), {"n": task}, rows, rows)
    assert heads(rows)["n"][:, 0].exp().tolist() == pytest.approx([4.0] * 4, rel=1e-5)
    assert minimise_loss(task, torch.full((3,), float("nan"))).tolist() == [0.0]


def test_kinds_are_known_by_the_meaning_of_their_outputs():
    assert [find_kind(task) for task in TASKS.values()] == [
        Classification,
        Classification,
        BinaryClassification,
        BinaryClassification,
        MultilabelClassification,
        Regression,
        Regression,
        Regression,
    ]

    @dataclass(frozen=True, kw_only=True)
    class Robust(Regression):
        def losses(self, outputs, targets):
            return super().losses(outputs, targets).tanh()

    assert find_kind(Robust()) is Regression


def test_labels_of_tokens_count_one_by_one():
    task = Classification(classes=("a", "b"))
    targets = torch.tensor([0, 0, 0, 1, -100])  # of two sequences, flattened
    rows = SplitRows(None, {"tags": targets})
    heads = ReferenceHeads(Constant(InputShape(tokens=7), 0), {"tags": task}, rows, rows)
    found = measure(heads, {"tags": task}, {"val": rows}, 2)["validation"]
    assert found["val/tags/accuracy"] == 0.75
    assert found["val/tags/loss"] == pytest.approx(-(3 * np.log(0.75) + np.log(0.25)) / 4, rel=1e-6)


def test_data_that_do_not_suit_are_refused():
    refuse_unfit(Constant, {"n": Counts()}, True, ["n"])
    refuse_unfit(Linear, TASKS, False, [])
    with pytest.raises(UserError, match="linear reads tables and images, no sequences"):
        refuse_unfit(Linear, TASKS, True, [])
    with pytest.raises(UserError, match="task 'rare' has one for each token or pixel"):
        refuse_unfit(Boosting, TASKS, False, ["rare"])
    with pytest.raises(UserError, match="boosting does not know what the outputs of task 'n' mean"):
        refuse_unfit(Boosting, {"n": Counts()}, False, [])


# -- metrics ---------------------------------------------------------------------------------------
def test_metrics_are_those_of_scikit_learn_at_the_threshold_of_validation_rows():
    rows = split_rows()
    tasks = {name: TASKS[name] for name in ("class2", "binary", "number")}
    heads = ReferenceHeads(Linear(SHAPE, 0), tasks, rows["train"], rows["val"])
    # validation rows for which another threshold than 0.5 is right
    logits = heads(rows["val"])["binary"].squeeze(1)
    positive = logits > logits.quantile(0.8)
    missing = rows["val"].targets["binary"].isnan()
    rows["val"].targets["binary"] = positive.float().masked_fill(missing, float("nan"))
    found = measure(heads, tasks, rows, 24)
    outputs = {stage: heads(rows[stage]) for stage in ("val", "test")}

    def known(stage, name):
        targets = rows[stage].targets[name]
        mask = is_labelled(targets)
        return outputs[stage][name][mask].double(), targets[mask]

    logits, y = known("val", "binary")
    threshold = find_best_threshold(logits.squeeze(1).sigmoid(), y == 1)
    assert threshold > 0.6
    logits, y = known("test", "binary")
    scores = logits.squeeze(1).sigmoid().numpy()
    test = found["test"]
    assert test["test/binary/f1"] == pytest.approx(f1_score(y, scores > threshold), rel=1e-6)
    assert test["test/binary/accuracy"] == pytest.approx(
        accuracy_score(y, scores > threshold), rel=1e-6
    )
    assert test["test/binary/auroc"] == pytest.approx(roc_auc_score(y, scores), rel=1e-6)

    logits, y = known("test", "class2")
    p = logits.softmax(1).numpy()
    assert test["test/class2/accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)), rel=1e-6)
    smooth = 0.9 * log_loss(y, p, labels=[0, 1, 2]) - 0.1 * np.log(p).mean()
    assert test["test/class2/loss"] == pytest.approx(smooth, rel=1e-5)

    numbers, y = known("test", "number")
    assert test["test/number/r2"] == pytest.approx(r2_score(y, numbers.squeeze(1)), rel=1e-5)
    assert test["test/number/loss"] == pytest.approx(
        float(((numbers.squeeze(1) - y) ** 2).mean()), rel=1e-5
    )
    wanted = np.mean([test[f"test/{n}/{tasks[n].monitor}"] for n in tasks])
    assert test["test/score"] == pytest.approx(wanted, rel=1e-6)
    weighed = measure(
        heads, tasks, {"val": rows["val"]}, 24, {"number": 1.0, "binary": 0.0, "class2": 0.0}
    )
    assert weighed.keys() == {"validation"}
    validation = weighed["validation"]
    assert validation["val/score"] == pytest.approx(validation["val/number/r2"], rel=1e-6)


def test_the_size_of_batches_does_not_matter():
    rows = split_rows(inputs=False)
    heads = ReferenceHeads(Constant(SHAPE, 0), TASKS, rows["train"], rows["val"])
    found = [measure(heads, TASKS, rows, size) for size in (7, 1000)]
    for stage in ("validation", "test"):
        short = stage.replace("idation", "")
        assert found[0][stage][f"{short}/binary/auroc"] == 0.5
        for key, value in found[0][stage].items():
            assert value == pytest.approx(found[1][stage][key], rel=1e-5, abs=1e-6, nan_ok=True), (
                key
            )


def test_what_is_no_better_than_a_constant():
    tasks = {
        "a": BinaryClassification(classes=("n", "y")),
        "b": Regression(mean=(0.0,), std=(1.0,), monitor="mae"),
    }
    constant = {"val/a/auroc": 0.5, "test/a/auroc": 0.5, "val/b/mae": 0.8, "test/b/mae": 0.9}
    found = {"val/a/auroc": 0.7, "test/a/auroc": 0.48, "val/b/mae": 1.25, "test/b/mae": 0.7}
    assert find_worse(tasks, found, constant) == [
        "a: test AUROC 0.48 (constant 0.5)",
        "b: val MAE 1.25 (constant 0.8)",
    ]
    assert find_worse(tasks, found | {"val/b/mae": float("nan")}, constant, ["val"]) == []
    assert find_worse(tasks, found | {"val/a/auroc": 0.5, "val/b/mae": 0.8}, constant, ["val"]) == [
        "a: val AUROC 0.5 (constant 0.5)",
        "b: val MAE 0.8 (constant 0.8)",
    ]
