"""Exports a run: python -m src.export --run RUN --to onnx [--out model/].

The folder then holds one file that takes rows as people write them and gives decoded predictions,
and what serves it without torch: a handler, its requirements, a Dockerfile, and a model card.
"""

from pathlib import Path

from src.cli.entrypoint import main


def export(args: list[str]) -> Path:
    """Writes the folder of an exported run, and returns it."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.exporting.export import export_run

    return export_run(args)


if __name__ == "__main__":
    main(export)
