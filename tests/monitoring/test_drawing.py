import numpy as np
import pytest

from src.monitoring.drawing import draw_matrix, draw_routes, shorten_name


def test_a_matrix_is_drawn_with_its_names_and_numbers():
    axes = draw_matrix(
        "gates", ["a", "b"], ["x", "y", "z"], np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])
    ).axes[0]
    assert axes.get_title() == "gates"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y", "z"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in axes.texts] == [
        "0.10",
        "0.20",
        "0.70",
        "0.50",
        "0.25",
        "0.25",
    ]
    assert axes.images[0].get_clim() == (0, 1)  # shares look the same in every picture


def test_negative_values_have_another_colour():
    image = draw_matrix("stitch", ["a"], ["a", "b"], np.array([[0.9, -1.1]])).axes[0].images[0]
    assert image.get_clim() == (-1.1, 1.1)
    assert image.get_cmap().name == "RdBu"


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), np.nan)])
def test_a_matrix_of_nothing(values):
    assert draw_matrix("none", ["a", "b"], ["a", "b"], values).axes[0].images[0].get_clim() == (
        0,
        1,
    )


def test_large_matrices_have_no_numbers():
    assert not draw_matrix("many", ["r"] * 3, ["c"] * 50, np.ones((3, 50))).axes[0].texts


def test_numbers_above_1_have_colours_up_to_the_largest():
    assert draw_matrix("load", ["a"], ["x", "y"], np.array([[1.0, 4.0]])).axes[0].images[
        0
    ].get_clim() == (0, 4)


def test_of_many_columns_some_are_named():
    axes = draw_matrix(
        "attention", ["a"], [str(c) for c in range(256)], np.full((1, 256), 0.5)
    ).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        str(c) for c in range(0, 256, 13)
    ]


def test_routes_run_straight_on_until_they_part():
    """Whatever numbers the branches have."""
    axes = draw_routes(
        "tree",
        ["a", "b", "c"],
        ["stage 1", "stage 2", "stage 3"],
        np.array([[2, 0, 1], [2, 0, 1], [2, 0, 0]]),
    ).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines) == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    for name in "abc":
        assert lines[name][0] == lines[name][1]
    assert lines["b"][2] - lines["a"][2] == pytest.approx(lines["b"][0] - lines["a"][0])
    assert lines["c"][2] - lines["b"][2] > 1


def test_long_names_are_cut():
    assert shorten_name("x" * 20) == "x" * 20
    assert shorten_name("x" * 21) == "x" * 19 + "…"
