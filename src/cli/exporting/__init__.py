"""The work of ``python -m src.export``."""
