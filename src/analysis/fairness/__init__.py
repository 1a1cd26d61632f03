"""Fairness: groups of rows, how well a model does for each of them, and thresholds by group."""
