"""A fork is a project of its own, complete and under its own name."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from src.fork import OMITTED, fork, main
from tests.launching import ROOT, environment


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("fork") / "mylab"
    fork("mylab", dest)
    return dest


def test_it_is_the_committed_tree_without_measurements_of_this_project(forked: Path) -> None:
    committed = set(git(ROOT, "ls-tree", "-r", "--name-only", "HEAD").splitlines())
    copied = set(git(forked, "ls-files").splitlines())
    assert copied == committed - set(OMITTED)
    assert git(forked, "status", "--porcelain") == ""
    assert git(forked, "log", "--format=%s").startswith("mylab begins as a copy of")


def test_it_has_its_own_name(forked: Path) -> None:
    project = tomllib.loads((forked / "pyproject.toml").read_text())["project"]
    assert project["name"] == "mylab"
    assert yaml.safe_load((forked / "CITATION.cff").read_text())["title"] == "mylab"
    readme = (forked / "README.md").read_text()
    assert readme.startswith("# mylab\n")
    assert not [path for path in OMITTED if f"({path}" in readme]
    assert "parity" not in (forked / "Makefile").read_text()
    done = subprocess.run(["make", "help"], cwd=forked, capture_output=True, text=True, check=True)
    assert "  fork " in done.stdout


@pytest.mark.parametrize("name", ["", "my lab", "-mylab", "mylab.", "../mylab"])
def test_a_name_that_no_package_can_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--name={name}", "--dest", str(tmp_path / "x")])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: NAME ")
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_folder_that_holds_something(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SystemExit):
        main(["--name", "mylab", "--dest", str(tmp_path)])
    assert "exists and is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(ValueError, match=r"git rev-parse in .*: fatal: not a git repository"):
        fork("mylab", tmp_path / "x", source=tmp_path / "plain")


@pytest.mark.slow
def test_it_trains_and_its_tests_pass(forked: Path, tmp_path: Path) -> None:
    """In the environment of this project; `make` would build another one."""
    (forked / ".venv").symlink_to(ROOT / ".venv")
    ready = ("-o", ".venv/.ready", "-o", ".venv/.ready-dev")
    for words in (
        ("train", f"ARGS=--max_epochs 1 --accelerator cpu --logs {tmp_path}"),
        ("test", "ROOM=tasks"),
        ("test", "ROOM=fork"),
        ("test", "ROOM=readme"),
    ):
        done = subprocess.run(
            ["make", *ready, *words],
            cwd=forked,
            env=environment(PATH=os.environ["PATH"]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
