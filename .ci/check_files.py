"""Checks files before a commit: `end` mends the ends of texts, `yaml` reads YAML."""

import sys
from pathlib import Path

import yaml


def mend_end(path: Path) -> str | None:
    """Lets a text end with one newline; says so if it did not."""
    text = path.read_bytes()
    mended = text.rstrip(b"\n") + b"\n" if text.strip() else b""
    if mended == text:
        return None
    path.write_bytes(mended)
    return "its end was mended"


def read_yaml(path: Path) -> str | None:
    """Returns why a file is no YAML, or None."""
    try:
        list(yaml.safe_load_all(path.read_text()))
    except yaml.YAMLError as error:
        return " ".join(str(error).split())
    return None


def main() -> None:
    """Checks the files that the command line names."""
    check = {"end": mend_end, "yaml": read_yaml}[sys.argv[1]]
    complaints = [(path, check(Path(path))) for path in sys.argv[2:]]
    for path, complaint in complaints:
        if complaint:
            print(f"{path}: {complaint}")
    sys.exit(any(complaint for _, complaint in complaints))


if __name__ == "__main__":
    main()
