"""What holds for all tests."""

import os

import pytest

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own use of jsonargparse

from src.run import RUN_VARIABLE


@pytest.fixture(autouse=True)
def no_run_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this process leaves its folder in the environment, for the ranks that it might launch."""
    monkeypatch.setenv(RUN_VARIABLE, "")
    monkeypatch.delenv(RUN_VARIABLE)
