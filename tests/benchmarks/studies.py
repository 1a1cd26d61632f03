"""Runs the published studies, and writes their tables to STUDIES.md beside this file.

python -m tests.benchmarks.studies digits-balancing adult --root FOLDER (`make study` calls this)
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import machine
from tests.launching import ROOT

FILE = Path(__file__).with_name("STUDIES.md")
HEAD = (
    "# Studies\n\nMade by `make study`; each table by the command under its title, from the run "
    "folders of that machine. README says how to read them.\n"
)


def run_study(name: str, flags: list[str]) -> str:
    """Runs a study of configs/study, and returns its section.

    Raises:
        CalledProcessError: The study fails.
    """
    words = ["src.compare", "--config", f"configs/study/{name}.yaml", *flags]
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True)
    report = (ROOT / "logs" / "studies" / name / "report.md").read_text()
    return f"## {name}\n\n{machine()}.\n\n{shorten_report(report)}"


def shorten_report(text: str) -> str:
    """Puts a report below a heading of its own, without its list of folders, which stay here."""
    text = re.sub(r"^# .*\n+", "", text, count=1)
    text = re.sub(r"^## Runs\n.*?(?=^## |\Z)", "", text, flags=re.M | re.S)
    # where the data lie on this machine is nobody else's matter
    text = re.sub(r"(--data.root) \S+", r"\1 FOLDER", text)
    return re.sub(r"^#", "##", text, flags=re.M)


def read_sections() -> dict[str, str]:
    """Returns {study: its section} of the file as it is."""
    if not FILE.exists():
        return {}
    parts = re.split(r"^(?=## )", FILE.read_text(), flags=re.M)[1:]
    return {part.splitlines()[0].removeprefix("## "): part for part in parts}


def main() -> None:
    """Runs studies, and replaces their sections."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.studies")
    parser.add_argument("names", nargs="+", help="files of configs/study, without .yaml")
    parser.add_argument("--root", help="folder of Adult's files")
    parser.add_argument("--parallel", default="1", help="trials side by side")
    words = parser.parse_args()

    sections = read_sections()
    for name in words.names:
        flags = ["--parallel", words.parallel]
        if name == "adult":
            flags += ["--data.root", words.root or "data/adult"]
        sections[name] = run_study(name, flags).rstrip() + "\n\n"
        # an interruption keeps the studies before it
        FILE.write_text(HEAD + "\n" + "".join(sections[name] for name in sorted(sections)))


if __name__ == "__main__":
    main()
