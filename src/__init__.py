"""A PyTorch Lightning template for multi-task learning: one shared encoder, one head per task, any topology."""

import sys

from src import errors, processes
from src.launch import prestart

if any(
    word == "-m" and name.startswith("src.")
    for word, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
):
    sys.excepthook = errors.say_in_one_line  # a verb whose files cannot be imported
processes.follow_parent()
prestart.start(sys.orig_argv)
