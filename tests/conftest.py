"""Settings and fixtures of all tests."""

import os
from collections.abc import Iterator
from typing import Any

# Lightning itself still calls deprecated functions of jsonargparse
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import pytest
import torch
import torch.distributed as dist
from hypothesis import settings
from tensorboard.summary.writer import event_file_writer

from src import collectives
from tests.launching import TURN

INTEGRATION = "tests/integration/"

# small tensors: a second thread costs more than it brings, and far more on a busy machine
torch.set_num_threads(1)

# event files of one process and one second are read in the order of this number as text, where
# 10 comes before 9: all numbers get the same length
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)

# `make test` draws the same examples each time: it fails by a change and not by chance. `make
# test-slow` draws many more, new ones each time but in CI. Tests with a number of examples of
# their own keep it.
settings.register_profile("fixed", derandomize=True)
settings.register_profile(
    "search", max_examples=400, derandomize="CI" in os.environ, print_blob=True
)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def no_process_group_is_left() -> Iterator[None]:
    """Ends the process group of a run that a test has called in this process."""
    # a fixture of several tests may have begun one, which ends it, too
    before = dist.is_initialized()
    yield

    if dist.is_initialized() and not before:
        dist.destroy_process_group()
        collectives.use(None)


@pytest.fixture(autouse=True)
def end_turn() -> Iterator[None]:
    """Lets another worker launch processes once a test is over that did."""
    yield
    TURN.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest unit of work first, so that no worker waits for it at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(INTEGRATION))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Gives one worker all of tests/integration: their launches use both cores by themselves."""
    from xdist.scheduler import LoadFileScheduling

    class OneLauncher(LoadFileScheduling):
        """A file is one unit of work, and so is tests/integration."""

        def _split_scope(self, nodeid: str) -> str:
            return INTEGRATION if nodeid.startswith(INTEGRATION) else super()._split_scope(nodeid)

    return OneLauncher(config, log)
