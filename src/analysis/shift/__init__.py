"""Shift: how far rows are from the ones that a run was trained on."""
