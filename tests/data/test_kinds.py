import json

import pytest

from src.data.kinds import (
    build_task,
    describe_type,
    find_kind,
    fits_type,
    parse_declaration,
    task_from_plain,
)
from src.tasks import BinaryClassification, Classification, MultilabelClassification, Regression

KINDS = [
    Classification(classes=("a", "b"), class_weights=(1.0, 2.0)),
    BinaryClassification(classes=(False, True), pos_weight=2.0),
    MultilabelClassification(labels=("a", "b"), pos_weight=(1.0, 2.0)),
    Regression(names=("u", "v"), mean=(0.0, 1.0), std=(1.0, 2.0), loss="huber"),
]


def test_declared():
    assert parse_declaration("Regression") == (Regression, {})
    assert parse_declaration("src.tasks.Regression") == (Regression, {})
    assert parse_declaration(Regression) == (Regression, {})
    assert parse_declaration({"weight": 2}) == (None, {"weight": 2})
    assert parse_declaration({"class_path": "Regression", "init_args": {"loss": "mae"}}) == (
        Regression,
        {"loss": "mae"},
    )
    assert parse_declaration({"class_path": "Regression", "weight": 2}) == (
        Regression,
        {"weight": 2},
    )
    with pytest.raises(ValueError, match=r"is set to 3"):
        parse_declaration(3)
    with pytest.raises(ValueError, match=r"unknown kind 'Regresion': did you mean 'Regression'?"):
        parse_declaration("Regresion")


class Ranking(Regression):
    """A kind that somebody wrote."""


def test_a_kind_that_somebody_wrote_is_found_by_name():
    assert find_kind("Ranking") is Ranking


def test_of_two_kinds_with_one_name_ours_wins():
    other = type("Classification", (Regression,), {"__module__": "somewhere"})
    assert find_kind("Classification") is Classification
    assert other is not Classification


def test_with_settings():
    assert build_task(Classification, {"classes": ["b", "a"], "weight": 2}) == Classification(
        classes=("b", "a"), weight=2
    )
    with pytest.raises(ValueError, match=r"no setting 'lss' as a Regression: did you mean 'loss'?"):
        build_task(Regression, {"lss": "mae"})
    with pytest.raises(ValueError, match="setting weight 'heavy', where a number"):
        build_task(Regression, {"weight": "heavy"})
    with pytest.raises(ValueError, match="loss 'mea'"):
        build_task(Regression, {"loss": "mea"})


def test_types_of_settings():
    assert fits_type(["a", 1], tuple[str | int, ...])
    assert fits_type(None, float | None)
    assert fits_type(2, float)
    assert not fits_type(True, float)
    assert not fits_type(1.5, int)
    assert not fits_type("a", tuple[str, ...])
    assert describe_type(float | None) == ["a number", "null"]
    assert describe_type(tuple[str, ...]) == ["a list"]


@pytest.mark.parametrize("task", KINDS, ids=lambda task: type(task).__name__)
def test_a_task_survives_its_description(task):
    assert task_from_plain(json.loads(json.dumps(task.describe()))) == task
