"""Bodies of requests as rows."""

import pytest

from src.data.tables.row_reader import BadRows
from src.deployment.serving.bodies import CSV, JSON, read_rows
from src.deployment.serving.limits import Refusal


def test_json_comes_in_two_forms():
    rows = [{"a": 1}, {"a": None}]
    assert read_rows(JSON, b'[{"a": 1}, {"a": null}]', ",", 2) == rows
    body = b'\xef\xbb\xbf{"rows": [{"a": 1}, {"a": null}]}'
    assert read_rows("Application/JSON; charset=utf-8", body, ",", 2) == rows


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_is_read_with_quotes_and_blank_lines(mark: str):
    body = f'a{mark} b \r\n"x{mark}\n""y"""{mark}2\r\n\r\n'.encode()
    assert read_rows(CSV, body, mark, 5) == [{"a": f'x{mark}\n"y"', "b": "2"}]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("", b"[]", 415),
        (JSON, b"\n", 400),
        (JSON, b"[1, 2, 3]", 413),
        (JSON, b'{"rows": {}}', 422),
        (JSON, b'{"rows": [], "more": 1}', 422),
        (CSV, b"a\n1\n2\n3\n", 413),
        (CSV, b'a\n"', 400),
        (CSV, b"a\0b\n", 422),
    ],
)
def test_other_bodies_are_refused(kind: str, body: bytes, status: int):
    with pytest.raises(Refusal) as refused:
        read_rows(kind, body, ",", 2)
    assert refused.value.status == status
    (error,) = refused.value.to_json()["errors"]
    assert error["row"] is None


def test_lines_of_another_length_are_all_named():
    with pytest.raises(BadRows) as bad:
        read_rows(CSV, b"a,b\n1\n1,2\n1,2,3\n", ",", 5)
    assert [problem.row for problem in bad.value.problems] == [0, 2]
