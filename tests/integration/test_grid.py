"""Same run, any topology: every balancer and architecture; `make parity` makes the whole table."""

import re
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.integration.grid import TOPOLOGIES, Cell, cells, train
from tests.integration.parity import LIMIT, TABLE, apart, run, written

CELLS = cells()
# one of each kind of step; the first few are in the fast suite, on two processes
QUICK = (
    ("balancing", "UncertaintyWeights", "losses"),
    ("balancing", "PCGrad", "features"),
    ("balancing", "PCGrad", "parameters"),
    ("sharing", "PLE", "parameters"),
)
REST = (
    ("balancing", "StaticWeights", "losses"),
    ("balancing", "GradDrop", "features"),
    ("balancing", "MoCo", "parameters"),
    ("sharing", "HardSharing until 1", "parameters"),
    ("sharing", "SoftSharing", "parameters"),
    ("sharing", "WeightedSharing", "losses"),
)
FAST = ("ddp x 2",)
QUICK_WORDS = tuple("-".join(cell) for cell in QUICK)


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Losses and weights by cell, after a launch on a topology; a few cells run in this process."""

    @cache
    def on(topology: str, *words: str) -> Any:
        if (topology, words) == ("1 process", QUICK_WORDS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return {cell: train(cell, TOPOLOGIES[topology]) for cell in QUICK}
        return run(topology, tmp_path_factory.mktemp("grid") / "out.pt", *words)

    return on


def test_there_are_all() -> None:
    assert len(CELLS) == len(set(CELLS))
    assert set(QUICK + REST) <= set(CELLS)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_two_processes_agree_with_one(grid: Callable[..., Any], cell: Cell) -> None:
    kind = f"{cell[0]}-"
    distance = apart(grid("ddp x 2", kind)[cell], grid("1 process", kind)[cell])
    assert isinstance(distance, float)
    assert distance < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["ddp x 2", "fsdp x 2"])
@pytest.mark.parametrize("cell", cells(accumulated=True), ids="-".join)
def test_micro_batches_agree_too(grid: Callable[..., Any], cell: Cell, topology: str) -> None:
    distance = apart(grid(topology, "accumulated")[cell], grid("1 process", "accumulated")[cell])
    assert isinstance(distance, float)
    assert distance < LIMIT


ELSEWHERE = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in TOPOLOGIES
    if name != "1 process"
]


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(c, marks=() if c in QUICK else pytest.mark.slow, id="-".join(c))
        for c in QUICK + REST
    ],
)
@pytest.mark.parametrize("topology", ELSEWHERE)
def test_other_topologies_agree_with_one(
    grid: Callable[..., Any], topology: str, cell: Cell
) -> None:
    words = QUICK_WORDS if cell in QUICK else ["-".join(each) for each in REST]
    one = grid("1 process", *words)[cell]
    try:
        ours = grid(topology, *words)
    except OSError as error:
        pytest.skip(f"no network of its own here: {error}")
    distance = apart(ours[cell], one)
    assert isinstance(distance, str) or distance < LIMIT
    published = rows()[cell][topology]
    assert isinstance(distance, str) == published.startswith("refused")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["balancing-", "sharing-"])
def test_runs_differ(grid: Callable[..., Any], kind: str) -> None:
    """No method or architecture is another one by mistake, as the measure of parity would show."""
    one = grid("1 process", kind)
    ends = {cell: of["weights"]["heads.number.0.weight"] for cell, of in one.items()}
    for cell, end in ends.items():
        others = {other: e for other, e in ends.items() if other != cell and e.shape == end.shape}
        # where each task has weights of its own there are no gradients of tasks to balance
        if kind == "sharing-":
            others = {other: e for other, e in others.items() if other[1] != cell[1]}
        assert not [other for other, e in others.items() if (end - e).norm() < 1e-4 * end.norm()], (
            cell
        )


# -- the published table ---------------------------------------------------------------------------
def rows() -> dict[Cell, dict[str, str]]:
    """The table as it stands in the repository."""
    lines = [
        line.strip("| \n").split(" | ")
        for line in TABLE.read_text().splitlines()
        if line.startswith("|")
    ]
    header, _, *content = lines
    return {
        cell: dict(zip(header[1:], row[2:], strict=True))
        for cell, row in zip(CELLS, content, strict=True)
    }


def test_the_table_is_complete_and_within_the_limit() -> None:
    table = rows()
    for cell, row in zip(
        CELLS,
        [line for line in TABLE.read_text().splitlines() if line.startswith("|")][2:],
        strict=True,
    ):
        assert row.startswith(f"| {cell[1]} | {cell[2]} |")
    for columns in table.values():
        assert [*columns] == [name for name in TOPOLOGIES if name != "1 process"]
        for value in columns.values():
            assert re.fullmatch(r"refused: .+", value) or float(value) < LIMIT
    assert written(3.21e-7) == "3e-07"
