"""Metrics that settings add: the numbers of torchmetrics on all rows whose label is known."""

import json
import math
from typing import Any

import pytest
import torch
import torchmetrics
import torchmetrics.classification as tmc
from torchmetrics import Metric

from src.data.kinds import task_from_plain
from src.errors import UserError
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression
from src.tasks.metric_classes import TaskMetric, find_known_classes

NAN = float("nan")
F2 = {"class_path": "FBetaScore", "init_args": {"beta": 2.0, "name": "F2"}}
G = torch.Generator().manual_seed(3)


class Youden(Metric):
    """Sensitivity + specificity - 1: a class that torchmetrics does not have."""

    higher_is_better = True
    full_state_update = False
    hits: torch.Tensor
    rows: torch.Tensor

    def __init__(self, threshold: float = 0.5, scale: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold
        self.scale = scale
        self.add_state("hits", torch.zeros(2), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, preds, target):
        for truth in (0, 1):
            of_class = target == truth
            self.hits[truth] += ((preds > self.threshold) == truth)[of_class].sum()
            self.rows[truth] += of_class.sum()

    def compute(self):
        return self.scale * ((self.hits / self.rows).sum() - 1)


class Silent(Youden):
    """A metric that does not say whether more of it is better."""

    higher_is_better = None  # type: ignore[assignment]


class Fragile(Youden):
    """A metric that some rows do not suit."""

    def compute(self):
        if self.rows.sum() < 10:
            raise RuntimeError("too few rows")
        return super().compute()


def evaluate(task, outputs, targets):
    metrics = task.assemble_metrics()
    for rows in zip(outputs.split(7), targets.split(7), strict=True):
        task.update_metrics(metrics, *rows)
    return metrics


def values(task, outputs, targets):
    computed = task.compute(evaluate(task, outputs, targets))
    return {name: value.item() for name, value in computed.items()}


def some_missing(targets, share=0.3):
    missing = torch.rand(targets.shape, generator=G) < share
    return targets.masked_fill(missing, NAN if targets.is_floating_point() else -100)


def test_binary():
    outputs = torch.randn(60, 1, generator=G)
    targets = some_missing((torch.rand(60, generator=G) > 0.6).float())
    specs = ("CohenKappa", F2, "torchmetrics.Specificity", torchmetrics.MatthewsCorrCoef)
    task = BinaryClassification(classes=("no", "yes"), threshold=0.4, metrics=specs)
    got = values(task, outputs, targets)
    assert list(got) == list(task.all_metric_names)

    known = ~targets.isnan()
    preds = outputs[known, 0].sigmoid()
    target = targets[known].long()
    expected = {
        "CohenKappa": tmc.BinaryCohenKappa(0.4),
        "F2": tmc.BinaryFBetaScore(2.0, 0.4),
        "Specificity": tmc.BinarySpecificity(0.4),
        "MatthewsCorrCoef": tmc.BinaryMatthewsCorrCoef(0.4),
    }
    for name, metric in expected.items():
        assert got[name] == pytest.approx(metric(preds, target).item(), abs=1e-6), name


def test_a_metric_decides_by_the_threshold_that_validation_chose_or_by_its_own():
    outputs = torch.tensor([-3.0, -2.0, -1.0, 1.0])[:, None]
    targets = torch.tensor([0.0, 1.0, 1.0, 1.0])
    own = {"class_path": "Accuracy", "init_args": {"threshold": 0.5, "name": "usual"}}
    task = BinaryClassification(classes=(0, 1), metrics=("Accuracy", own))
    metrics = evaluate(task, outputs, targets)
    computed = task.choose(metrics).compute(metrics)
    assert computed["Accuracy"] == computed["accuracy"] == 1
    assert computed["usual"] == 0.5


def test_classes():
    outputs = torch.randn(80, 3, generator=G)
    targets = some_missing(torch.randint(0, 3, (80,), generator=G))
    none = {"class_path": "Recall", "init_args": {"average": "none"}}
    specs = ("CohenKappa", "AUROC", "Specificity", "CalibrationError", none)
    got = values(Classification(classes=("a", "b", "c"), metrics=specs), outputs, targets)

    known = targets != -100
    preds = outputs[known].softmax(-1)
    target = targets[known]
    expected = {
        "CohenKappa": tmc.MulticlassCohenKappa(3),
        "AUROC": tmc.MulticlassAUROC(3),
        "Specificity": tmc.MulticlassSpecificity(3),
        "CalibrationError": tmc.MulticlassCalibrationError(3),
    }
    for name, metric in expected.items():
        assert got[name] == pytest.approx(metric(preds, target).item(), abs=1e-6), name
    each = tmc.MulticlassRecall(3, average="none")(preds, target)
    assert got["Recall"] == pytest.approx(each.mean().item(), abs=1e-6)


def test_labels_one_by_one_and_all_together():
    outputs = torch.randn(90, 3, generator=G)
    targets = some_missing((torch.rand(90, 3, generator=G) > 0.5).float())
    micro = {"class_path": "F1Score", "init_args": {"average": "micro"}}
    task = MultilabelClassification(
        labels=("u", "v", "w"),
        thresholds=(0.3, 0.5, 0.6),
        metrics=("CohenKappa", "ExactMatch", micro),
        per_label=True,
    )
    metrics = evaluate(task, outputs, targets)
    got = {name: value.item() for name, value in task.compute(metrics).items()}
    each = {name: value.item() for name, value in task.compute_per_output(metrics).items()}

    kappas = []
    for k, threshold in enumerate(task.thresholds):
        known = ~targets[:, k].isnan()
        preds = outputs[known, k].sigmoid()
        kappas.append(tmc.BinaryCohenKappa(threshold)(preds, targets[known, k].long()).item())
    assert [each[f"CohenKappa/{label}"] for label in "uvw"] == pytest.approx(kappas, abs=1e-6)
    assert got["CohenKappa"] == pytest.approx(sum(kappas) / 3, abs=1e-6)

    assert "F1Score/u" not in each
    decisions = (outputs.sigmoid() > torch.tensor(task.thresholds)).float()
    target = targets.nan_to_num(-100).long()
    f1 = tmc.MultilabelF1Score(3, average="micro", ignore_index=-100)
    assert got["F1Score"] == pytest.approx(f1(decisions, target).item(), abs=1e-6)
    labelled = ~targets.isnan().all(1)
    exact = tmc.MultilabelExactMatch(3, ignore_index=-100)
    expected = exact(decisions[labelled], target[labelled]).item()
    assert got["ExactMatch"] == pytest.approx(expected, abs=1e-6)


def test_numbers_are_in_the_unit_of_the_label():
    outputs = torch.randn(50, 1, generator=G)
    targets = some_missing(torch.randn(50, generator=G))
    specs = ("MeanAbsoluteError", "PearsonCorrCoef")
    task = Regression(mean=(1e9,), std=(50.0,), metrics=specs)
    got = values(task, outputs, targets)
    assert got["MeanAbsoluteError"] == pytest.approx(got["mae"], rel=1e-5)
    known = ~targets.isnan()
    pearson = torchmetrics.PearsonCorrCoef()(outputs[known, 0], targets[known])
    assert got["PearsonCorrCoef"] == pytest.approx(pearson.item(), abs=1e-5)


def test_a_vector_has_the_mean_of_its_outputs():
    outputs = torch.randn(50, 2, generator=G)
    targets = some_missing(torch.randn(50, 2, generator=G))
    task = Regression(mean=(0.0, 5.0), std=(1.0, 9.0), names=("u", "v"), metrics=("R2Score",))
    each = []
    for k in range(2):
        known = ~targets[:, k].isnan()
        each.append(torchmetrics.R2Score()(outputs[known, k], targets[known, k]).item())
    assert values(task, outputs, targets)["R2Score"] == pytest.approx(sum(each) / 2, abs=1e-5)


def test_a_kind_without_probabilities_has_its_predictions_measured():
    class Ordinal(Classification):
        @property
        def out_features(self):
            return len(self.classes) - 1

        def predict(self, outputs):
            return (outputs > 0).sum(-1)

    outputs = torch.randn(30, 2, generator=G)
    targets = torch.randint(0, 3, (30,), generator=G)
    task = Ordinal(classes=("a", "b", "c"), metrics=("CohenKappa",))
    expected = tmc.MulticlassCohenKappa(3)((outputs > 0).sum(-1), targets)
    assert values(task, outputs, targets)["CohenKappa"] == pytest.approx(expected.item())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize(
    "task",
    [
        BinaryClassification(classes=(0, 1), metrics=("CohenKappa",)),
        Classification(classes=(0, 1, 2), metrics=("CohenKappa",)),
        MultilabelClassification(labels=("u", "v"), metrics=("CohenKappa",)),
        Regression(mean=(0.0,), std=(1.0,), metrics=("PearsonCorrCoef",)),
        Regression(mean=(0.0,) * 2, std=(1.0,) * 2, names=("u", "v"), metrics=("R2Score",)),
    ],
    ids=lambda task: type(task).__name__,
)
def test_no_label_and_no_row_give_nan(task):
    shape = (3, task.out_features) if task.event_dims else (3,)
    missing = -100 if type(task) is Classification else NAN
    got = values(task, torch.zeros(3, task.out_features), torch.full(shape, missing))
    assert all(math.isnan(value) for value in got.values())
    assert all(value.isnan() for value in task.compute(task.assemble_metrics()).values())


def test_rows_that_do_not_define_a_metric_give_nan():
    ones = torch.ones(5)
    outputs = torch.randn(5, 1, generator=G)
    binary = BinaryClassification(classes=(0, 1), metrics=("AUROC",))
    assert math.isnan(values(binary, outputs, ones)["AUROC"])
    # torchmetrics raises an error for one row
    number = Regression(mean=(0.0,), std=(1.0,), metrics=("R2Score",))
    with pytest.warns(UserWarning, match="metric R2Score is not defined here"):
        assert math.isnan(values(number, outputs[:1], ones[:1])["R2Score"])
    own = BinaryClassification(classes=(0, 1), metrics=(Fragile,))
    with pytest.warns(UserWarning, match="metric Fragile is not defined here: too few rows"):
        assert math.isnan(values(own, outputs, ones)["Fragile"])


def test_a_class_of_ones_own_and_the_direction_of_the_monitor():
    path = f"{__name__}.Youden"
    twice = {"class_path": path, "init_args": {"scale": 2.0, "name": "twice"}}
    task = BinaryClassification(classes=(0, 1), threshold=0.5, metrics=(path, twice))
    outputs = torch.tensor([-1.0, -1.0, 1.0, 1.0, 1.0])[:, None]
    got = values(task, outputs, torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]))
    assert got["Youden"] == pytest.approx(2 / 3 + 1 / 2 - 1)
    assert got["twice"] == pytest.approx(2 * got["Youden"])

    specs = ("HammingDistance", "Specificity")
    less = BinaryClassification(classes=(0, 1), metrics=specs, monitor="HammingDistance")
    assert less.score({"HammingDistance": 0.25}) == -0.25
    assert less.describe_score() == "minus HammingDistance"
    more = BinaryClassification(classes=(0, 1), metrics=specs, monitor="Specificity")
    assert more.score({"Specificity": 0.25}) == 0.25
    error = Regression(mean=(0.0,), std=(1.0,), metrics=("MeanAbsolutePercentageError",))
    assert error.prefers_less("MeanAbsolutePercentageError")
    assert error.prefers_less("mae") and not error.prefers_less("r2")

    silent = BinaryClassification(classes=(0, 1), metrics=(Silent,), monitor="Silent")
    with pytest.raises(UserError, match="monitor 'Silent' does not say whether more of it is"):
        silent.assemble_metrics()


