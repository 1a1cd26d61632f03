"""An exported run as it is served: the first call, a warm call, and the size of its packages.

The folder's handler runs in a fresh environment that has nothing but the folder's requirements.

python -m tests.benchmarks.exporting
"""

import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.deployment.fresh import install, measure_packages, probe

NUMBERS = 8
WORDS = 6
ROWS = 3000
LIMITS = {"first": 1.0, "warm": 0.002, "packages": 250.0}  # seconds, seconds, MB


def write_table(path: Path) -> dict[str, Any]:
    """Writes a table of numbers, words and four labels, and returns one of its rows of inputs."""
    draw = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for k in range(NUMBERS):
        columns[f"n{k}"] = draw.normal(size=ROWS).round(3)
    for k in range(WORDS):
        columns[f"w{k}"] = draw.choice([f"word{i}" for i in range(5 + 5 * k)], ROWS)
    inputs = list(columns)
    for k in range(3):
        columns[f"label{k}"] = np.where(columns[f"n{k}"] + draw.normal(size=ROWS) > 0, "yes", "no")
    columns["number"] = (columns["n0"] * 3 + draw.normal(size=ROWS)).round(2)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    first: dict[str, Any] = {name: columns[name][0] for name in inputs}
    return {
        name: value if isinstance(value, str) else float(value) for name, value in first.items()
    }


def export(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Trains a run and exports it; returns the folder, and a row of inputs."""
    row = write_table(folder / "table.csv")
    targets = "[label0, label1, label2, number]"
    logs = folder / "logs"
    run = [sys.executable, "-m"]
    training = ["--data", "Table", "--data.path", str(folder / "table.csv")]
    training += ["--data.targets", targets, "--max_epochs", "2"]
    training += ["--logs", str(logs), "--name", "run"]
    subprocess.run([*run, "src.train", *training], check=True, capture_output=True)
    (found,) = (logs / "run").iterdir()
    words = ["src.export", "--run", str(found), "--to", "onnx", "--out", str(folder / "model")]
    subprocess.run([*run, *words], check=True, capture_output=True)
    return folder / "model", row


def measure(quick: bool) -> dict[str, float]:
    """Returns the seconds of the first call and of a warm one, and the megabytes of packages."""
    with tempfile.TemporaryDirectory() as name:
        model, row = export(Path(name))
        python = install(model, Path(name) / "venv")
        # the first process reads files that no other has read before
        found = [probe(python, model, [row]) for _ in range(2 if quick else 6)][1:]
        return {
            "first": statistics.median(each["first"] for each in found),
            "warm": statistics.median(each["warm"] for each in found),
            "packages": measure_packages(Path(name) / "venv"),
        }


def table(quick: bool) -> str:
    """The figures beside their limits as a Markdown table."""
    found = measure(quick)
    lines = [
        "| an exported run, one row | measured | limit |",
        "|---|---|---|",
        f"| import and first call, s | {found['first']:.2f} | {LIMITS['first']:g} |",
        f"| warm call, ms | {found['warm'] * 1e3:.2f} | {LIMITS['warm'] * 1e3:g} |",
        f"| packages unzipped, MB | {found['packages']:.0f} | {LIMITS['packages']:g} |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table("--quick" in sys.argv))
