"""Answers rows in JSON with a model's predictions: the handler of AWS Lambda.

The body of an event is a JSON list of rows, or {"rows": [...]}; a row is an object with a value for
each input of schema.json: a number, a text, or null where it is missing. The answer is
{"predictions": [...]}, a row with all outputs for each row. Wrong rows have status 422 and a line
each: its number from 0, the column, and what is right.
"""

import base64
import json
import logging
from typing import Any

from src.deployment.onnx_runtime import predict
from src.deployment.rows import BadRows

MOST_ROWS = 10_000


def handler(event: Any, context: Any = None) -> dict[str, Any]:
    """Answers one event of AWS Lambda."""
    try:
        rows = read_rows(event)
    except ValueError as error:
        return answer(400, errors=[str(error)])
    try:
        return answer(200, predictions=predict(rows))
    except BadRows as error:
        return answer(422, errors=error.lines)
    except Exception:  # whoever calls learns nothing of the inside
        logging.exception("a call failed")
        return answer(500, errors=["the model failed; the log says why"])


def answer(status: int, **body: Any) -> dict[str, Any]:
    """Returns an answer as AWS Lambda passes it on."""
    headers = {"content-type": "application/json"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}


def read_rows(event: Any) -> list[Any]:
    """Returns the rows of an event; raises ValueError where it has none."""
    body = event.get("body", event) if isinstance(event, dict) else event
    if isinstance(body, str | bytes):
        is_packed = isinstance(event, dict) and event.get("isBase64Encoded")
        try:
            body = json.loads(base64.b64decode(body) if is_packed else body)
        except (ValueError, RecursionError):
            raise ValueError("the body is no JSON: send a list of rows") from None
    rows = body.get("rows") if isinstance(body, dict) else body
    if not isinstance(rows, list) or not rows:
        raise ValueError('send a list of rows, or {"rows": [...]}, with at least one row')
    if len(rows) > MOST_ROWS:
        raise ValueError(f"there are {len(rows)} rows; at most {MOST_ROWS} can be sent at once")
    return rows