def of(*metrics: Any, monitor: str = "auroc") -> BinaryClassification:
    return BinaryClassification(classes=(0, 1), metrics=metrics, monitor=monitor)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["CohenKapa"], "metrics names 'CohenKapa'.* did you mean 'CohenKappa'"),
        (["os.system"], "names os.system, which is no torchmetrics.Metric"),
        (["nowhere.Metric"], "names nowhere.Metric: No module named 'nowhere'"),
        ([5], "metrics has 5, where a metric's class is expected"),
        ([torchmetrics.R2Score()], "where a metric's class is expected"),
        ([{"class_path": "FBetaScore", "beta": 2.0}], "where class_path and init_args are expect"),
        (["Recall", "Recall"], "two metrics are named 'Recall': give one of them another name"),
        ([{"class_path": "Recall", "init_args": {"name": "loss"}}], "cannot be named 'loss'"),
        (["Recall", "ROC"], "metric ROC gives a tuple, where one number is expected"),
        (["ConfusionMatrix"], r"metric ConfusionMatrix gives a tensor of shape \(2, 2\), where"),
        (["ExactMatch"], "metric ExactMatch cannot be computed: "),
        (["MulticlassF1Score"], "metric MulticlassF1Score cannot be computed: "),
        ([{"class_path": "Recall", "init_args": {"beta": 1}}], "Unexpected keyword arguments: `be"),
    ],
)
def test_what_is_no_metric_of_the_task_is_refused_in_one_line(specs, words):
    with pytest.raises(UserError, match=f"^BinaryClassification: .*{words}") as refused:
        of(*specs).assemble_metrics()
    assert "\n" not in str(refused.value)


