"""Tests of the command src.explain."""
