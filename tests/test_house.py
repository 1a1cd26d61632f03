"""Imports run downwards only, and the top level stays as it is."""

import ast
import subprocess
from pathlib import Path

import pytest

from tests.launch import ROOT

GROUND = {
    *("batch", "tasks", "balancing", "parallel", "run", "run_lock", "config", "hashing", "checkpoint", "contents", "plain"),
    *("atomic", "ranks", "warm", "words"),
}
MAY_IMPORT = {
    **{room: set() for room in (*GROUND, "broken", "launchers")},
    "balancing": {"hashing"},
    "warm": {"ranks"},
    "run_lock": {"plain"},
    "contents": {"plain"},
    "checkpoint": {"atomic"},
    "run": {"atomic", "checkpoint", "contents", "plain", "run_lock", "words"},
    "config": {"words"},
    "parallel": {"checkpoint", "ranks", "warm"},
    "data": {"tasks", "batch", "parallel", "plain", "ranks", "hashing"},
    "models": {"tasks", "balancing", "batch", "hashing", "parallel"},
    "monitoring": {"tasks", "balancing", "batch", "parallel"},
    "analysis": {"run", "tasks"},
    "parser": GROUND | {"broken", "data", "models", "monitoring"},
    "texts": GROUND | {"data", "parser"},
    "layers": GROUND | {"data", "models", "monitoring", "parser", "texts", "usage", "verb"},
    "settings": {"texts", "words"},
    "usage": GROUND | {"parser", "settings", "texts"},
    "checks": GROUND | {"parser"},
    "verb": {"broken", "ranks"},
    "forecast": {"data", "models", "parallel"},
    "cli": GROUND | {"data", "models", "monitoring", "parser", "verb", "forecast", "layers", "checks"},
    "trust": {"config", "layers", "parser", "texts"},
    "runs": {"checkpoint", "cli", "config", "data", "layers", "models", "parser", "run", "trust", "usage", "verb"},
}
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
    allowed = {"pyproject.toml", "Makefile", "README.md", "LICENSE", "CITATION.cff", "src", "configs", "tests", "notebooks"}
    assert {n for n in names if not n.startswith(".")} <= allowed
