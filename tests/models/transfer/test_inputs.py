"""Columns of tables and their words are matched by name."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.batch import InputShape
from src.errors import UserError
from src.models.encoders import MLP, TabularTransformer
from src.models.encoders.encoder import Encoder
from src.models.sharing import HardSharing, MMoE, Separate
from src.models.transfer.start import start_from
from tests.models.transfer.starting import as_source, build

NAMES = ["number", "binary"]
COLUMNS: dict[str, Any] = {
    "age": False,
    "pay": True,  # with an indicator of missing values
    "city": ["Lima", "Oslo", "Rome"],
    "kind": ["a", "b", None],
}
ENCODERS = [
    partial(MLP, width=8, depth=1),
    partial(TabularTransformer, width=8, depth=1, heads=2),
]


def make_schema(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of columns: whether a number has an indicator, or the words of a category."""
    return [
        {"kind": "categorical", "column": name, "vocabulary": of}
        if isinstance(of, list)
        else {"kind": "numeric", "column": name, "indicator": of}
        for name, of in columns.items()
    ]


def measure(columns: dict[str, Any]) -> InputShape:
    numbers = [of for of in columns.values() if not isinstance(of, list)]
    sizes = tuple(len(of) + 1 for of in columns.values() if isinstance(of, list))
    return InputShape((sum(1 + of for of in numbers),), sizes)


def encode(columns: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Rows as a table encodes them: a word that it does not know is at position 0."""
    dense, categorical = [], []
    for row in rows:
        numbers: list[float] = []
        places = []
        for name, of in columns.items():
            if isinstance(of, list):
                places.append(of.index(row[name]) + 1 if row[name] in of else 0)
            else:
                numbers += [row[name], 0.0] if of else [row[name]]
        dense.append(numbers)
        categorical.append(places)
    return {"dense": torch.tensor(dense), "categorical": torch.tensor(categorical)}


def make_rows(count: int = 9) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for k in range(count):
        numbers = torch.randn(3, generator=generator).tolist()
        row = dict(zip(("age", "pay", "new"), numbers, strict=True))
        words = {"city": ["Lima", "Oslo", "Rome", "Bonn"][k % 4], "kind": ["a", "b", None][k % 3]}
        rows.append(row | words)
    return rows


def compare(
    columns: dict[str, Any], encoder: Any, sharing: Any = HardSharing
) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """Returns the outputs of a source, of a model on other columns, and the reports."""
    before = build(NAMES, sharing, encoder=encoder, shape=measure(COLUMNS))
    source = as_source(before, sharing, inputs=make_schema(COLUMNS))
    model = build(NAMES, sharing, seed=1, encoder=encoder, shape=measure(columns))
    reports = start_from(model, source, None, make_schema(columns))
    rows = make_rows()
    with torch.no_grad():
        return before(encode(COLUMNS, rows)), model(encode(columns, rows)), reports


@settings(max_examples=15, deadline=None)
@given(st.permutations(list(COLUMNS)), st.permutations(COLUMNS["city"]), st.sampled_from(ENCODERS))
def test_no_order_of_columns_or_words_matters(
    names: list[str], words: list[str], encoder: Any
) -> None:
    columns = {name: COLUMNS[name] for name in names} | {"city": words}
    then, now, reports = compare(columns, encoder)
    assert {report.status for report in reports} == {"kept"}
    for name in NAMES:
        torch.testing.assert_close(now[name], then[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sharing", [HardSharing, Separate])
def test_a_new_column_changes_nothing_at_first(sharing: Any) -> None:
    columns = {"new": False, **COLUMNS, "more": ["x", "y"]}
    before = build(NAMES, sharing, encoder=ENCODERS[0], shape=measure(COLUMNS))
    source = as_source(before, sharing, inputs=make_schema(COLUMNS))
    model = build(NAMES, sharing, seed=1, encoder=ENCODERS[0], shape=measure(columns))
    reports = start_from(model, source, None, make_schema(columns))
    rows = [row | {"more": "x"} for row in make_rows()]
    with torch.no_grad():
        then, now = before(encode(COLUMNS, rows)), model(encode(columns, rows))
    for name in NAMES:
        torch.testing.assert_close(now[name], then[name], rtol=1e-5, atol=1e-6)
    assert (reports[0].status, reports[0].why) == ("grown", "new columns: new, more")

    # and yet it is learnt: its weights have gradients
    model(encode(columns, rows))["number"].sum().backward()
    moved = [p.grad.abs().sum() for p in model.sharing.parameters() if p.grad is not None]
    assert all(total > 0 for total in moved[-3:])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_new_word_begins_where_unknown_words_stood(encoder: Any) -> None:
    columns = COLUMNS | {"city": ["Bonn", "Lima", "Oslo", "Rome"]}
    then, now, reports = compare(columns, encoder)
    assert "new words in: city" in reports[0].why
    for name in NAMES:
        torch.testing.assert_close(now[name], then[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_column_that_is_gone_is_said(encoder: Any) -> None:
    columns = {name: of for name, of in COLUMNS.items() if name not in ("age", "kind")}
    _, _, reports = compare(columns, encoder)
    assert reports[0].why == "columns gone: age, kind"
    assert reports[0].status == "kept"


class Own(Encoder):
    """An encoder that knows nothing of columns."""

    def __init__(self, shape: InputShape) -> None:
        super().__init__(shape)
        inner = MLP(shape, width=8, depth=1)
        first = torch.nn.Sequential(*inner.stages[0].children())
        self.stages = torch.nn.Sequential(first, inner.stages[1])
        self.features = inner.features


@pytest.mark.parametrize(("encoder", "sharing"), [(Own, HardSharing), (ENCODERS[0], MMoE)])
def test_weights_that_cannot_move_between_columns_are_refused(encoder: Any, sharing: Any) -> None:
    then, now, _ = compare(COLUMNS, encoder, sharing)
    for name in NAMES:
        assert torch.equal(then[name], now[name])
    turned = {"pay": True, "age": False, "kind": COLUMNS["kind"], "city": COLUMNS["city"]}
    with pytest.raises(UserError, match="cannot move between columns"):
        compare(turned, encoder, sharing)


def test_texts_of_another_tokenizer_are_refused() -> None:
    entry = {"kind": "text", "column": "comment", "tokenizer": "one"}
    before = build(NAMES)
    source = as_source(before, inputs=[entry])
    start_from(build(NAMES), source, None, [entry])
    with pytest.raises(UserError, match="tokens of 'comment' have other numbers"):
        start_from(build(NAMES), source, None, [entry | {"tokenizer": "two"}])
    with pytest.raises(UserError, match="reads comment, and this run columns alone"):
        start_from(build(NAMES), source, None, make_schema({"age": False}))


def test_a_damaged_schema_is_said() -> None:
    source = as_source(build(NAMES), inputs=[{"kind": "numeric", "column": "age"}])
    with pytest.raises(UserError, match=r"schema\.json is damaged"):
        start_from(build(NAMES), replace(source), None, make_schema({"age": False}))
