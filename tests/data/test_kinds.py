import json

import pytest

from src.data.kinds import declared, expected, fits, kind_named, task_from_plain, with_settings
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression

KINDS = [
    Classification(classes=("a", "b"), class_weights=(1.0, 2.0)),
    BinaryClassification(classes=(False, True), pos_weight=2.0),
    MultilabelClassification(labels=("a", "b"), pos_weight=(1.0, 2.0)),
    Regression(names=("u", "v"), mean=(0.0, 1.0), std=(1.0, 2.0), loss="huber"),
]


def test_declared():
    assert declared("Regression") == (Regression, {})
    assert declared("src.tasks.Regression") == (Regression, {})
    assert declared(Regression) == (Regression, {})
    assert declared({"weight": 2}) == (None, {"weight": 2})
    assert declared({"class_path": "Regression", "init_args": {"loss": "mae"}}) == (
        Regression,
        {"loss": "mae"},
    )
    assert declared({"class_path": "Regression", "weight": 2}) == (Regression, {"weight": 2})
    with pytest.raises(ValueError, match=r"is set to 3"):
        declared(3)
    with pytest.raises(ValueError, match=r"unknown kind 'Regresion': did you mean Regression?"):
        declared("Regresion")


class Ranking(Regression):
    """A kind that somebody wrote."""


def test_a_kind_that_somebody_wrote_is_found_by_name():
    assert kind_named("Ranking") is Ranking


def test_of_two_kinds_with_one_name_ours_wins():
    other = type("Classification", (Regression,), {"__module__": "somewhere"})
    assert kind_named("Classification") is Classification
    assert other is not Classification


def test_with_settings():
    assert with_settings(Classification, {"classes": ["b", "a"], "weight": 2}) == Classification(
        classes=("b", "a"), weight=2
    )
    with pytest.raises(ValueError, match=r"no setting 'lss' as a Regression: did you mean loss?"):
        with_settings(Regression, {"lss": "mae"})
    with pytest.raises(ValueError, match="setting weight 'heavy', where a number"):
        with_settings(Regression, {"weight": "heavy"})
    with pytest.raises(ValueError, match="loss 'mea'"):
        with_settings(Regression, {"loss": "mea"})


def test_types_of_settings():
    assert fits(["a", 1], tuple[str | int, ...])
    assert fits(None, float | None)
    assert fits(2, float)
    assert not fits(True, float)
    assert not fits(1.5, int)
    assert not fits("a", tuple[str, ...])
    assert expected(float | None) == ["a number", "null"]
    assert expected(tuple[str, ...]) == ["a list"]


@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
def test_a_task_survives_its_description(task):
    assert task_from_plain(json.loads(json.dumps(task.describe()))) == task
