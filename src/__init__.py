"""A PyTorch Lightning template for multi-task learning: the same run on any topology."""
