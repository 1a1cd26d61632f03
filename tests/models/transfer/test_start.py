"""A model that starts from another one: all that both have predicts the same."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import UserError
from src.models.encoders import MLP, ConvNet
from src.models.feature_selection import StochasticGates
from src.models.sharing import (
    AITM,
    CGC,
    MTAN,
    NDDR,
    PLE,
    CrossStitch,
    DSelectK,
    Groups,
    HardSharing,
    LearningToBranch,
    MMoE,
    Separate,
    Sluice,
    SoftSharing,
    TaskAdapters,
    WeightedSharing,
)
from src.models.transfer.finetune import Finetune, LoRA
from src.models.transfer.lora import merge_adapters
from src.models.transfer.start import start_from
from src.tasks import (
    BinaryClassification,
    Classification,
    Counts,
    MultilabelClassification,
    Ordinal,
    Quantiles,
    Regression,
    SequenceLabelling,
)
from tests.models.transfer.starting import SHAPE, TASKS, as_source, build

NAMES = list(TASKS)
# tasks read what is of other tasks, so that a new one changes the predictions of all
CROSSING = [AITM, CrossStitch, LearningToBranch, NDDR, PLE, Sluice, WeightedSharing]
APART = [
    *(HardSharing, partial(HardSharing, until=1), TaskAdapters, MTAN),
    *(MMoE, CGC, DSelectK, Separate, SoftSharing),
]


def predict(model: Any, rows: int = 7) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found: dict[str, torch.Tensor] = model(model.input_shape.example(rows))
    return found


def statuses(reports: Any) -> dict[str, str]:
    return {report.part: report.status for report in reports}


@pytest.mark.parametrize("sharing", [*APART, *CROSSING, partial(Groups, groups=[NAMES])])
def test_the_same_tasks_are_the_same_to_the_bit(sharing: Any) -> None:
    before = build(NAMES, sharing)
    source = as_source(before, sharing)
    model = build(NAMES, sharing, seed=1)
    reports = start_from(model, source)
    assert set(statuses(reports).values()) == {"kept"}
    expected = predict(before)
    for name, outputs in predict(model).items():
        assert torch.equal(outputs, expected[name])


@pytest.mark.parametrize("sharing", APART)
@pytest.mark.parametrize(
    ("old", "new"),
    [(NAMES[:4], [NAMES[5], *NAMES[3:0:-1]]), (NAMES[:1], NAMES[:3]), (NAMES[:3], NAMES[1:2])],
    ids=["others", "from one", "to one"],
)
def test_tasks_come_go_and_change_places(sharing: Any, old: list[str], new: list[str]) -> None:
    before = build(old, sharing)
    source = as_source(before, sharing)
    model = build(new, sharing, seed=1)
    found = statuses(start_from(model, source))
    for name in new:
        assert found[f"heads.{name}"] == ("kept" if name in old else "fresh")
    for name in old:
        assert name in new or found[f"heads.{name}"] == "dropped"
    expected = predict(before)
    for name, outputs in predict(model).items():
        if name in old:
            # heads side by side are one product, whose rounding depends on their number
            torch.testing.assert_close(outputs, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sharing", CROSSING)
def test_tasks_that_read_each_other_are_said_to_change(sharing: Any) -> None:
    before = build(NAMES[:3], sharing)
    source = as_source(before, sharing)
    model = build([NAMES[4], *NAMES[:3]], sharing, seed=1)
    reports = start_from(model, source)
    assert any("predictions change" in report.why for report in reports)
    # a new order alone changes nothing, except in a chain
    model = build(NAMES[2::-1], sharing, seed=1)
    start_from(model, source)
    expected = predict(before)
    if sharing is not AITM:
        for name, outputs in predict(model).items():
            torch.testing.assert_close(outputs, expected[name], rtol=1e-5, atol=1e-6)


def test_stages_that_cannot_be_stacked_move_by_task() -> None:
    shape = replace(SHAPE, dense=(1, 8, 8))
    make = partial(ConvNet, width=4)
    old = build(NAMES[:3], Separate, encoder=make, shape=shape)
    source = as_source(old, Separate)
    model = build([NAMES[5], *NAMES[2:0:-1]], Separate, seed=1, encoder=make, shape=shape)
    start_from(model, source)
    expected = predict(old)
    for name in NAMES[1:3]:
        torch.testing.assert_close(predict(model)[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sharing", [MTAN, AITM, TaskAdapters])
def test_one_encoder_moves_to_another_architecture(sharing: Any) -> None:
    before = build(NAMES)
    source = as_source(before)
    model = build(NAMES, sharing, seed=1)
    reports = start_from(model, source)
    found = statuses(reports)
    assert found["encoder"] == "kept"
    for part, status in found.items():
        if part.startswith("sharing."):
            assert status == "fresh"
    ours, theirs = (
        [p.flatten() for p in each.sharing.get_submodule("encoder").parameters()]
        for each in (model, before)
    )
    assert torch.equal(torch.cat(ours), torch.cat(theirs))
    if sharing is TaskAdapters:  # adapters start at nothing
        for name, outputs in predict(model).items():
            torch.testing.assert_close(outputs, predict(before)[name], rtol=1e-5, atol=1e-6)


def test_adapters_and_gates_of_inputs_stand_around_what_is_kept() -> None:
    before = build(NAMES)
    source = as_source(before)
    expected = predict(before)
    adapted = build(NAMES, seed=1, finetune=Finetune(lora=LoRA(rank=2)))
    assert statuses(start_from(adapted, source))["encoder"] == "kept"
    for name, outputs in predict(adapted).items():
        torch.testing.assert_close(outputs, expected[name], rtol=1e-5, atol=1e-6)

    # adapters that have learnt are part of the weights that another run starts from
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    merged = merge_adapters(adapted.state_dict(), LoRA().alpha)
    model = build(NAMES, seed=2)
    start_from(model, replace(source, state=merged))
    expected = predict(adapted)
    for name, outputs in predict(model).items():
        torch.testing.assert_close(outputs, expected[name], rtol=1e-4, atol=1e-5)

    selecting = build(NAMES, seed=1, select=StochasticGates)
    assert statuses(start_from(selecting, source))["encoder"] == "kept"
    plain = build(NAMES, seed=3)
    again = as_source(selecting)
    assert statuses(start_from(plain, again))["encoder"] == "kept"
    weights = [
        each.get_submodule("encoder").state_dict()
        for each in (selecting.sharing.get_submodule("architecture"), plain.sharing)
    ]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name])


# -- parts -----------------------------------------------------------------------------------------
def test_only_the_parts_that_are_named_are_kept() -> None:
    before = build(NAMES)
    source = as_source(before)
    model = build(NAMES, seed=1)
    fresh = build(NAMES, seed=1)
    found = statuses(start_from(model, source, ["encoder", "heads.number"]))
    assert {part for part, status in found.items() if status == "kept"} == {
        "encoder",
        "heads.number",
    }
    for name in NAMES:
        expected = before if name == "number" else fresh
        ours, theirs = (each.heads[name].linears[-1].weight for each in (model, expected))
        assert torch.equal(ours, theirs)
    everyone = statuses(start_from(model, source, ["heads"]))
    assert everyone.pop("encoder") == "fresh"
    assert set(everyone.values()) == {"kept"}


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (["encoder", "heads.numbr"], "did you mean 'heads.number'"),
        (["gate"], "which is no part of this run"),
        ([], "is empty"),
    ],
)
def test_no_such_part(parts: list[str], says: str) -> None:
    source = as_source(build(NAMES))
    with pytest.raises(UserError, match=says):
        start_from(build(NAMES), source, parts)


# -- what cannot be --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("encoder", "sharing", "says"),
    [
        (partial(MLP, width=12, depth=1), HardSharing, r"of shape \(8, 5\) there, and \(12, 5\)"),
        (partial(MLP, width=8, depth=2), HardSharing, "RUN has none"),
        (partial(MLP, width=8, depth=1), MMoE, "shares by HardSharing, and this run by MMoE"),
        (partial(MLP, width=8, depth=1), partial(HardSharing, until=1), "take the same encoder"),
    ],
)
def test_a_source_that_does_not_fit_changes_nothing(encoder: Any, sharing: Any, says: str) -> None:
    source = as_source(build(NAMES))
    model = build(NAMES, sharing, seed=1, encoder=encoder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=says):
        start_from(model, source)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_groups_of_other_tasks_are_refused() -> None:
    sharing = partial(Groups, groups=[NAMES[:2], NAMES[2:4]])
    source = as_source(build(NAMES[:4], sharing), sharing)
    other = partial(Groups, groups=[NAMES[:2], NAMES[2:5]])
    with pytest.raises(UserError, match="settings of Groups name tasks"):
        start_from(build(NAMES[:5], other), source)


# -- heads -----------------------------------------------------------------------------------------
def start_one(before: Any, now: Any) -> tuple[Any, Any, Any]:
    old = build({"t": before})
    source = as_source(old)
    model = build({"t": now}, seed=1)
    report = start_from(model, source)[-1]
    return old, model, report


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from("abcdef"), unique=True, min_size=2),
    st.lists(st.sampled_from("abcdef"), unique=True, min_size=2),
)
def test_classes_are_matched_by_name(old: list[str], new: list[str]) -> None:
    before, model, report = start_one(
        Classification(classes=tuple(old)), Classification(classes=tuple(new))
    )
    common = set(old) & set(new)
    if not common:
        assert report.status == "fresh"
        return
    assert report.status == ("grown" if set(new) - set(old) else "kept")
    then, now = predict(before)["t"], predict(model)["t"]
    for label in common:
        torch.testing.assert_close(now[:, new.index(label)], then[:, old.index(label)])
    for label in set(old) - set(new):
        assert label in report.why


def test_labels_of_a_vector_and_levels_are_matched_by_name() -> None:
    for before, now in [
        (MultilabelClassification(labels=("x", "y")), MultilabelClassification(labels=("y", "z"))),
        (
            Regression(mean=(1.0, 2.0), std=(1.0, 3.0), names=("x", "y")),
            Regression(mean=(2.0, 0.0), std=(3.0, 1.0), names=("y", "z")),
        ),
    ]:
        old, model, report = start_one(before, now)
        torch.testing.assert_close(predict(model)["t"][:, 0], predict(old)["t"][:, 1])
        assert (report.status, report.why) == ("grown", "new: z; gone: x")
    old, model, report = start_one(
        Quantiles(levels=(0.1, 0.5, 0.9), mean=0.0, std=1.0),
        Quantiles(levels=(0.1, 0.25, 0.5, 0.75, 0.9), mean=0.0, std=1.0),
    )
    torch.testing.assert_close(predict(model)["t"][:, ::2], predict(old)["t"])


def test_transitions_of_a_crf_follow_their_classes() -> None:
    before = SequenceLabelling(classes=("A", "B", "C"), crf=True)
    old, model, report = start_one(before, replace(before, classes=("C", "D", "A")))
    theirs, ours = old.heads["t"].transitions, model.heads["t"].transitions
    assert torch.equal(ours[0, 2], theirs[2, 0])
    assert torch.equal(ours[2, 0], theirs[0, 2])
    assert ours[1].abs().sum() == 0
    assert report.status == "grown"


def test_another_scale_of_labels_predicts_the_same_numbers() -> None:
    before = Regression(mean=(5.0,), std=(2.0,))
    old, model, report = start_one(before, Regression(mean=(-1.0,), std=(0.5,)))
    then = old.tasks["t"].in_units(predict(old)["t"].double())
    now = model.tasks["t"].in_units(predict(model)["t"].double())
    torch.testing.assert_close(now, then, rtol=1e-5, atol=1e-5)
    assert "rescaled" in report.why


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        (TASKS["binary"], TASKS["class"], "was a BinaryClassification, and is a Classification"),
        (TASKS["number"], replace(TASKS["number"], depth=1), "a linear head with 1 outputs"),
        (
            BinaryClassification(classes=("no", "yes")),
            BinaryClassification(classes=("yes", "no")),
            "its outputs are no, not yes",
        ),
        (
            Ordinal(classes=("low", "high"), method="corn"),
            Ordinal(classes=("low", "high"), method="cumulative"),
            "cumulative above low",
        ),
        (Counts(rate=1.0, mean=1.0), Counts(rate=2.0, mean=1.0), "rate 2"),
    ],
)
def test_a_head_that_means_something_else_is_fresh(before: Any, now: Any, says: str) -> None:
    _, model, report = start_one(before, now)
    assert report.status == "fresh"
    assert says in report.why
    fresh = build({"t": now}, seed=1)
    for ours, theirs in zip(model.heads.parameters(), fresh.heads.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_thresholds_come_with_a_head_that_is_kept_alone() -> None:
    before = MultilabelClassification(labels=("x", "y"))
    old = build({"t": before})
    old.chosen_tasks["t"] = replace(before, thresholds=(0.3, 0.6))
    source = as_source(old)
    source = replace(source, tasks={"t": old.chosen_tasks["t"].describe()})
    model = build({"t": before}, seed=1)
    start_from(model, source)
    assert model.chosen_tasks["t"].thresholds == (0.3, 0.6)  # type: ignore[attr-defined]
    model = build({"t": replace(before, labels=("x", "y", "z"))}, seed=1)
    start_from(model, source)
    assert model.chosen_tasks["t"].thresholds is None  # type: ignore[attr-defined]
