"""Heads that learn a new task from few examples, on the frozen features of an encoder."""
