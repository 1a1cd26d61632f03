"""The work of python -m src.audit, one part a file."""
