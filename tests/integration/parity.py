"""The parity table: how far runs on every topology are from those of one process.

python -m tests.integration.parity [TOPOLOGY ...] (all of them, and then the table is written to
tests/benchmarks/PARITY.md)
"""

import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from src.run import find_versions
from tests.integration.grid import TOPOLOGIES, Cell, cells
from tests.integration.namespaces import ADDRESSES, two_hosts
from tests.launching import ROOT, finish, launch, port

TABLE = ROOT / "tests" / "benchmarks" / "PARITY.md"
LIMIT = 1e-5
ABOUT = """# Parity
Largest relative difference from one process, of the losses of all {steps} steps and of all final
weights: every balancer at each of its levels, and every sharing architecture without and with task
gradients (PCGrad), on each topology. Eight tasks of all kinds with labels missing unevenly, one
absent from most batches; dropout, gradient clipping, SGD; fp32 on CPUs; the goal is 1e-5. Of a loss
or a tensor of norm below 0.01 the difference counts relative to 0.01.

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
    return len(far) > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
