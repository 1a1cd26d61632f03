"""The page of a report: its text, its links, and how it behaves in a real browser."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from src.analysis.comparison import compare_rows
from src.analysis.page import write_page
from src.analysis.page_tables import PageColumn, PageTable
from src.analysis.results import StudyResults
from tests.analysis.made_study import ROWS, TASKS, MadeRow, draw_scores, make_study

SCRIPT = "<script>document.title = 'broken'</script>"
IMAGE = '"><img src=x onerror="document.title=1">'
WIDTHS = (400, 1280)
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOSTILE_TASKS = {"доход": TASKS["digit"], "<b>税</b>": TASKS["odd"], "a, b'": TASKS["ink"]}
HOSTILE_ROWS = [
    MadeRow("single-task", "single"),
    MadeRow("tuned fixed weights", "tuned"),
    MadeRow(SCRIPT, settings={"model.balancer": SCRIPT}),
    MadeRow(IMAGE),
    MadeRow("$\\frac{a}{b}$ {{ 7 * 7 }} &amp;"),
    MadeRow("x" * 120),
    MadeRow("constant", "reference"),
]


def write(folder: Path, *args: Any, **options: Any) -> Path:
    """Makes a study and writes its page, as the report does."""
    results = StudyResults(make_study(folder, *args, **options))
    tasks = results.record["tasks"]
    shown = [(task, its["monitor"]) for task, its in tasks.items()]
    names = list(tasks)
    pair = (names[0], names[1]) if len(names) > 1 else None
    comparison = compare_rows(results, results.list_values(), shown, pair)
    write_page(comparison, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any) -> Path:
    """A page with everything: methods that gain and lose, failures, figures."""
    scores = draw_scores(ROWS, TASKS, 5, gains={"PCGrad": -0.1, "constant": -0.5})
    scores[2, 1, 0] = np.nan
    failed = {("StaticWeights", 4): f"no weights {SCRIPT}"}
    folder = tmp_path_factory.mktemp("a root #1") / "study"
    return write(folder, scores, seeds=range(5), failed=failed)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: Any) -> Path:
    """A page whose names come from somebody who means ill, and from many languages."""
    folder = tmp_path_factory.mktemp("root") / "study"
    return write(folder, rows=HOSTILE_ROWS, tasks=HOSTILE_TASKS, finished=False)


# -- without a browser -----------------------------------------------------------------------------
class Reader(HTMLParser):
    """Collects the elements of a page, in their order, and the text of each."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.last = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.last = tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.last, data))

    def read(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


@pytest.mark.parametrize("name", ["page", "hostile"])
def test_every_link_leads_somewhere(name, request):
    path = request.getfixturevalue(name)
    reader = Reader(path)
    ids = [attrs["id"] for _, attrs in reader.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [str(attrs["href"]) for attrs in reader.read("a")]
    assert len(links) > 100
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert (path.parent / unquote(link)).exists(), link


def test_numbers_lead_to_their_run_folders(page):
    reader = Reader(page)
    links = [str(attrs["href"]) for attrs in reader.read("a")]
    # each trial that has finished, whether it counts on test rows or was tuned on validation rows
    trials = sorted(path.parent for path in page.parent.parent.glob("trials/*/*/metrics.json"))
    found = {(page.parent / unquote(link)).resolve() for link in links if link.startswith("..")}
    assert set(trials) <= found
    # a number of one run leads there, that of several to their list
    assert "#runs-3" in links
    assert "#runs-5" not in links


def test_tables_are_told_apart_by_screen_readers(page):
    reader = Reader(page)
    assert len(reader.read("table")) == len(reader.read("caption")) == 7
    assert all("scope" in attrs for attrs in reader.read("th"))
    assert [attrs["lang"] for attrs in reader.read("html")] == ["en"]
    levels = [int(tag[1]) for tag, _ in reader.found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_page_says_what_was_done(page):
    text = " ".join(re.sub(r"\s+", " ", data) for _, data in Reader(page).texts)
    for words in (
        "python -m src.compare --config configs/study/made.yaml",
        "commit 0123456",
        "t.csv, SHA-256 f00d, 1500 rows",
        "2.13.0+cpu",
        "Test rows were read once, from the chosen checkpoints",
        "higher is better",
        "Holm",
        "no significant difference",
        "Significantly worse than tuned fixed weights: PCGrad.",
        "StaticWeights, seed 4 failed: no weights <script>",
        "6 rows, 3 tasks and 5 seeds",
    ):
        assert words in text, words


def test_names_of_users_are_text(hostile):
    reader = Reader(hostile)
    assert len(reader.read("script")) == 1
    assert not reader.read("img")
    # the page itself has bold words before each finding, and no more
    assert {data for tag, data in reader.texts if tag == "b" and data.strip()} >= {"In words:"}
    assert len(reader.read("b")) == 5
    text = "".join(data for _, data in reader.texts)
    for name in (SCRIPT, IMAGE, "{{ 7 * 7 }} &amp;", *HOSTILE_TASKS):
        assert name in text
    assert "Unfinished." in text


def test_the_same_study_makes_the_same_page(tmp_path):
    # a figure of an earlier report, of a study that had one
    old = tmp_path / "two" / "study" / "figures" / "delta.svg"
    old.parent.mkdir(parents=True)
    old.touch()
    options = {"rows": [MadeRow("PCGrad")], "candidates": 0, "seeds": [0]}
    one = write(tmp_path / "one" / "study", **options)
    two = write(tmp_path / "two" / "study", **options)
    assert one.read_bytes() == two.read_bytes()
    assert "No row can be compared with single-task networks." in one.read_text()
    assert not old.exists()


def test_neighbours_of_one_task_share_a_heading():
    columns = [
        PageColumn(name, group, True, False)
        for name, group in zip("abcd", ("", "t", "t", ""), strict=True)
    ]
    assert PageTable("n", "c", columns, []).groups == [("", 1), ("t", 2), ("", 1)]


# -- in a browser ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser of this machine."""
    api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page in a browser, and what the browser has complained about."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()

    def read_column(self, place: int) -> list[str]:
        """Returns the texts of a column of the main table."""
        cells = f"#results tbody tr > :nth-child({place})"
        return [text.strip() for text in self.page.locator(cells).all_inner_texts()]


def read_numbers(texts: list[str]) -> list[float]:
    found = []
    for text in texts:
        number = text.split(" ")[0].replace("\N{MINUS SIGN}", "-").rstrip("†‡")
        found.append(float("nan") if number == "\N{EN DASH}" else float(number))
    return found


@pytest.mark.parametrize("name", ["page", "hostile"])
def test_the_page_opens_offline_at_any_width(name, request, browser):
    path = request.getfixturevalue(name)
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            size = {"width": width, "height": 800}
            with Opened(browser, path, viewport=size, color_scheme=scheme) as opened:
                assert opened.complaints == []
                assert opened.requests == [path.as_uri()]
                # tables scroll inside their own part of the page
                sizes = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
                assert sizes[0] <= sizes[1] == width
                assert opened.page.title() == "study: report of a study"
                assert opened.page.locator("h1").inner_text() == "study"


def test_columns_are_sorted_by_click(page, browser):
    with Opened(browser, page) as opened:
        before = opened.read_column(1)
        delta = opened.page.get_by_role("button", name="Δ tasks")
        head = opened.page.locator("#results th:has(button)", has_text="Δ tasks")
        place = opened.page.evaluate("cell => cell.cellIndex + 1", head.element_handle())
        assert head.get_attribute("aria-sort") == "none"

        delta.click()
        numbers = read_numbers(opened.read_column(place))
        assert numbers == sorted(numbers, reverse=True)
        assert min(numbers) < -9
        assert head.get_attribute("aria-sort") == "descending"
        # whole lines have moved
        after = opened.read_column(1)
        assert sorted(after) == sorted(before) != after
        assert after[-1] == "constant"

        delta.click()
        assert read_numbers(opened.read_column(place)) == numbers[::-1]
        assert head.get_attribute("aria-sort") == "ascending"

        # one column at a time; names sort as text; a rank that there is not comes last
        names = opened.page.locator("#results").get_by_role("button", name="row", exact=True)
        names.click()
        assert opened.read_column(1) == sorted(before, key=str.lower)
        assert head.get_attribute("aria-sort") == "none"
        for _ in range(2):
            opened.page.locator("#results").get_by_role("button", name="rank").click()
            assert opened.read_column(1)[-1] == "constant"
        assert opened.complaints == []


def test_columns_are_sorted_by_keyboard(page, browser):
    with Opened(browser, page) as opened:
        button = opened.page.locator("#results").get_by_role("button", name="ink rmse")
        head = opened.page.locator("#results th:has(button)", has_text="rmse")
        place = opened.page.evaluate("cell => cell.cellIndex + 1", head.element_handle())
        opened.page.locator("#results").get_by_role("button", name="odd auroc").focus()
        opened.page.keyboard.press("Tab")
        assert button.evaluate("one => one === document.activeElement")

        # less is better: the smallest comes first
        opened.page.keyboard.press("Enter")
        numbers = read_numbers(opened.read_column(place))
        assert numbers == sorted(numbers)
        opened.page.keyboard.press("Space")
        assert read_numbers(opened.read_column(place)) == numbers[::-1]


def test_figures_and_tables_have_names(page, browser):
    with Opened(browser, page) as opened:
        images = opened.page.get_by_role("img")
        assert images.count() == 5
        for title in (
            "Change from single-task networks",
            "Test results by task",
            "Two tasks against each other",
            "Learning curves on validation rows",
            "Mean ranks, and groups without a significant difference",
        ):
            image = opened.page.get_by_role("img", name=title)
            assert image.count() == 1
            # the name goes on with the finding
            described = image.evaluate("one => one.querySelector('desc').textContent")
            assert opened.page.get_by_role("img", name=described).count() == 1
        for caption in ("Test metrics of study", "Cost of a replicate"):
            assert opened.page.get_by_role("table", name=caption).count() == 1
        heads = opened.page.locator("#results").get_by_role("rowheader")
        assert heads.all_inner_texts() == [row.name for row in ROWS]


def test_figures_follow_a_dark_page(page, browser):
    inks = []
    for scheme in ("light", "dark"):
        with Opened(browser, page, color_scheme=scheme) as opened:
            text = opened.page.locator("#figure-delta svg text").first
            inks.append(text.evaluate("one => getComputedStyle(one).fill"))
    assert inks == ["rgb(27, 31, 36)", "rgb(228, 231, 235)"]


def test_a_page_is_whole_in_print(page, browser):
    with Opened(browser, page) as opened:
        opened.page.emulate_media(media="print")
        for tall in opened.page.locator(".scroll").all():
            hidden = tall.evaluate("one => one.scrollHeight - one.clientHeight")
            assert hidden <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"tasks": {"digit": TASKS["digit"]}, "folds": 3, "seeds": [0]},
        {"failed": {("PCGrad", place): "no memory" for place in range(3)}, "seeds": [0, 1, 2]},
    ],
    ids=["one task in folds", "a row that has failed"],
)
def test_small_and_broken_studies_have_a_page(options, tmp_path, browser):
    path = write(tmp_path / "study", **options)
    with Opened(browser, path, viewport={"width": 400, "height": 800}) as opened:
        assert opened.complaints == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
        heads = opened.page.locator("#results").get_by_role("rowheader")
        assert heads.count() == len(ROWS)


@pytest.mark.slow
def test_large_studies_have_a_page(tmp_path, browser):
    rows = [*ROWS[:2], *(MadeRow(f"method {i}") for i in range(56)), *ROWS[4:]]
    task = {"monitor": "accuracy", "metrics": {"accuracy": 1, "f1": 1}}
    tasks: Any = {f"task_{i}": task for i in range(40)}
    path = write(tmp_path / "study", rows=rows, tasks=tasks, candidates=2)
    for width in WIDTHS:
        with Opened(browser, path, viewport={"width": width, "height": 800}) as opened:
            assert opened.complaints == []
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
            assert opened.page.locator("#metrics").get_by_role("rowheader").count() == 60
