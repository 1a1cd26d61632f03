"""Measures and plans how a run is laid out on its devices."""
