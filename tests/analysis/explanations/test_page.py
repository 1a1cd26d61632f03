"""Pages that open offline, with everything in them, and what users have named escaped."""

import re

import torch

from src.analysis.explanations.checks import Completeness, Deletion
from src.analysis.explanations.outputs import list_outputs
from src.analysis.explanations.page import (
    colour_tokens,
    pick_rows,
    render_explanation,
    render_sharing,
)
from src.analysis.explanations.pictures import draw_table, draw_task, to_png
from src.analysis.explanations.results import (
    Explanation,
    OutputExplanation,
    TaskExplanation,
    to_record,
)
from src.analysis.explanations.summary import summarise_columns
from src.tasks import BinaryClassification
from tests.analysis.explanations.made import make_columns

PNG = b"\x89PNG\r\n\x1a\n"


def made(**more):
    """An explanation of two columns and five rows."""
    (output,) = list_outputs("<b>income", BinaryClassification(classes=("no", "yes")), "predicted")
    attributions = torch.tensor([[1.0, -2], [0, 1], [3, -1], [2, 2], [-1, 0]])
    features = make_columns(2)
    own = OutputExplanation(
        output,
        attributions,
        torch.arange(5.0),
        torch.zeros(5),
        summarise_columns(features.columns, attributions),
        Completeness(0.01, 0.05, 2.0),
    )
    deletion = Deletion((0, 0.5, 1), (0.9, 0.6, 0.5), (0.9, 0.8, 0.5), 0.1, 0.05, 0.15)
    task = TaskExplanation("<b>income", "AUROC", [own], deletion, ["yes"] * 5, ["no"] * 4 + [None])
    given = {"values": {"x0": ["<i>", "2", None, "4", "5"]}, "notes": ["Read me."], **more}
    return Explanation(
        "adult/1",
        "IntegratedGradients",
        "5 rows",
        "means",
        features,
        list(range(5)),
        [task],
        **given,
    )


def test_the_page_is_whole_and_escapes_names():
    found = made()
    png = to_png(draw_task(found, found.tasks[0]))
    assert png.startswith(PNG)
    page = render_explanation(found, {"<b>income": png}, {})
    assert "<b>income" not in page
    assert "&lt;b&gt;income" in page
    assert "&lt;i&gt;" in page
    assert "x0 = missing" in page
    # nothing outside the page, and no script
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    for number in ("0.1000", "0.0500 to 0.1500", "5 %"):
        assert number in page


def test_the_record_has_the_checks():
    record = to_record(made())
    own = record["tasks"]["<b>income"]
    assert own["deletion"]["area"] == 0.1
    assert own["outputs"][0]["completeness"]["largest"] == 0.05
    assert [one["column"] for one in own["outputs"][0]["columns"]] == ["x0", "x1"]


def test_rows_are_spread_from_the_largest_to_the_smallest():
    (own,) = made().tasks[0].outputs
    assert pick_rows(own) == [4, 3, 2, 1, 0]


def test_tokens_have_the_colour_of_their_sign_and_size():
    up, down = colour_tokens(["good", None, "bad"], torch.tensor([1.0, 9.0, -9.0]))
    assert (up.word, down.word) == ("good", "bad")
    assert up.colour.startswith("rgba(11,98,164,")
    assert down.colour == "rgba(180,68,26,0.750)"


def test_images_are_drawn_with_their_maps():
    images = {"image": torch.rand(5, 3, 1, 2)}
    found = made(images=images, pixels={"image": torch.tensor([[0, 1]])})
    assert to_png(draw_task(found, found.tasks[0])).startswith(PNG)


def test_the_page_of_sharing_is_whole():
    from pandas import DataFrame

    figure = draw_table("CKA", DataFrame([[1.0, 0.2], [0.2, 1.0]]), 0.0, 1.0)
    page = render_sharing("adult/1", ["All <tasks>."], [("CKA", "How alike.", to_png(figure))])
    assert "All &lt;tasks&gt;." in page
    assert page.count("data:image/png;base64,") == 1
