"""The run folder: what a run leaves behind, and how to open it again."""
