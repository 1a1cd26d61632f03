"""The parity table: how far runs on every topology are from those of one process.

python -m tests.integration.parity [TOPOLOGY ...] (all of them, and then the table is written to
tests/benchmarks/PARITY.md, with a picture for README)
"""

import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track

from src.run import find_versions
from tests.integration.grid import TOPOLOGIES, Cell, cells
from tests.integration.namespaces import ADDRESSES, two_hosts
from tests.launching import ROOT, finish, launch, port

TABLE = ROOT / "tests" / "benchmarks" / "PARITY.md"
PICTURE = ROOT / "notebooks" / "pictures" / "parity.png"
LIMIT = 1e-5
ABOUT = """# Parity
Largest relative difference from one process, of the losses of all {steps} steps and of all final
weights: every balancer at each of its levels, and every sharing architecture without and with task
gradients (PCGrad), on each topology. Eight tasks of all kinds with labels missing unevenly, one
absent from most batches; dropout, gradient clipping, SGD; fp32 on CPUs; the goal is 1e-5. Of a loss
or a tensor of norm below 0.01 the difference counts relative to 0.01. The last rows are of other
forms of data and kinds of tasks, with plain training and with PCGrad.

Made by `make parity` on {date}: {versions}.
"""


def run(topology: str, out: Path, *words: str) -> Any:
    """Runs the grid on a topology: all cells, or those whose names hold one of the words."""
    where = TOPOLOGIES[topology]
    what = ("-m", "tests.integration.grid", out, topology, *words)
    if where.nodes == 1:
        launch(
            "torch.distributed.run",
            "--nproc_per_node",
            where.processes,
            "--master_port",
            port(29600),
            *what,
            timeout=3600,
        )
    else:
        with two_hosts() as hosts:
            meet = (
                "--nnodes",
                2,
                "--nproc_per_node",
                where.processes // 2,
                "--master_addr",
                ADDRESSES[0],
                "--master_port",
                port(29600),
            )
            wire = {"GLOO_SOCKET_IFNAME": "wire"}
            both = [
                hosts.start(k, "torch.distributed.run", *meet, "--node_rank", k, *what, **wire)
                for k in range(2)
            ]
            for process in both:
                done = finish(process, timeout=3600)
                assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def apart(ours: Any, theirs: Any) -> float | str:
    """The largest relative difference of losses and weights; or why a run was refused."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return ours if isinstance(ours, str) else theirs
    assert ours["weights"].keys() == theirs["weights"].keys()
    pairs = [
        (ours["weights"][key], value)
        for key, value in theirs["weights"].items()
        if value.is_floating_point()
    ]
    pairs += list(zip(ours["losses"].flatten(), theirs["losses"].flatten(), strict=True))
    differences = []
    for a, b in pairs:
        a, b = a.double(), b.double()
        assert torch.equal(a.isnan(), b.isnan())
        # a number that happens to be near 0 carries the rounding of where it has been
        differences.append(
            float((a - b).nan_to_num(0).norm()) / max(float(b.nan_to_num(0).norm()), 1e-2)
        )
    return max(differences)


def written(value: float | str) -> str:
    """A cell of the table."""
    return f"refused: {value}" if isinstance(value, str) else f"{value:.0e}"


def table(found: dict[str, dict[Cell, float | str]], steps: int) -> str:
    """The table as Markdown: a row for each cell of the grid, a column for each topology."""
    names = list(found)
    kept = {name: v for name, v in find_versions().items() if name in ("torch", "lightning")}
    about = ABOUT.format(
        steps=steps,
        date=date.today(),
        versions=", ".join(f"{name} {version}" for name, version in kept.items()),
    )
    lines = [about, f"| | level | {' | '.join(names)} |", "|" + "---|" * (len(names) + 2)]
    for cell in cells():
        _, what, level = cell
        lines.append(
            f"| {what} | {level} | {' | '.join(written(found[name][cell]) for name in names)} |"
        )
    return "\n".join(lines) + "\n"


def draw(path: Path) -> None:
    """Draws the table: a column for each cell, a row for each topology, dark where runs differ.

    Hatched cells were refused before they started.
    """
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    header, *lines = [[word.strip() for word in row.strip("|").split("|")] for row in rows]
    names = [f"{what}, {level}" for what, level, *_ in lines]
    values = np.full((len(header) - 2, len(lines)), np.nan)
    for k, (_, _, *of_topologies) in enumerate(lines):
        for j, word in enumerate(of_topologies):
            if not word.startswith("refused"):
                values[j, k] = max(float(word), 1e-9)

    figure = Figure(figsize=(16, 5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.log10(values), vmin=-9, vmax=-5, cmap="Blues", aspect="auto")
    axes.patch.set(facecolor="whitesmoke", hatch="////", edgecolor="lightgrey")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(header) - 2), header[2:])
    axes.set_title("largest relative difference from one process (the goal is 1e-5)")
    figure.colorbar(image, ax=axes, label="log10")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=90)


def main(topologies: list[str]) -> int:
    """Runs, says what is too far, and writes the table of all topologies."""
    found: dict[str, dict[Cell, float | str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        one = run("1 process", Path(folder) / "one.pt")
        others = topologies or [name for name in TOPOLOGIES if name != "1 process"]
        for name in track(others, description="topologies", console=Console(stderr=True)):
            ours = run(name, Path(folder) / "other.pt")
            found[name] = {cell: apart(ours[cell], one[cell]) for cell in one}
    far = [
        (name, cell, d)
        for name, of in found.items()
        for cell, d in of.items()
        if isinstance(d, float) and not d < LIMIT
    ]
    for name, cell, d in far:
        print(f"{name}: {' '.join(cell)} is {d:.1e} from one process", file=sys.stderr)
    steps = max(len(cell["losses"]) for cell in one.values() if not isinstance(cell, str))
    if topologies:
        print(table(found, steps))
    else:
        TABLE.write_text(table(found, steps))
        draw(PICTURE)
    return len(far) > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
