"""Installs what pyproject.toml asks for and writes the two locks: what a run needs, what dev adds.

Run by `make lock` with the python of a fresh environment.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def install(requirements: list[str]) -> list[str]:
    """Installs requirements; returns the exact versions of all packages then in the environment."""
    subprocess.run([*PIP, "install", "--quiet", *requirements], check=True)
    freeze = subprocess.run(
        [*PIP, "freeze", "--exclude", "pip"], check=True, capture_output=True, text=True
    )
    # the index of a user may have another build of torch than this machine's
    return [line.replace("+cpu", "") for line in freeze.stdout.splitlines()]


def main() -> None:
    """Writes both locks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run = install(project["dependencies"])
    both = install(project["optional-dependencies"]["dev"])

    moved = set(run) - set(both)
    if moved:
        sys.exit(f"error: what dev adds asks for other versions than a run has: {sorted(moved)}")

    (ROOT / ".requirements.lock").write_text("\n".join(run) + "\n")
    dev = [line for line in both if line not in set(run)]
    (ROOT / ".requirements-dev.lock").write_text("\n".join(dev) + "\n")


if __name__ == "__main__":
    main()
