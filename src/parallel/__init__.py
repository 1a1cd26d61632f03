"""Where it runs."""

from src.parallel.topology import topology

__all__ = ["topology"]
