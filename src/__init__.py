"""A PyTorch Lightning template for multi-task learning: one shared encoder, one head per task, any topology."""

import sys

from src import warm

warm.start(sys.orig_argv)
