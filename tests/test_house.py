"""The rules of the house: who may import whom, how long a file is, how its sentences read."""

import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

from tests.launching import ROOT

# what stands on the ground knows nothing of ours; every room may import it
GROUND = {
    *("batch", "collectives", "errors", "files", "microbatch", "overhead", "processes", "rng"),
    "runner",
}
MAY_IMPORT: dict[str, set[str]] = {
    "batch": set(),
    "collectives": set(),
    "errors": set(),
    "files": {"errors"},
    "microbatch": {"collectives"},
    "overhead": set(),
    "processes": set(),
    "rng": set(),
    "runner": {"batch"},
    "checkpoint": {"errors", "files"},
    "run": GROUND | {"checkpoint"},
    "tasks": GROUND,
    "balancing": GROUND,
    "launch": GROUND,
    "planning": GROUND | {"launch"},
    "parallel": GROUND | {"checkpoint", "launch", "planning"},
    "data": GROUND | {"tasks"},
    "models": GROUND | {"balancing", "checkpoint", "tasks"},
    "monitoring": GROUND | {"balancing", "checkpoint", "tasks"},
    "analysis": GROUND | {"launch", "run", "tasks"},
    "deployment": GROUND | {"data", "models", "run", "tasks"},
}
ROOMS = {*MAY_IMPORT, "cli"}
MAY_IMPORT["cli"] = set(ROOMS)
VERBS = (
    *("train", "evaluate", "predict", "fork"),
    *(
        "compare",
        "report",
        "sweep",
        "affinity",
        "reference",
        "ensemble",
        "merge",
        "adapt",
        "lr_find",
        "select",
        "explain",
        "audit",
        "export",
        "serve",
    ),
)


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


PRIVATE = re.compile(r"_[a-z]\w*$")
LISTED = (ROOT / "tests" / "test_private_apis.py").read_text()


def private_definitions(path: Path) -> set[str]:
    """Returns the private names that a file gives to functions, classes, attributes and globals."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return {name for name in names if PRIVATE.match(name)}


OWN: dict[str, set[str]] = {}
for _path in FILES:
    OWN.setdefault(room(_path), set()).update(private_definitions(_path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_private_names_stay_in_their_room(path: Path) -> None:
    """A private name is of the same room, or of a third party and listed with its reason."""
    used: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr):
            used[node.attr] = node.lineno
        elif isinstance(node, ast.ImportFrom):
            used |= {a.name: node.lineno for a in node.names if PRIVATE.match(a.name)}
    foreign = {name: line for name, line in used.items() if name not in OWN[room(path)]}
    wrong = [f"{path}:{line}: {name}" for name, line in foreign.items() if name not in LISTED]
    assert not wrong, "\n".join(wrong)


MOST_LINES = 400
# openings and phrases that hide the subject of a sentence
OPENINGS = re.compile(r"(What|Those|That which|As above|The same|Likewise|Has|Is)\b")
PHRASES = re.compile(
    r"\b(those (that|who|which)|of which|of whom|as above|so many|that which)\b", re.I
)


def sentences(path: Path) -> list[tuple[int, str]]:
    """Returns the docstrings and the blocks of comments of a file, each with its first line."""
    source = path.read_text()
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                found.append((getattr(node, "lineno", 1), text))
    last = None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, text = token.start[0], token.string.lstrip("# ")
            if last == line - 1:
                found[-1] = (found[-1][0], f"{found[-1][1]} {text}")
            else:
                found.append((line, text))
            last = line
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_can_be_held_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sentences_have_a_subject_and_a_verb(path: Path) -> None:
    wrong = []
    for line, text in sentences(path):
        phrase = PHRASES.search(text)
        if OPENINGS.match(text) or phrase:
            wrong.append(
                f"{path}:{line}: {phrase[0] if phrase else text.split()[0]!r} in {text[:60]!r}"
            )
    assert not wrong, "\n".join(wrong)


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
