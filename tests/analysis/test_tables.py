"""Tables of a report on terminals, in Markdown and in LaTeX."""

import io
import re

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from src.analysis.latex import escape as escape_latex
from src.analysis.latex import write_latex
from src.analysis.markdown import escape as escape_markdown
from src.analysis.markdown import write_markdown
from src.analysis.tables import choose_decimals, format_mean, format_p, make_tables
from src.analysis.terminal import FoldedTable
from tests.analysis.made_study import (
    ROWS,
    SINGLE,
    TASKS,
    TUNED,
    MadeRow,
    draw_scores,
    make_study,
    report,
)

SHOWN = [("digit", "accuracy"), ("odd", "auroc"), ("ink", "rmse")]
STRANGE = "50 % of <b>_x_</b> & {more} | \\ 网络 über #1"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    scores = draw_scores(ROWS, TASKS, 5, gains={"PCGrad": 0.02, "StaticWeights": -0.02})
    return report(
        make_study(tmp_path_factory.mktemp("root") / "study", scores, seeds=range(5)), SHOWN
    )


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    rows = [*ROWS[:2], MadeRow(STRANGE), MadeRow("a name of more than seventy characters " * 2)]
    return report(make_study(tmp_path_factory.mktemp("root") / "my_study & co", rows=rows), SHOWN)


def draw(comparison, width):
    out = io.StringIO()
    console = Console(file=out, width=width)
    for table in make_tables(comparison):
        console.print(FoldedTable(table))
    return out.getvalue()


def cells_of(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


# -- cells -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mean", "half", "decimals", "signed", "text"),
    [
        (0.95123, 0.0121, 3, False, "0.951 ± 0.012"),
        (0.95123, np.nan, 4, False, "0.9512"),
        (1.2345, 0.5, 2, True, "+1.23 ± 0.50"),
        (-1.2345, 0.5, 1, True, "-1.2 ± 0.5"),
        (-0.001, 0.5, 2, True, "0.00 ± 0.50"),
        (np.nan, np.nan, 2, False, "-"),
    ],
)
def test_a_mean_with_half_of_its_interval(mean, half, decimals, signed, text):
    assert format_mean(mean, half, decimals, signed) == text


def test_decimals_give_the_middle_interval_two_digits_or_three():
    assert choose_decimals([0.9, 0.9, 0.9], [0.012, 0.03, 0.002]) == 3
    assert choose_decimals([0.9, 0.9, 0.9], [0.012, 0.03, 0.0001]) == 4
    assert choose_decimals([11.0, 0.0, 0.01], [20.0, 0.0, 0.02]) == 1
    assert choose_decimals([1234.0], [56.0]) == 0
    assert choose_decimals([0.95, np.nan], [np.nan, np.nan]) == 4
    assert choose_decimals([1234.0], [np.nan]) == 0
    assert choose_decimals([0.0], [0.0]) == 4


def test_p_values():
    assert [format_p(p) for p in (0.0004, 0.0351, 1.0, np.nan)] == [
        "< 0.001",
        "0.035",
        "1.000",
        "-",
    ]


# -- the tables ------------------------------------------------------------------------------------
def test_the_best_mean_of_a_column_is_bold_and_verdicts_are_marked(comparison):
    results = make_tables(comparison)[0]
    names = [" ".join(column.heading) for column in results.columns]
    assert names == [
        *("digit accuracy ↑", "odd auroc ↑", "ink rmse ↓"),
        *("Δ tasks % ↑", "Δ metrics % ↑", "rank ↓"),
    ]
    for column in results.columns:
        assert [cell.bold for cell in column.cells].count(True) == 1
    best = dict(zip(names, results.columns, strict=True))
    # an error is best where it is lowest
    rmse = comparison.summary[comparison.summary["metric"] == "rmse"].set_index("row")["mean"]
    row = results.rows[[cell.bold for cell in best["ink rmse ↓"].cells].index(True)]
    assert rmse[row] == rmse.min()
    marks = {row: c.mark for row, c in zip(results.rows, best["Δ tasks % ↑"].cells, strict=True)}
    assert marks["PCGrad"] == "†"
    assert marks["StaticWeights"] == "‡"
    assert marks[TUNED] == marks["ensemble"] == marks["constant"] == ""


def test_no_significant_difference_is_said_in_words(comparison):
    tests = next(table for table in make_tables(comparison) if table.label == "tests")
    verdicts = dict(zip(tests.rows, (c.text for c in tests.columns[-1].cells), strict=True))
    assert verdicts == {
        SINGLE: "no significant difference",
        "StaticWeights": "worse",
        "PCGrad": "better",
        "ensemble": "no significant difference",
    }


def test_one_seed_gives_numbers_without_intervals(tmp_path):
    shown = report(make_study(tmp_path / "study", seeds=(0,)), SHOWN)
    text = draw(shown, 200)
    assert "±" not in text
    assert "too few replicates" in text
    assert "One seed gives no intervals and no tests" in write_markdown(shown)


