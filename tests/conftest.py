"""What holds for all tests."""

import os

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own use of jsonargparse

import torch

torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings, and far more on a busy machine