def test_a_vector_needs_an_average():
    task = Classification(classes=(0, 1, 2), metrics=("StatScores",))
    with pytest.raises(UserError, match=r"gives a tensor of shape \(5,\).*; set average in"):
        task.assemble_metrics()
    with pytest.raises(UserError, match=r"^Regression: metrics is 'R2Score', where a list is exp"):
        Regression(metrics="R2Score")
    with pytest.raises(UserError, match=r"monitor 'F2' is none of accuracy, f1, .*, Recall"):
        of("Recall", monitor="F2")


def test_a_schema_describes_the_metrics_and_imports_nothing():
    task = of("CohenKappa", F2, Youden, monitor="F2")
    described = json.loads(json.dumps(task.describe()))
    again = task_from_plain(described)
    assert again.added_metrics == task.added_metrics
    assert again.describe() == task.describe()
    described["metrics"].append({"class_path": "nowhere.Metric", "init_args": {}})
    with pytest.raises(UserError, match=r"names the metric nowhere\.Metric, which is not known"):
        task_from_plain(described)
    assert "metrics" not in BinaryClassification().describe()


def test_a_whole_number_is_welcome_where_the_class_has_a_float():
    (metric,) = of({"class_path": "FBetaScore", "init_args": {"beta": 2}}).added_metrics
    assert type(metric.settings["beta"]) is float
    (metric,) = of({"class_path": "CalibrationError", "init_args": {"n_bins": 10}}).added_metrics
    assert metric.settings == {"n_bins": 10}


def test_alike_tasks_are_computed_together_whatever_they_measure():
    assert of("CohenKappa").loss_key() == of(F2, monitor="F2").loss_key() == of().loss_key()
    assert not any(issubclass(kind, TaskMetric) for kind in find_known_classes().values())
