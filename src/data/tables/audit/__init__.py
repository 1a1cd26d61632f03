"""Checks of a table before any training, one concern a file."""
