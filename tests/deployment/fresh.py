"""An exported folder in an environment with nothing but its own requirements."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROBE = """
import time
begin = time.perf_counter()
import json, sys
sys.path.insert(0, sys.argv[1])
from handler import handler
event = {"body": sys.argv[2]}
answer = handler(event, None)
first = time.perf_counter() - begin
times = []
for _ in range(200):
    begin = time.perf_counter()
    handler(event, None)
    times.append(time.perf_counter() - begin)
times.sort()
names = sorted(name for name in sys.modules if name in ("torch", "pandas", "onnx", "src"))
print(json.dumps({"first": first, "warm": times[100], "loaded": names, **answer}))
"""


def install(folder: Path, place: Path) -> Path:
    """Installs the requirements of an exported folder into a new environment.

    Returns:
        Its Python.

    Raises:
        ConnectionError: There is no registry of packages to be reached.
    """
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    words = ["-m", "pip", "install", "-q", "--no-cache-dir", "-r"]
    wanted = str(folder / "requirements.txt")
    ended = subprocess.run(
        [str(python), *words, wanted], capture_output=True, text=True, timeout=600
    )
    if ended.returncode and "onnection" in ended.stderr:
        raise ConnectionError(ended.stderr[-200:])
    assert ended.returncode == 0, ended.stderr
    return python


def probe(python: Path, folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Calls the handler in a process of its own.

    Returns:
        'first', the seconds from import to the first answer; 'warm', the median of further calls;
        'loaded', packages that do not belong there; and the answer.
    """
    words = [str(python), "-I", "-c", PROBE, str(folder), json.dumps(rows)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def measure_packages(place: Path) -> float:
    """Returns the megabytes of all installed packages without pip, which no image keeps."""
    (packages,) = place.glob("lib/python*/site-packages")
    sizes = 0
    for path in packages.rglob("*"):
        outside = path.relative_to(packages).parts[0].startswith(("pip", "setuptools"))
        if path.is_file() and not outside:
            sizes += path.stat().st_size
    return sizes / 1e6
