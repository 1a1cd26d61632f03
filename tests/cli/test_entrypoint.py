"""How a command runs as a process, and whose mistake an error is."""

import subprocess
import sys

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from src.cli.entrypoint import explain
from src.errors import UserError
from tests.launching import ROOT, environment


def modules_after(*imports: str) -> set[str]:
    """Returns what a fresh process has loaded after some imports."""
    code = f"import sys, {', '.join(imports)}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_an_import_of_the_project_does_nothing() -> None:
    assert {name for name in modules_after("src") if name.startswith("src.")} == set()


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_a_command_is_light_until_it_is_called(command: str) -> None:
    """So it follows its parent at once, and says in a line what cannot be imported."""
    heavy = {"torch", "lightning", "numpy", "pandas", "yaml", "rich"}
    assert not modules_after(f"src.{command}") & heavy


def raised_in(module: str, error: Exception) -> Exception:
    """Returns an error that a module of this name has raised."""
    try:
        exec("raise error", {"__name__": module, "error": error})
    except Exception as raised:
        return raised
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "is_users"),
    [
        (raised_in("anywhere", UserError("--lr is\n wrong")), True),
        (raised_in("anywhere", MisconfigurationException("--lr is wrong")), True),
        (raised_in("lightning.pytorch.trainer", ValueError("--lr is wrong")), True),
        (raised_in("lightning.pytorch.trainer", TypeError("a bug")), False),
        (raised_in("torch.nn", ValueError("a bug")), False),
        (raised_in("src.models", ValueError("a bug")), False),
        (raised_in("src.models", RuntimeError("a bug")), False),
    ],
)
def test_whose_mistake_an_error_is(error: Exception, is_users: bool) -> None:
    assert explain(error) == ("--lr is wrong" if is_users else None)
