"""The command src.explain: the glue between a run and its explanations."""
