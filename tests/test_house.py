"""Imports run downwards only, and the top level stays as it is."""

import ast
import subprocess
from pathlib import Path

import pytest

from tests.launching import ROOT

# what stands on the ground knows nothing of ours; every room may import it
GROUND = {"batch", "collectives", "errors", "files", "microbatch", "processes", "rng"}
MAY_IMPORT: dict[str, set[str]] = {
    "batch": set(),
    "collectives": set(),
    "errors": set(),
    "files": {"errors"},
    "microbatch": {"collectives"},
    "processes": set(),
    "rng": set(),
    "checkpoint": {"files"},
    "run": GROUND | {"checkpoint"},
    "tasks": GROUND,
    "balancing": GROUND,
    "launch": GROUND,
    "planning": GROUND | {"launch"},
    "parallel": GROUND | {"checkpoint", "launch", "planning"},
    "data": GROUND | {"tasks"},
    "models": GROUND | {"balancing", "tasks"},
    "monitoring": GROUND | {"balancing", "tasks"},
    "analysis": GROUND | {"run", "tasks"},
    "export": GROUND | {"models", "run", "tasks"},
}
ROOMS = {*MAY_IMPORT, "cli"}
MAY_IMPORT["cli"] = ROOMS - {"analysis", "export"}
VERBS = ("train", "evaluate", "predict")


def room(path: Path) -> str:
    return path.relative_to(ROOT / "src").parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms that a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            modules = [node.module or ""]
        names |= {m.split(".")[1] for m in modules if m.startswith("src.")}
    return names


FILES = [p for p in sorted((ROOT / "src").rglob("*.py")) if p != ROOT / "src" / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    here = room(path)
    if here in VERBS:
        assert not imported(path) & set(VERBS)
    else:
        assert imported(path) - {here} <= MAY_IMPORT[here]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"


def test_top_level() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {line.split("/")[0] for line in done.stdout.splitlines()}
    allowed = {
        "pyproject.toml",
        "Makefile",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "src",
        "configs",
        "tests",
        "notebooks",
    }
    assert {n for n in names if not n.startswith(".")} <= allowed
