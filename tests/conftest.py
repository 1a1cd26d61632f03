"""What holds for all tests."""

import os
from collections.abc import Iterator

os.environ.setdefault(
    "JSONARGPARSE_DEPRECATION_WARNINGS", "off"
)  # Lightning's own use of jsonargparse

import pytest
import torch
import torch.distributed as dist
from hypothesis import settings
from tensorboard.summary.writer import event_file_writer

from src import collectives

torch.set_num_threads(
    1
)  # small tensors: a second thread costs more than it brings, and far more on a busy machine
# event files of one process and one second are read in the order of this number as text: 10 before
# 9
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)
# the fast suite tells of a change, not of luck: new examples are looked for by `make test-slow`
settings.register_profile("fixed", derandomize=True)
settings.register_profile("search", print_blob=True)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def no_process_group_is_left() -> Iterator[None]:
    """Ends the process group of a run that a test has called in this process, whichever test comes next."""
    before = dist.is_initialized()  # by a fixture of several tests
    yield
    if dist.is_initialized() and not before:
        dist.destroy_process_group()
        collectives.use(None)
