"""The description of a server by OpenAPI: the columns of this run, with kinds and examples."""

from collections.abc import Mapping, Sequence

from src.data.tables.row_reader import InputDescription
from src.deployment.serving.bodies import CSV, JSON
from src.deployment.serving.limits import Limits

Schema = dict[str, object]
NUMBERS = ("number", "string", "null")
TYPES: Mapping[str, Sequence[str]] = {"number": NUMBERS}
STATUSES = {
    "400": "The body is empty, no UTF-8, or no JSON or CSV",
    "408": "The client has sent its request too slowly",
    "413": "The body is too large, or has too many rows",
    "415": "The body is neither JSON nor CSV",
    "422": "Rows are wrong: one error for each bad value",
    "500": "The server has failed",
    "503": "Too many requests wait",
}


def describe_server(
    title: str,
    inputs: Sequence[InputDescription],
    outputs: Mapping[str, object],
    limits: Limits,
    may_lack: bool,
) -> Schema:
    """Returns the OpenAPI document of a server.

    Args:
        title: The name of the run.
        inputs: The input columns.
        outputs: {column of a prediction: an example}.
        limits: How much a client may ask for.
        may_lack: Whether a row may lack columns.
    """
    row: Schema = {
        "type": "object",
        "properties": {each.name: describe_column(each) for each in inputs},
        "required": [] if may_lack else [each.name for each in inputs],
        "example": make_example(inputs),
    }
    schemas = {
        "Row": row,
        "Rows": {
            "type": "object",
            "properties": {"rows": list_of("Row", limits.max_rows)},
            "required": ["rows"],
        },
        "Prediction": {
            "type": "object",
            "properties": {name: describe_value(value) for name, value in outputs.items()},
            "example": dict(outputs),
        },
        "Predictions": {
            "type": "object",
            "properties": {
                "predictions": list_of("Prediction"),
                "notes": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["predictions"],
        },
        "Errors": {
            "type": "object",
            "properties": {"errors": list_of("Error")},
            "required": ["errors"],
        },
        "Error": {
            "type": "object",
            "properties": {
                "row": {"type": ["integer", "null"], "description": "place, from 0"},
                "column": {"type": ["string", "null"]},
                "message": {"type": "string"},
            },
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1"},
        "paths": {
            "/predict": {"post": describe_predict(inputs)},
            "/health": {"get": describe_get("ok, once the network is loaded")},
            "/info": {"get": describe_get("Tasks, inputs, data and versions of the run")},
        },
        "components": {"schemas": schemas},
    }


def describe_column(column: InputDescription) -> Schema:
    """Returns the schema of an input column."""
    found: Schema = {
        "type": list(TYPES.get(column.kind, ("string", "number", "boolean", "null"))),
        "description": f"{column.kind}: {column.details}",
    }
    if column.words:
        found["examples"] = list(column.words)
    elif column.example is not None:
        found["examples"] = [column.example]
    return found


def describe_value(value: object) -> Schema:
    """Returns the schema of a predicted value, by an example."""
    if isinstance(value, int | float):
        return {"type": ["number", "null"]}
    return {"type": ["string", "null"]} if isinstance(value, str) else {}


def make_example(inputs: Sequence[InputDescription]) -> dict[str, object]:
    """Returns a row as a client sends it."""
    return {each.name: each.example for each in inputs}


def list_of(name: str, most: int | None = None) -> Schema:
    """Returns the schema of a list."""
    found: Schema = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    return found if most is None else {**found, "minItems": 1, "maxItems": most}


def describe_predict(inputs: Sequence[InputDescription]) -> Schema:
    """Returns the operation that predicts rows."""
    names = ",".join(each.name for each in inputs)
    answers = {"200": answer("The predictions, in the order of the rows", "Predictions")}
    answers |= {status: answer(text, "Errors") for status, text in STATUSES.items()}
    return {
        "summary": "Predicts rows",
        "operationId": "predict",
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {"anyOf": [refer_to("Rows"), list_of("Row")]},
                    "example": {"rows": [make_example(inputs)]},
                },
                CSV: {
                    "schema": {
                        "type": "string",
                        "description": f"the first line names the columns: {names}",
                    }
                },
            },
        },
        "responses": answers,
    }


def describe_get(text: str) -> Schema:
    """Returns an operation that only tells something."""
    return {"summary": text, "responses": {"200": {"description": text}}}


def answer(text: str, name: str) -> Schema:
    """Returns an answer of JSON."""
    return {"description": text, "content": {JSON: {"schema": refer_to(name)}}}


def refer_to(name: str) -> Schema:
    """Returns a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}
