"""A real server: answers as predict writes them, and every wrong request refused in words."""

import csv
import json
import re
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from tests import launching
from tests.cli.calling import call, columns, refused, table, words_for_table
from tests.cli.serving.serving import Server, list_children, serving

ROWS = 60


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a small table, with some ages missing."""
    folder = tmp_path_factory.mktemp("served")
    ages = columns()["age"]
    (folder / "table.csv").write_text(table(age=[None, *ages[1:]]))
    ended = call("train", *words_for_table(folder))
    assert ended.code == 0, ended.err
    return launching.only_run(folder / "logs" / "table")


@pytest.fixture(scope="module")
def server(run: Path):
    """A server of the run, with small limits."""
    limits = ("--max_body", 100_000, "--max_rows", 50, "--time_limit", 2)
    with serving(run, *limits) as started:
        yield started
        assert started.is_well()
        assert started.end() < 10
        assert started.process.returncode == 0
        noise = [line for line in started.errors if "Traceback" in line]
        assert not noise, started.errors


@pytest.fixture(scope="module")
def predicted(run: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What predict writes for rows that training has not seen."""
    folder = tmp_path_factory.mktemp("predicted")
    (folder / "new.csv").write_text(table(ROWS, ("income", "hours"), age=new_ages()))
    words = ("--run", run, "--data.path", folder / "new.csv", "--out", folder / "out.csv")
    ended = call("predict", *words)
    assert ended.code == 0, ended.err
    return pd.read_csv(folder / "out.csv")


def new_ages() -> list[float | None]:
    return [None if i % 10 == 0 else 18 + i * 0.73 for i in range(ROWS)]


def new_rows() -> list[dict[str, object]]:
    known = columns()
    ages = new_ages()
    return [
        {"age": ages[i], "city": known["city"][i], "grade": known["grade"][i]} for i in range(ROWS)
    ]


def check_equal(answers: list[dict[str, object]], expected: pd.DataFrame) -> None:
    """Checks that answers are what predict has written."""
    names = [name for name in expected.columns if name != "id"]
    assert [list(answer) for answer in answers] == [names] * len(expected)
    for name in names:
        found = [answer[name] for answer in answers]
        if expected[name].dtype.kind == "f":
            assert found == pytest.approx(expected[name].tolist(), abs=1e-6)
        else:
            assert found == expected[name].tolist()


def messages(answer: dict[str, object]) -> list[tuple[object, object, str]]:
    """The errors of an answer; there is nothing else in it."""
    assert list(answer) == ["errors"]
    errors = answer["errors"]
    assert isinstance(errors, list)
    found = [(error["row"], error["column"], error["message"]) for error in errors]
    for _, _, text in found:
        assert "\n" not in text
        assert not re.search(r"Traceback|\.py\b|/(tmp|src|home|root|work)\b", text)
    return found


def test_json_answers_equal_predictions(server: Server, predicted: pd.DataFrame):
    rows = new_rows()
    answers = [*server.predict(rows[:50]), *server.predict(rows[50:])]
    check_equal(answers, predicted)


def test_csv_answers_equal_predictions(server: Server, predicted: pd.DataFrame):
    names = ("age", "city", "grade")
    lines = [
        ",".join("" if row[name] is None else str(row[name]) for name in names)
        for row in new_rows()[:50]
    ]
    body = "\r\n".join([",".join(names), *lines, ""])
    status, answer = server.ask(body, "text/csv; charset=utf-8")
    assert status == 200, answer
    check_equal(answer["predictions"], predicted[:50])


def test_concurrent_answers_are_not_mixed(server: Server, predicted: pd.DataFrame):
    """Eight clients at once, each with other rows and other numbers of rows."""
    rows = new_rows()
    spans = [(start, start + 1 + k % 4) for k, start in enumerate(list(range(56)) * 6)]

    def ask(span: tuple[int, int]) -> list[dict[str, object]]:
        return server.predict(rows[slice(*span)])

    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(ask, spans))
    for span, answers in zip(spans, found, strict=True):
        check_equal(answers, predicted[slice(*span)].reset_index(drop=True))


