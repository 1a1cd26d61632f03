"""What is refused or said before a model trains."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from src.batch import InputShape
from src.models import MultiTaskModel
from src.models.checks import check_keys
from src.models.encoders import MLP
from src.models.task_notes import describe_choices, describe_score
from src.tasks import (
    BinaryClassification,
    Classification,
    MultilabelClassification,
    Regression,
    Task,
    is_labelled,
)
from tests.toy import Toy


def model_of(tasks: dict[str, Task]) -> MultiTaskModel:
    return MultiTaskModel(tasks, InputShape((5,)), encoder=partial(MLP, width=4, depth=0))


@dataclass(frozen=True, kw_only=True)
class Unmasked(Regression):
    def losses(self, outputs, targets):
        return (outputs.squeeze(-1) - targets.nan_to_num(0)) ** 2


@dataclass(frozen=True, kw_only=True)
class NotANumber(Regression):
    def losses(self, outputs, targets):
        return (outputs.squeeze(-1) - targets) ** 2 * is_labelled(targets)


@dataclass(frozen=True, kw_only=True)
class Poisoned(Regression):
    """0 where the label is missing, and yet its gradient there is NaN."""

    def losses(self, outputs, targets):
        return torch.where(is_labelled(targets), (outputs.squeeze(-1) - targets).square(), 0)


@dataclass(frozen=True, kw_only=True)
class Broadcast(Regression):
    """One output axis too many: (B, 1) - (B,)."""

    def losses(self, outputs, targets):
        return (outputs - targets.nan_to_num(0)) ** 2 * is_labelled(targets)


@dataclass(frozen=True, kw_only=True)
class Averaged(Regression):
    def losses(self, outputs, targets):
        mask = is_labelled(targets)
        return ((outputs.squeeze(-1) - targets.where(mask, 0)) ** 2 * mask).mean()


@dataclass(frozen=True, kw_only=True)
class Picked(Classification):
    """-100 is no class that could be picked."""

    def losses(self, outputs, targets):
        return -outputs.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1) * is_labelled(
            targets
        )


@dataclass(frozen=True, kw_only=True)
class Smoothed(Classification):
    """A mask that knows of NaN alone."""

    def losses(self, outputs, targets):
        valid = targets.clamp(min=0)
        losses = F.cross_entropy(outputs.flatten(0, -2), valid.flatten(), reduction="none").view_as(
            targets
        )
        return losses * ~targets.float().isnan()


@dataclass(frozen=True, kw_only=True)
class EachLabel(MultilabelClassification):
    def losses(self, outputs, targets):
        mask = is_labelled(targets)
        return (F.softplus(outputs) - outputs * targets.where(mask, 0)).sum(-1) * mask.any(-1)


ABC: dict[str, Any] = {"classes": ("a", "b", "c")}
FITTED: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)}


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (
            Unmasked(**FITTED),
            r"Unmasked.losses gives 1 where the label is missing, and must give 0: "
            r"multiply by is_labelled\(targets\)$",
        ),
        (Unmasked(), "Unmasked.losses gives 1 where"),  # before its label space is known
        (
            NotANumber(**FITTED),
            r"gives NaN where the label is missing.*targets.where\(is_labelled\(targets\), 0\)",
        ),
        (
            Poisoned(**FITTED),
            r"gives a gradient where the label is missing: put a valid value there before",
        ),
        (
            Broadcast(**FITTED),
            r"gives shape \(3, 3, 1\) for targets of shape \(3, 1\), "
            "where one loss for each label is expected",
        ),
        (Averaged(**FITTED), r"gives shape \(\) for targets"),
        (
            Picked(**ABC),
            r"fails where the label is missing \(.*out of bounds.*\): put a valid value there",
        ),
        (Smoothed(**ABC), "Smoothed.losses gives .* where the label is missing, and must give 0"),
        (EachLabel(labels=("u", "v")), r"gives shape \(3, 1\) for targets of shape \(3, 1, 2\)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Task) else "",
)
def test_a_loss_that_does_not_leave_out_missing_labels_is_refused(task, says):
    model = model_of({"good": Regression(**FITTED), "bad": task})
    with pytest.raises(ValueError, match="task 'bad': .*" + says) as caught:
        model.check(1)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class OfImages(Regression):
    """A loss that only knows labels of a form of its own."""

    def losses(self, outputs, targets):
        assert targets.ndim == 4, "an image"
        return outputs


def test_right_losses_pass():
    for task in Toy().tasks.values():
        model_of({"a": task}).check(1)
    model_of(Toy().tasks).check(1)
    model_of({"b": OfImages()}).check(1)  # what cannot be tried is left to the run


def test_the_check_draws_no_random_number():
    model = model_of(Toy().tasks)
    model.configure_model()
    before = torch.get_rng_state()
    model.check(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_score_is_said():
    tasks: dict[str, Task] = {
        "digit": Classification(),
        "odd": BinaryClassification(),
        "ink": Regression(),
        "even": BinaryClassification(),
    }
    assert (
        describe_score(tasks)
        == "score: mean over tasks of accuracy (digit), AUROC (odd, even), R2, at least -1 (ink)"
    )
    many = {f"t{k}": BinaryClassification() for k in range(140)}
    assert describe_score(many) == "score: mean over tasks of AUROC (140 tasks)"


def test_notes_end_with_the_score():
    assert (
        model_of({"ink": Regression()}).notes()[-1]
        == "score: mean over tasks of R2, at least -1 (ink)"
    )


def test_keys_that_would_meet_are_refused():
    tags = MultilabelClassification(labels=("loss", "v"), per_label=True)
    with pytest.raises(
        ValueError,
        match="tasks 'tags' and 'tags/f1' would both be logged as <stage>/tags/f1/loss: rename",
    ):
        check_keys({"tags": tags, "tags/f1": Regression()})
    check_keys({"tags": tags, "f1": Regression(), "loss": Regression(), "tags/loss": Regression()})


def test_chosen_thresholds_are_said():
    tasks: dict[str, Task] = {f"t{k}": BinaryClassification() for k in range(9)}
    tasks["fixed"] = BinaryClassification(threshold=0.25)
    chosen = {
        name: BinaryClassification(threshold=0.125) if name != "fixed" else task
        for name, task in tasks.items()
    }
    lines = describe_choices(tasks, chosen, most=2)
    assert lines == [
        "threshold of t0: 0.125, chosen on validation rows",
        "threshold of t1: 0.125, chosen on validation rows",
        "thresholds of 7 more tasks, chosen likewise",
    ]
    assert describe_choices(tasks, tasks) == []
