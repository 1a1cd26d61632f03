"""A PyTorch Lightning template for multi-task learning: one shared encoder, one head per task, any topology."""

import sys

from src import broken, ranks, warm

if any(word == "-m" and name.startswith("src.") for word, name in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)):
    sys.excepthook = broken.say_in_one_line  # a verb whose files cannot be imported
ranks.follow_parent()
warm.start(sys.orig_argv)
