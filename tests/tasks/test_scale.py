"""The scale of labels is carried over, output by output."""

from dataclasses import replace

from src.tasks import Classification, Counts, Quantiles, Regression, Survival
from src.tasks.scale import carry_scale, restore_task


def test_outputs_have_the_scale_of_their_name() -> None:
    before = Regression(names=("b", "a"), mean=(1.0, 2.0), std=(3.0, 4.0))
    bare = Regression(names=("a", "c"))
    fitted = replace(bare, mean=(9.0, 8.0), std=(7.0, 6.0))
    carried = carry_scale(fitted, bare, before.describe())
    assert carried.mean == (2.0, 8.0)
    assert carried.std == (4.0, 6.0)
    # what is set by hand stays
    by_hand = replace(bare, mean=(5.0, 5.0))
    carried = carry_scale(replace(fitted, mean=(5.0, 5.0)), by_hand, before.describe())
    assert carried.mean == (5.0, 5.0)
    assert carried.std == (4.0, 6.0)


def test_every_kind_with_a_scale_takes_it() -> None:
    for before, bare, fitted in [
        (Counts(rate=2.0, mean=3.0), Counts(), Counts(rate=1.0, mean=1.0)),
        (Quantiles(mean=2.0, std=3.0), Quantiles(), Quantiles(mean=0.0, std=1.0)),
        (Survival(ends=(1.0, 4.0)), Survival(), Survival(ends=(2.0, 3.0))),
    ]:
        carried = carry_scale(fitted, bare, before.describe())
        for key in before.scale_fields:
            assert getattr(carried, key) == getattr(before, key)


def test_another_kind_gives_nothing() -> None:
    fitted = Regression(mean=(1.0,), std=(2.0,))
    described = Classification(classes=("a", "b")).describe()
    assert carry_scale(fitted, Regression(), described) == fitted
    assert restore_task(fitted, described) is None
    assert restore_task(fitted, {"kind": "x.Regression", "std": [-1.0]}) is None
