"""Probabilities that come true, and intervals and sets that hold the label as often as they say."""