def test_a_list_of_rows_and_columns_that_are_no_inputs_are_taken(server: Server):
    row = {"age": 30, "city": "Oslo", "grade": "a"}
    status, answer = server.ask(json.dumps([row | {"income": "low", "stage": "test"}]))
    assert status == 200
    assert answer["predictions"] == server.predict([row])
    # texts and numbers are the same number
    assert answer["predictions"] == server.predict([row | {"age": " 30.0 "}])


def test_an_unknown_word_is_answered_with_a_note(server: Server):
    status, answer = server.ask(json.dumps([{"age": 30, "city": "Paris", "grade": "a"}]))
    assert status == 200
    assert answer["notes"] == [
        "the request: 1 of 1 rows have a 'city' that training did not know, such as 'Paris'"
    ]


def test_all_bad_rows_are_named(server: Server):
    rows = [
        {"age": "thirty", "city": "Oslo", "grade": "a"},
        {"age": 30, "city": ["Oslo"], "grade": {"a": 1}},
        {"age": 30, "city": "Oslo", "grade": "a"},
        {"age": float("inf"), "city": "Oslo", "grade": "a"},
        {"aeg": 30, "city": "Oslo", "grade": "a"},
        {"age": True, "city": 3, "grade": None},
        [1, 2],
        {"age": 1e30, "city": "Oslo", "grade": "a"},
        {"age": 10**400, "city": "Oslo", "grade": "a"},
    ]
    status, answer = server.ask(json.dumps({"rows": rows}))
    assert status == 422
    assert messages(answer) == [
        (0, "age", "holds 'thirty' where a number is expected"),
        (1, "city", "holds a list, where one value is expected"),
        (1, "grade", "holds an object, where one value is expected"),
        (3, "age", "holds inf, which is not finite"),
        (4, "aeg", "is no column that the run knows; did you mean 'age'?"),
        (4, "age", "is missing (did you mean 'aeg'?); write null where the value is not known"),
        (5, "age", "holds 'True' where a number is expected"),
        (6, None, "is a list, where an object {column: value} is expected"),
        (7, "age", messages(answer)[8][2]),
        (8, "age", "holds inf, which is not finite"),
    ]
    assert "not finite for a network" in messages(answer)[8][2]


def test_nan_is_missing_as_in_a_file(server: Server):
    missing, nan = server.predict(
        [
            {"age": None, "city": "Oslo", "grade": "a"},
            {"age": float("nan"), "city": "Oslo", "grade": "a"},
        ]
    )
    assert missing == nan


