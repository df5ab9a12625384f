import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from unnoise.data import downloads
from unnoise.data.downloads import fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several blocks
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Host(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 300_000 if self.path == "/cut" else None])

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("digest", [MD5, SHA256, SHA256.upper()], ids=["md5", "sha256", "upper"])
def test_a_verified_file_is_all_that_stays(tmp_path, host, digest):
    path = tmp_path / "new" / "file.bin"
    fetch([f"{host}/file"], path, digest)
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["file.bin"]


def test_the_next_mirror_is_tried(tmp_path, host):
    fetch([f"{host}/gone", f"{host}/cut", f"{host}/file"], tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize(
    ("place", "reason"),
    [("gone", "404"), ("cut", "300,000 bytes"), ("file", MD5)],
    ids=["gone", "cut", "file"],
)
def test_a_wrong_answer_leaves_nothing_and_is_reported(tmp_path, host, place, reason):
    digest = MD5 if place != "file" else "0" * 32
    with pytest.raises(FileNotFoundError) as error:
        fetch([f"{host}/{place}"], tmp_path / "file.bin", digest)
    assert names(tmp_path) == []
    for part in (f"{host}/{place}", reason, str(tmp_path), "file.bin", "data.root"):
        assert part in str(error.value)


def test_a_wrong_answer_does_not_touch_the_file_that_is_there(tmp_path, host):
    (tmp_path / "file.bin").write_bytes(b"before")
    with pytest.raises(FileNotFoundError):
        fetch([f"{host}/cut"], tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == b"before"


def test_all_mirrors_are_listed_when_none_answers(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        port = closed.getsockname()[1]
        urls = [f"http://127.0.0.1:{port}/a", f"http://127.0.0.1:{port}/b"]
        with pytest.raises(FileNotFoundError) as error:
            fetch(urls, tmp_path / "file.bin", MD5)
    assert all(url in str(error.value) for url in urls)
    assert names(tmp_path) == []


def test_a_silent_host_does_not_hold_up_the_next(tmp_path, host, monkeypatch):
    monkeypatch.setattr(downloads, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        begun = time.perf_counter()
        fetch([url, f"{host}/file"], tmp_path / "file.bin", MD5)
    assert time.perf_counter() - begun < 5
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_an_interrupted_download_leaves_nothing(tmp_path, host, monkeypatch):
    class Interrupted(downloads.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "tqdm", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch([f"{host}/file"], tmp_path / "file.bin", MD5)
    assert names(tmp_path) == []


def test_the_final_name_appears_only_with_the_whole_file(tmp_path, host, monkeypatch):
    seen = []

    class Watched(downloads.tqdm):
        def update(self, n=1):
            seen.append(names(tmp_path))
            return super().update(n)

    monkeypatch.setattr(downloads, "tqdm", Watched)
    fetch([f"{host}/file"], tmp_path / "file.bin", MD5)
    assert len(seen) > 1
    assert all(len(listing) == 1 and listing[0].endswith(".tmp") for listing in seen)


def test_what_a_killed_download_left_is_never_taken_and_goes(tmp_path, host):
    long_ago = time.time() - 3600
    left, going_on = tmp_path / ".file.bin.abc.tmp", tmp_path / ".file.bin.def.tmp"
    other = tmp_path / ".other.bin.abc.tmp"
    for part in (left, going_on, other):
        part.write_bytes(CONTENT[:1000])
    for part in (left, other):
        os.utime(part, (long_ago, long_ago))
    fetch([f"{host}/file"], tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path) == sorted([going_on.name, other.name, "file.bin"])


def test_another_process_may_end_its_download_meanwhile(tmp_path, host):
    """Its file, listed a moment ago, is not there any more; so is a link to nothing."""
    (tmp_path / ".file.bin.abc.tmp").symlink_to(tmp_path / "gone")
    fetch([f"{host}/file"], tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


KILLED = """
import sys
from pathlib import Path
from unnoise.data.downloads import fetch
fetch([sys.argv[1]], Path(sys.argv[2]), sys.argv[3])
"""


def test_a_download_that_is_killed_leaves_nothing_under_the_name(tmp_path, host):
    with socket.create_server(("127.0.0.1", 0)) as slow:
        url = f"http://127.0.0.1:{slow.getsockname()[1]}/"
        arguments = [url, str(tmp_path / "file.bin"), MD5]
        process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
        connection, _ = slow.accept()
        with connection:
            head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
            connection.sendall(head + CONTENT[:600_000])  # then silence
            until = time.monotonic() + 9
            while not any(path.stat().st_size for path in tmp_path.iterdir()):
                assert time.monotonic() < until
                time.sleep(0.02)
            process.kill()
            process.wait()
    (left,) = names(tmp_path)
    assert left.startswith(".file.bin.")
    assert left.endswith(".tmp")
    fetch([f"{host}/file"], tmp_path / "file.bin", MD5)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_digest_must_be_md5_or_sha256(tmp_path):
    with pytest.raises(ValueError, match="neither an MD5"):
        fetch(["http://127.0.0.1/"], tmp_path / "file.bin", "abc")
