"""Starts the processes of a run, and lets them meet."""
