"""The server of a run: the work of ``python -m src.serve``."""
