import json

import pytest

from src.data.kinds import (
    build_task,
    describe_type,
    find_declared_kind,
    find_further_columns,
    find_kind,
    fits_type,
    parse_declaration,
    read_forms,
    task_from_plain,
)
from src.tasks import (
    BinaryClassification,
    CensoredRegression,
    Classification,
    Counts,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    Survival,
)

KINDS = [
    Classification(classes=("a", "b"), class_weights=(1.0, 2.0)),
    BinaryClassification(classes=(False, True), pos_weight=2.0),
    MultilabelClassification(labels=("a", "b"), pos_weight=(1.0, 2.0)),
    Regression(names=("u", "v"), mean=(0.0, 1.0), std=(1.0, 2.0), loss="huber"),
    Ordinal(classes=(1, 2, 5), method="cumulative"),
    Counts(distribution="negative_binomial", offset="days", rate=0.5, mean=3.0),
    Quantiles(levels=(0.25, 0.5), mean=1.0, std=2.0),
    CensoredRegression(mean=1.0, std=2.0, loss="mae"),
    Survival(ends=(1.0, 2.5), names=("t", "e")),
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


def test_how_columns_of_a_label_are_read():
    assert find_declared_kind({"class_path": "Survival", "intervals": 3}) is Survival
    assert find_declared_kind(Counts()) is Counts
    assert find_declared_kind({"weight": 2}) is None
    assert read_forms(Survival, 2) == ("number", "class")
    assert read_forms(Ordinal, 1) == ("class",)
    assert read_forms(Regression, 3) == ("number",) * 3
    assert read_forms(CensoredRegression(), 1) == ("bound",)


def test_columns_that_a_label_has_besides():
    settings = {"class_path": "Counts", "offset": "days"}
    assert find_further_columns(settings) == {"offset": "days"}
    assert find_further_columns({"class_path": "Counts", "init_args": {"offset": "days"}}) == {
        "offset": "days"
    }
    assert find_further_columns(Counts(offset="days")) == {"offset": "days"}
    for none in ("Counts", Counts(), {"offset": "days"}, "Cuonts"):
        assert find_further_columns(none) == {}
