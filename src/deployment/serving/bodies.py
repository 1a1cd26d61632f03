"""The bodies of requests: JSON and CSV as rows, {column: value} each."""

import csv
import io
import json
from collections.abc import Sequence

from src.data.tables.row_reader import BadRows, Problem, cut
from src.deployment.serving.limits import Refusal
from src.errors import in_one_line

JSON = "application/json"
CSV = "text/csv"
FORM = 'send {"rows": [{"column": value, ...}, ...]}, or the list of rows alone'


def read_rows(content_type: str, body: bytes, delimiter: str, max_rows: int) -> Sequence[object]:
    """Reads the rows of a request.

    Args:
        content_type: Its header Content-Type.
        body: Its body.
        delimiter: The mark between the columns of CSV.
        max_rows: Most rows.

    Raises:
        Refusal: The body cannot be read, or has too many rows, or none.
        BadRows: Lines of CSV have more or fewer values than the first line names.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (JSON, CSV):
        said = f"is '{cut(kind)}'" if kind else "is missing"
        raise Refusal(415, f"Content-Type {said}: send {JSON} or {CSV}")
    if not body.strip():
        raise Refusal(400, f"the body is empty: {FORM}")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is no UTF-8: byte {error.start} ({error.reason})") from None
    rows = parse_json(text) if kind == JSON else parse_csv(text, delimiter, max_rows)
    if not rows:
        raise Refusal(422, f"the request has no rows: {FORM}")
    if len(rows) > max_rows:
        raise Refusal(413, f"the request has {len(rows)} rows; send at most {max_rows} at once")
    return rows


def parse_json(text: str) -> Sequence[object]:
    """Returns the rows of JSON, as yet unchecked.

    Raises:
        Refusal: It is no JSON, or has another form.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON: {cut(in_one_line(error), 200)}") from None
    if isinstance(content, dict) and content.keys() == {"rows"}:
        content = content["rows"]
    if not isinstance(content, list):
        raise Refusal(422, f"the body is JSON of another form: {FORM}")
    return content


def parse_csv(text: str, delimiter: str, max_rows: int) -> list[dict[str, str]]:
    """Returns the rows of CSV, whose first line names the columns.

    Raises:
        Refusal: It is no CSV, or has too many rows.
        BadRows: Lines have more or fewer values than the first one.
    """
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows: list[dict[str, str]] = []
    problems: list[Problem] = []
    try:
        names = [name.strip() for name in next(reader, [])]
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise Refusal(422, f"the first line names column '{cut(twice[0])}' more than once")
        for values in reader:
            # an empty line at the end, as editors leave it
            if not values:
                continue
            if len(rows) >= max_rows:
                raise Refusal(413, f"the request has more than {max_rows} rows: send fewer at once")
            if len(values) != len(names):
                what = f"has {len(values)} values, where the first line names {len(names)} columns"
                problems.append(Problem(len(rows), None, what))
            rows.append(dict(zip(names, values, strict=False)))
    except csv.Error as error:
        raise Refusal(400, f"the body is no CSV: {in_one_line(error)}") from None
    if problems:
        raise BadRows(problems)
    return rows