BODIES = {
    "empty": (b"", "application/json", 400, "the body is empty"),
    "space": (b" \n", "text/csv", 400, "the body is empty"),
    "no json": (b'{"rows": [', "application/json", 400, "the body is no JSON"),
    "bad utf-8": (b'[{"age": "\xff"}]', "application/json", 400, "no UTF-8: byte 10"),
    "nested": (b"[" * 90_000, "application/json", 400, "nested too deeply"),
    "digits": (b"[" + b"9" * 9000 + b"]", "application/json", 400, "the body is no JSON"),
    "other form": (b'{"age": 3}', "application/json", 422, "JSON of another form"),
    "a number": (b"3", "application/json", 422, "JSON of another form"),
    "no rows": (b'{"rows": []}', "application/json", 422, "the request has no rows"),
    "no lines": (b"age,city,grade\n", "text/csv", 422, "the request has no rows"),
    "form": (b"age=3", "application/x-www-form-urlencoded", 415, "Content-Type is"),
    "no type": (b"[]", None, 415, "Content-Type is missing"),
    "quote": (b'age,city,grade\n"3,Oslo,a\n', "text/csv", 400, "the body is no CSV"),
    "twice": (b"age,age\n3,3\n", "text/csv", 422, "names column 'age' more than once"),
    "large": (b"[" + b" " * 100_000 + b"]", "application/json", 413, "larger than 100000 bytes"),
    "many": (json.dumps([{}] * 51).encode(), "application/json", 413, "send at most 50 at once"),
    "many lines": (b"age\n" + b"3\n" * 51, "text/csv", 413, "more than 50 rows"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_body_is_refused_in_words(server: Server, name: str):
    body, kind, expected, says = BODIES[name]
    status, answer = server.ask(body, kind)
    assert status == expected, answer
    ((row, column, text),) = messages(answer)
    assert (row, column) == (None, None)
    assert says in text
    assert len(text) < 300


def test_a_body_of_a_megabyte_and_a_thousand_columns(server: Server):
    status, answer = server.ask(b"[" + b'"x",' * 250_000 + b"1]")
    assert status == 413
    wide = {f"c{i}": i for i in range(1000)} | {"age": 3, "city": "Oslo", "grade": "a"}
    status, answer = server.ask(json.dumps([wide]))
    assert status == 422
    ((row, column, text),) = messages(answer)
    assert (row, column) == (0, "c0")
    assert text.startswith("is no column that the run knows, nor 999 more columns; ")
    long = {"age": "9" * 90_000, "city": "x" * 3, "grade": "a"}
    status, answer = server.ask(json.dumps([long]))
    assert status == 422
    assert len(messages(answer)[0][2]) <= 300


def test_csv_lines_of_another_length_are_named(server: Server):
    status, answer = server.ask("age,city,grade\n3,Oslo,a\n4,Oslo\n5,Oslo,a,b\n", "text/csv")
    assert status == 422
    assert messages(answer) == [
        (1, None, "has 2 values, where the first line names 3 columns"),
        (2, None, "has 4 values, where the first line names 3 columns"),
    ]


def test_other_paths_and_methods(server: Server):
    assert server.ask(None, None, "/nothing", "GET")[0] == 404
    assert server.ask(None, None, "/predict", "GET")[0] == 405
    status, info = server.ask(None, None, "/info", "GET")
    assert status == 200
    assert info["tasks"] == {
        "income": {"kind": "BinaryClassification"},
        "hours": {"kind": "Regression"},
    }
    assert [each["name"] for each in info["inputs"]] == ["age", "city", "grade"]
    assert len(info["data"]["files"]["train"]["sha256"]) == 64
    assert "/" not in json.dumps(info["data"])
    status, openapi = server.ask(None, None, "/openapi.json", "GET")
    row = openapi["components"]["schemas"]["Row"]
    assert list(row["properties"]) == row["required"] == ["age", "city", "grade"]
    assert row["properties"]["city"]["examples"] == ["Lima", "Oslo", "Rome"]
    # the example is one that the server takes
    assert len(server.predict([row["example"]])) == 1
    shown = openapi["components"]["schemas"]["Prediction"]["properties"]
    assert list(shown) == list(server.predict([row["example"]])[0])


@pytest.mark.parametrize("sent", [b"", b"POST /predict HTTP/1.1\r\nHost: me\r\n"])
def test_a_client_that_does_not_go_on_is_left(server: Server, sent: bytes):
    with server.connect() as slow:
        slow.sendall(sent)
        began = time.monotonic()
        assert slow.recv(100) == b""
        assert 1 < time.monotonic() - began < 15


def test_a_slow_body_is_refused(server: Server):
    head = b"POST /predict HTTP/1.1\r\nHost: me\r\nContent-Type: application/json\r\n"
    with server.connect() as slow:
        slow.sendall(head + b"Content-Length: 20\r\n\r\n[")
        answer = slow.recv(10_000)
        assert b" 408 " in answer.splitlines()[0]
        assert b"has not come within 2 s" in answer + slow.recv(10_000)
    # others are answered meanwhile
    assert server.is_well()


def test_a_chunked_body_beyond_the_limit_is_refused(server: Server):
    head = b"POST /predict HTTP/1.1\r\nHost: me\r\nContent-Type: application/json\r\n"
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    with server.connect() as client:
        client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 4)
        assert b" 413 " in client.recv(10_000).splitlines()[0]


def test_noise_and_clients_that_go_away_harm_nobody(server: Server):
    head = b"POST /predict HTTP/1.1\r\nHost: me\r\nContent-Type: application/json\r\n"
    body = json.dumps({"rows": [{"age": 30, "city": "Oslo", "grade": "a"}]}).encode()
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for sent in (b"\x16\x03\x01\x02\x00" * 50, whole[:-5], whole, head):
        with server.connect() as client:
            client.sendall(sent)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert server.is_well()
    assert len(server.predict([{"age": 30, "city": "Oslo", "grade": "a"}])) == 1


def test_it_starts_no_process_and_prints_a_line_to_try(server: Server):
    assert list_children(server.process.pid) == []
    assert f"http://127.0.0.1:{server.port}/docs" in server.greeting[0]
    assert server.greeting[1].startswith(f"curl http://127.0.0.1:{server.port}/predict -H ")


@pytest.mark.slow
def test_ctrl_c_ends_it_at_once_and_shift_is_written(run: Path):
    """Rows as in training are near, others far; the end comes while a client is connected."""
    with serving(run, "--monitor", "--monitor_every", 40) as server:
        rows = new_rows()[:40]
        server.predict(rows)
        server.predict([row | {"age": 90, "city": "Oslo"} for row in rows])
        with server.connect() as idle:
            idle.sendall(b"POST /predict HTTP/1.1\r\n")
            assert server.end(signal.SIGINT) < 10
        assert server.process.returncode == 0
        assert server.process.stdout is not None
        assert "the server has ended" in server.process.stdout.read()
    curves = launching.curves(run / "serve")
    age = curves["input_shift/age"]
    assert list(age) == [40, 80]
    assert age[80] > 2 > age[40]
    assert curves["input_shift/city"][80] == pytest.approx(2 / 3, abs=0.05)
    assert curves["prediction_shift/hours"][80] > curves["prediction_shift/hours"][40]


@pytest.mark.slow
def test_sets_and_classes_by_group_are_those_of_predict(tmp_path: Path):
    """A calibrated run with thresholds by sex, which is no input, served without its data."""
    sex = ["FM"[i * 3 // 2 % 2] for i in range(600)]
    stage = [["train", "train", "val", "val", "test"][i % 5] for i in range(600)]
    (tmp_path / "table.csv").write_text(table(600, sex=sex, stage=stage))
    words = [*words_for_table(tmp_path), "--data.drop", "[stage,sex]"]
    assert call("train", *words).code == 0
    run = launching.only_run(tmp_path / "logs" / "table")
    by_sex = ("--run", run, "--groups", "[sex]")
    assert call("audit", *by_sex, "--only", "[calibration]", "--calibrate").code == 0
    assert call("audit", *by_sex, "--thresholds", "DemographicParity").code == 0
    (tmp_path / "new.csv").write_text(table(ROWS, ("income", "hours", "stage"), sex=sex[:ROWS]))
    out = tmp_path / "out.csv"
    asked = ("--data.path", tmp_path / "new.csv", "--out", out, "--coverage", 0.8)
    assert call("predict", "--run", run, *asked).code == 0
    (tmp_path / "table.csv").unlink()

    with serving(run, "--coverage", 0.8) as server:
        with (tmp_path / "new.csv").open() as file:
            rows: list[dict[str, object]] = [dict(row) for row in csv.DictReader(file)]
        expected = pd.read_csv(out)
        assert {"income.set", "hours.low", "hours.high"} <= set(expected.columns)
        check_equal(server.predict(rows), expected)
        del rows[0]["sex"]
        status, answer = server.ask(json.dumps([rows[0], rows[1] | {"sex": "X"}]))
        assert status == 422
        assert [(row, column) for row, column, _ in messages(answer)] == [(0, "sex"), (1, "sex")]
        assert "'X', a group that income has no threshold for" in messages(answer)[1][2]
        openapi = server.ask(None, None, "/openapi.json", "GET")[1]
        assert "sex" in openapi["components"]["schemas"]["Row"]["required"]


def test_mistakes_at_the_start_are_one_line(run: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(call("serve", "--run", run, "--port", port), ["cannot be opened", "--port"])
    refused(call("serve", "--run", f"{run},{run}"), ["src.serve takes one"])
    with mock.patch.dict(sys.modules, {"uvicorn": None}):
        refused(call("serve", "--run", run), ["pip install starlette uvicorn"])
