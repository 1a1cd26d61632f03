"""Begins a project of your own: a copy of the committed tree under another name.

python -m src.fork --name mylab --dest ../mylab, or make fork NAME=mylab DEST=../mylab
"""

import argparse
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from src.errors import UserError

ROOT = Path(__file__).parents[1]

# measurements of this project, and what renews or shows them
OMITTED = (
    "notebooks/04_parallel.ipynb",
    "tests/benchmarks/PARITY.md",
    "tests/benchmarks/RESULTS.md",
    "tests/benchmarks/STUDIES.md",
    "tests/integration/parity.py",
    "tests/integration/test_grid.py",
)
CITATION = """cff-version: 1.2.0
title: "{name}"
message: "If you use this software, please cite it as below."
type: software
license: MIT
version: 0.1.0
authors:
  - name: "The {name} authors"
"""


def fork(name: str, dest: Path, source: Path = ROOT) -> str:
    """Copies what is committed in a repository to a new one, under another name.

    Args:
        name: Name of the new project, as a Python package may have it.
        dest: Folder of the new project; it is made, or is empty.
        source: The repository to copy.

    Returns:
        The commit that was copied.

    Raises:
        UserError: The name is none for a package, the folder holds something, or git has failed.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise UserError(
            f"NAME is '{name}', which no package can have: letters, digits, and '-', '_' or '.' "
            "between them, as in make fork NAME=mylab DEST=../mylab"
        )
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UserError(f"DEST {dest} exists and is not an empty folder; choose another")

    commit = git(source, "rev-parse", "--short", "HEAD").decode().strip()
    tree = git(source, "archive", "--format=tar", "HEAD")
    with tarfile.open(fileobj=io.BytesIO(tree)) as archive:
        archive.extractall(dest, filter="data")
    for path in OMITTED:
        (dest / path).unlink(missing_ok=True)
    rename(name, dest)

    git(dest, "init", "--quiet", "--initial-branch=main")
    git(dest, "add", "--all")
    message = f"{name} begins as a copy of multitask-lightning at {commit}"
    git(dest, *choose_author(name, dest), "commit", "--quiet", "--message", message)
    return commit


def rename(name: str, dest: Path) -> None:
    """Puts another name where a copy states that of this project, and removes dead links."""
    replace(dest / "pyproject.toml", r'^name = ".*"$', f'name = "{name}"')
    replace(
        dest / "pyproject.toml",
        r'^description = ".*"$',
        'description = "Multi-task learning, begun from the template multitask-lightning"',
    )
    (dest / "CITATION.cff").write_text(CITATION.format(name=name))
    replace(dest / "README.md", r"\A# .*$", f"# {name}")
    replace(dest / "Makefile", r"^parity:.*\n(\t.*\n)+\n", "")
    replace(dest / "Makefile", r" parity\b", "")

    replace(dest / "README.md", r"^.*tests\.integration\.parity.*\n", "")
    replace(dest / "README.md", ", `make parity`", "")

    # [words](path) becomes words
    for path in OMITTED:
        replace(dest / "README.md", rf"\[([^\]]*)\]\({re.escape(path)}[^)]*\)", r"\1")


def replace(path: Path, pattern: str, text: str) -> None:
    """Replaces in a file what fits a pattern; ^ and $ are ends of lines."""
    path.write_text(re.sub(pattern, text, path.read_text(), flags=re.MULTILINE))


def choose_author(name: str, folder: Path) -> Sequence[str]:
    """Options of git that name an author, where the user has not told git who that is."""
    try:
        git(folder, "config", "user.email")
    except UserError:
        return "-c", f"user.name={name}", "-c", f"user.email={name}@localhost"
    return ()


def git(folder: Path, *words: str) -> bytes:
    """Runs git in a folder, and returns what it prints.

    Raises:
        UserError: There is no git, or it fails.
    """
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("a fork takes git, which is not installed") from None

    if done.returncode:
        reason = " ".join(done.stderr.decode().split())
        raise UserError(f"git {words[0]} in {folder}: {reason or 'it failed'}")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, forks and says what to do next."""
    parser = argparse.ArgumentParser(prog="python -m src.fork", description=__doc__)
    parser.add_argument("--name", required=True, help="name of the new project, as mylab")
    parser.add_argument("--dest", required=True, help="its folder, as ../mylab")
    words = parser.parse_args(argv)

    try:
        if not words.name or not words.dest:
            raise UserError("NAME and DEST are needed: make fork NAME=mylab DEST=../mylab")
        commit = fork(words.name, Path(words.dest))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

    print(f"{words.name}: a copy of {commit} in {words.dest}, committed; cd there, then make train")


if __name__ == "__main__":
    main()
