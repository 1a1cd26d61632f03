import gzip
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.data.download import PublicFile, fetch, find_public_file
from src.errors import UserError

CONTENT = bytes(range(256)) * 9000  # more than one chunk
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Site(BaseHTTPRequestHandler):
    """Serves CONTENT, whole or broken off, and counts who asks."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/none"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 1000 if self.path == "/broken" else None])

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    Site.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetches_once_and_checks(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "file.bin"
    for _ in range(2):
        assert fetch(f"{site}/file.bin", path, sha256=SHA256, md5=MD5) == path
    assert path.read_bytes() == CONTENT
    assert Site.asked == ["/file.bin"]
    assert capsys.readouterr().err == f"{site}/file.bin: 2.3 MB -> {path}\n"


def test_the_first_of_several_fetches(site: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(fetch, f"{site}/x", tmp_path / "x", SHA256) for _ in range(4)]
    assert {job.result() for job in jobs} == {tmp_path / "x"}
    assert Site.asked == ["/x"]


@pytest.mark.parametrize(
    ("place", "hashes", "says"),
    [
        ("/x", {"sha256": MD5}, f"its sha256 is {SHA256}, not {MD5}"),
        ("/x", {"md5": SHA256}, f"its md5 is {MD5}, not {SHA256}"),
        ("/none", {}, "cannot be fetched (HTTP Error 404: Not Found); get file elsewhere"),
        ("/broken", {}, f"ended after 1000 of {len(CONTENT)} bytes"),
    ],
)
def test_leaves_nothing_of_what_is_wrong(
    site: str, tmp_path: Path, place: str, hashes: dict[str, str], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        fetch(site + place, tmp_path / "file", **hashes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "is no address that begins with http:// or https://"),
        ("http://127.0.0.1:1/x", "cannot be fetched (<urlopen error"),
        ("http:///x", "cannot be fetched"),
    ],
)
def test_wrong_addresses(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        fetch(url, tmp_path / "x")
    assert says in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x: cannot be written: "):
        fetch("http://127.0.0.1:1/x", tmp_path / "file" / "x")


def test_public_files(site: str, tmp_path: Path) -> None:
    file = PublicFile("data.bin", f"{site}/data.bin.gz", sha256=SHA256)
    with pytest.raises(UserError) as caught:
        find_public_file(tmp_path, file, "https://example.org", download=False)
    assert str(caught.value) == (
        f"{tmp_path}: neither data.bin nor data.bin.gz is there; get them from "
        "https://example.org, or add --data.download true"
    )
    for _ in range(2):
        found = find_public_file(tmp_path, file, "", download=True)
        assert found == str(tmp_path / "data.bin.gz")
    assert Site.asked == ["/data.bin.gz"]

    # the person's own copy counts as it is
    (tmp_path / "other.gz").write_bytes(gzip.compress(b"mine"))
    other = PublicFile("other", f"{site}/other", sha256=SHA256)
    assert find_public_file(tmp_path, other, "", download=True) == str(tmp_path / "other.gz")
