"""Conclusions from runs: studies, reports, affinities, and references that are no networks."""
