"""The one command line that all commands share."""
