"""Every command and every listing in the README, run in a copy of the project as a reader would."""

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


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is to be committed, with the listings written to the files they name, and a small table."""
    here = tmp_path_factory.mktemp("project")
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    for listing in blocks("python"):
        if named := re.match(r"# (src/\S+\.py)\n", listing):
            assert not (here / named[1]).exists()
            (here / named[1]).write_text(f'"""{named[1]}."""\n\n' + listing)
    rows = [
        f"p{i},{20 + i * 7 % 50},{'Oslo' if i % 3 else 'Rome'},{i % 4},{'>50K' if i * 7 % 50 > 24 else '<=50K'},{30 + i % 17}.5"
        for i in range(200)
    ]
    (here / "people.csv").write_text(
        "name,age,city,children,income,hours\n" + "\n".join(rows) + "\n"
    )
    (here / "new.csv").write_text("name,age,city,children\nx,30,Oslo,1\ny,60,Paris,0\n")
    return here


@cache
def run(here: Path, script: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=here,
        env=environment(PATH=path),
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("script", blocks("bash"), ids=lambda script: script.split("\n")[0][:60])
def test_commands(project: Path, script: str) -> None:
    done = run(project, script)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    if script.startswith(
        "python -m src.train --devices 2  "
    ):  # its first table is that of the plain command, from two processes
        one, two = numbers(run(project, "python -m src.train\n").stdout), numbers(done.stdout)
        assert len(one) > 15
        assert two == pytest.approx(one, abs=2e-4)
    if "src.predict" in script and "new.csv" in script:
        lines = (project / "new-predictions.csv").read_text().splitlines()
        assert lines[0] == "id,income,income.p_>50K,hours"
        assert [line.split(",")[0] for line in lines[1:]] == ["1", "2"]
    elif "test: score" not in done.stdout:
        assert "accelerator:" in done.stdout  # --print_config
    else:
        assert "Traceback" not in done.stderr
        assert 0 < float(re.findall(r"test: score (-?[\d.]+)", done.stdout)[-1]) <= 1


def numbers(out: str) -> list[float]:
    """The numbers of the first table of results; what follows begins with the next run's tasks."""
    table = out[out.index("test: score") :].partition("\ntask digit: ")[0]
    return [float(number) for number in re.findall(r"-?\d+\.\d{4}\b", table)]


def test_python_api(project: Path) -> None:
    listing = next(block for block in blocks("python") if "trainer.fit" in block)
    done = run(
        project,
        f"python - <<'EOF'\n{listing}\nprint('score', float(trainer.callback_metrics['val/score']))\nEOF",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.split()[-1]) > 0.8


def test_listings_did_what_they_say(project: Path) -> None:
    """After the commands, which come first in this file."""
    script = next(block for block in blocks("bash") if "Lines" in block)
    out = run(project, script).stdout
    assert re.search(r"\bmape\b", out)
    assert "sharing Additive" in out
    assert "balancer SoftmaxWeights" in out
    lines = [json.loads(line) for line in (project / "curves.jsonl").read_text().splitlines()]
    assert {"train/digit/loss", "val/digit/accuracy"} <= {key for line in lines for key in line}


def test_length() -> None:
    assert len(README.splitlines()) <= 425


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
