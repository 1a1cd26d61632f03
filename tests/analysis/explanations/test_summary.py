"""Summaries of attributions: means, intervals over rows, correlations, words."""

import pytest
import torch

from src.analysis.explanations.summary import summarise_columns, summarise_words


def test_columns_come_largest_first_with_intervals_over_rows():
    attributions = torch.tensor([[1.0, -3.0], [2.0, -5.0], [3.0, -1.0]], dtype=torch.float64)
    values = torch.tensor([[10.0, float("nan")], [20.0, 0.0], [30.0, 0.0]])
    first, second = summarise_columns(("age", "job"), attributions, values)
    assert (first["column"], second["column"]) == ("job", "age")
    assert first["mean_abs"] == pytest.approx(3)
    assert first["mean"] == pytest.approx(-3)
    half = 1.96 * 2 / 3**0.5
    assert (first["low"], first["high"]) == pytest.approx((3 - half, 3 + half))
    assert (first["mean_low"], first["mean_high"]) == pytest.approx((-3 - half, -3 + half))
    assert first["share"] == pytest.approx(0.6)
    # larger values of age raise the output; job has no numbers
    assert second["with_value"] == pytest.approx(1)
    assert first["with_value"] is None


def test_intervals_cover_the_mean_of_all_rows_as_often_as_they_say():
    draw = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(400):
        rows = 2 + torch.randn(50, 1, generator=draw, dtype=torch.float64)
        (one,) = summarise_columns(("x",), rows)
        inside += one["mean_low"] <= 2 <= one["mean_high"]
    assert 0.91 <= inside / 400 <= 0.98


def test_words_are_averaged_over_where_they_stand():
    words = [["good", "film", None], ["bad", "film", "good"]]
    attributions = torch.tensor([[1.0, 0.1, 9.0], [-2.0, -0.1, 3.0]])
    table = summarise_words(words, attributions, least=1).set_index("word")
    assert list(table.index) == ["bad", "good", "film"]
    assert table.loc["good", "mean"] == pytest.approx(2)
    assert table.loc["film", "mean"] == pytest.approx(0, abs=1e-6)
    assert table.loc["film", "mean_abs"] == pytest.approx(0.1)
    assert table.loc["film", "count"] == 2
    frequent = summarise_words(words, attributions, least=2)
    assert list(frequent["word"]) == ["good", "film"]
