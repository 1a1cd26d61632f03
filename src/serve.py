"""Serves a run's predictions over HTTP: python -m src.serve --run RUN [--port 8000].

Rows come as JSON or CSV to /predict, and the answer has the columns that src.predict writes. The
page /docs tries it out; /openapi.json, /info and /health describe it. Ctrl-C ends it.
"""

from src.cli.entrypoint import main


def serve(args: list[str]) -> None:
    """Answers requests until it is told to end."""
    # not at the top: what cannot be imported is a mistake in one line, too
    from src.cli.serving.serve import serve_run

    serve_run(args)


if __name__ == "__main__":
    main(serve)