def test_one_row_has_no_best(tmp_path):
    table = make_tables(report(make_study(tmp_path / "study", rows=[MadeRow("alone")]), SHOWN))[0]
    assert not any(cell.bold for column in table.columns for cell in column.cells)
    assert [column.heading[0] for column in table.columns] == ["digit", "odd", "ink", "rank"]


# -- terminals -------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_nothing_is_wider_than_the_console(comparison, strange, width):
    for shown in (comparison, strange):
        lines = draw(shown, width).splitlines()
        assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", [40, 80, 200])
def test_columns_are_folded_and_numbers_never_cut(comparison, width):
    text = draw(comparison, width)
    for table in make_tables(comparison):
        for column in table.columns:
            for cell in column.cells:
                if column.is_number:
                    assert cell.text + cell.mark in text
    # every block names its rows
    blocks = text.count("PCGrad")
    assert blocks >= (4 if width == 200 else 5)


# -- Markdown --------------------------------------------------------------------------------------
def test_markdown_holds_all_tables_and_links(comparison):
    text = write_markdown(comparison)
    lines = text.splitlines()
    assert lines[0] == "# study"
    header = next(k for k, line in enumerate(lines) if line.startswith("| row | digit accuracy"))
    row = next(line for line in lines[header:] if line.startswith("| PCGrad "))
    summary = comparison.summary.set_index(["row", "metric"]).loc[("PCGrad", "auroc")]
    mean, half = re.fullmatch(r"\**([\d.]+) ± ([\d.]+)\**", cells_of(row)[2]).groups()
    assert float(mean) == pytest.approx(summary["mean"], abs=10.0 ** -len(mean.split(".")[1]))
    assert float(half) == pytest.approx((summary["high"] - summary["low"]) / 2, rel=0.05)
    assert "no significant difference" in text
    for note in comparison.notes:
        assert escape_markdown(note) in text
    for metric in ("f1", "r2", "mae"):
        assert f" {metric} " in text
    links = re.findall(r"\[seed \d\]\(([^)]+)\)", text)
    assert len(links) == 5 * (3 + 5)  # a network for each task, and one run for each other row
    assert all((comparison.folder / link / "metrics.json").is_file() for link in links)


def test_tables_of_markdown_are_rectangular_whatever_names_hold(strange):
    blocks = re.findall(r"(?:^\|.*\n)+", write_markdown(strange), re.M)
    assert len(blocks) >= 7
    for block in blocks:
        widths = {len(cells_of(line)) for line in block.splitlines()}
        assert len(widths) == 1
    assert "<b>" not in write_markdown(strange)


# -- LaTeX -----------------------------------------------------------------------------------------
def test_latex_is_well_formed(comparison, strange):
    for shown in (comparison, strange):
        text = write_latex(shown)
        plain = re.sub(r"\\[{}\\]", "", text)
        depth = np.cumsum([{"{": 1, "}": -1}.get(character, 0) for character in plain])
        assert depth.min() >= 0
        assert depth[-1] == 0
        # signs with a meaning are escaped
        assert not re.search(r"(?<!\\)[#%](?! needs)", text)
        assert not re.search(r"[<>|†‡±Δ↑↓]", text)
        for body in re.findall(r"\\begin{tabular}{(l[lr]+)}\n(.*?)\\end", text, re.S):
            kinds, lines = body[0], body[1].splitlines()
            for line in lines:
                if line.endswith(r"\\"):
                    assert len(re.findall(r"(?<!\\)&", line)) == len(kinds) - 1
        for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
            assert text.count(rule) == text.count(r"\begin{table}")


def test_the_caption_says_how_numbers_were_made(comparison):
    caption = re.search(r"\\caption\{(.*)\}\n\\label", write_latex(comparison))[1]
    for words in (
        *("95 \\% interval over five seeds", "Tuned: model.optimizer.lr", "3 candidates"),
        *("val/score on validation rows", "Test rows were read once", "higher is better"),
        *("Holm", "significantly better or not"),
    ):
        assert words in caption
    assert r"\label{tab:study-results}" in write_latex(comparison)


def test_many_columns_are_several_tables(tmp_path):
    tasks = {f"task_{k}": TASKS["odd"] for k in range(15)}
    columns = [(task, "auroc") for task in tasks]
    shown = report(make_study(tmp_path / "wide", tasks=tasks, rows=ROWS[:2]), columns)
    text = write_latex(shown)
    assert text.count(r"\label{tab:wide-results") == 3  # 15 metrics, two deltas and the rank
    assert r"task\_14" in text


def test_signs_are_escaped():
    assert escape_latex(r"a_b & 5% {x} \y ~^") == (
        r"a\_b \& 5\% \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{}"
    )
    assert escape_markdown("a|b_c*\n<i>") == r"a\|b\_c\* \<i\>"
