"""Images with labels of each pixel."""
