"""Every command and every listing of the guides, run in a copy of the project as a reader would."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.launching import ROOT, environment

README = (ROOT / "README.md").read_text()
EXTENDING = (ROOT / "notebooks" / "extending.md").read_text()


def blocks(language: str, text: str) -> list[str]:
    """Returns the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def write_people(path: Path) -> None:
    """Writes a small table of people with labels of three kinds."""
    lines = ["name,age,city,children,income,hours"]
    for i in range(200):
        age = 20 + i * 7 % 50
        city = "Oslo" if i % 3 else "Rome"
        income = ">50K" if age > 44 else "<=50K"
        lines.append(f"p{i},{age},{city},{i % 4},{income},{30 + i % 17}.5")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies the project, with the listings in the files that they name, and small tables."""
    here = tmp_path_factory.mktemp("project")
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    for listing in blocks("python", EXTENDING):
        named = re.match(r"# (src/\S+\.py)\n", listing)
        assert named, listing
        assert not (here / named[1]).exists()
        (here / named[1]).write_text(f'"""{named[1]}."""\n\n{listing}')
    write_people(here / "people.csv")
    (here / "new.csv").write_text("name,age,city,children\nx,30,Oslo,1\ny,60,Paris,0\n")
    return here


@cache
def run(here: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a block of commands, which ends at the first that fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=here,
        env=environment(PATH=path),
        capture_output=True,
        text=True,
    )


def read_numbers(out: str) -> list[float]:
    """Returns the numbers of the first table of results."""
    table = out[out.index("test: score") :].partition("\ntask digit: ")[0]
    return [float(number) for number in re.findall(r"-?\d+\.\d{4}\b", table)]


SCRIPTS = [*blocks("bash", README), *blocks("bash", EXTENDING)]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.split("\n")[0][:60])
def test_commands(project: Path, script: str) -> None:
    done = run(project, script)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    scores = re.findall(r"test: score (-?[\d.]+)", done.stdout)
    assert scores
    assert 0 < float(scores[-1]) <= 1

    if script.startswith("python -m src.train --devices 2 "):
        # its first table is the one of the plain command, from two processes
        one = read_numbers(run(project, "python -m src.train\n").stdout)
        two = read_numbers(done.stdout)
        assert len(one) > 15
        assert two == pytest.approx(one, abs=2e-4)
    if "new-predictions.csv" in script:
        lines = (project / "new-predictions.csv").read_text().splitlines()
        assert lines[0] == "id,income,income.p_>50K,hours"
        assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]


@pytest.mark.slow
def test_python_api(project: Path) -> None:
    (listing,) = blocks("python", README)
    score = "print('score', float(trainer.callback_metrics['val/score']))"
    done = run(project, f"python - <<'EOF'\n{listing}\n{score}\nEOF")
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) > 0.8


@pytest.mark.slow
def test_listings_did_their_work(project: Path) -> None:
    """Reads what the commands have left; they come first in this file."""
    (script,) = blocks("bash", EXTENDING)
    out = run(project, script).stdout
    assert re.search(r"\bMedianError\b", out)
    assert "sharing Additive" in out
    assert "balancer SoftmaxWeights" in out
    lines = [json.loads(line) for line in (project / "curves.jsonl").read_text().splitlines()]
    keys = {key for line in lines for key in line}
    assert {"train/digit/loss", "val/digit/accuracy", "train/loudest"} <= keys


def test_length() -> None:
    assert len(README.splitlines()) <= 300


def test_links_lead_somewhere() -> None:
    for folder, text in ((ROOT, README), (ROOT / "notebooks", EXTENDING)):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (folder / target).exists(), target
