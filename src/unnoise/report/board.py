"""A page of runs that is always fresh, served to the browsers of this machine."""

import hashlib
import os
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from unnoise.report.page import page
from unnoise.report.reader import Run, read_run, read_state, runs_below
from unnoise.runs.layout import RunDirectory

LOOPBACK = "127.0.0.1"
KINDS = {
    ".png": "image/png",
    ".gif": "image/gif",
    ".json": "application/json",
    ".csv": "text/plain; charset=utf-8",
    ".jsonl": "text/plain; charset=utf-8",
    ".yaml": "text/plain; charset=utf-8",
}
"""The files of a run that are handed out, and what a browser is to take them for."""


class Board(ThreadingHTTPServer):
    """All runs at or below ``paths`` at http://127.0.0.1:``port``/, and each run's own page below.

    A page is drawn anew when it is loaded after a run has changed or come; the page itself looks
    every few seconds. Besides pages only pictures and tables of the runs are handed out.

    Args:
        paths: run directories, or folders with runs below them.
        home: the folder at or above all of them that is the root of addresses.
        port: 0 takes any that is free.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = os.name != "nt"

    def __init__(self, paths: Sequence[Path], home: Path, port: int) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.paths, self.home = [path.resolve() for path in paths], home.resolve()
        self._drawing = threading.Lock()  # two windows, one drawing
        self._drawn: dict[str, tuple[str, bytes]] = {}
        self._read: dict[Path, tuple[str, Run]] = {}

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    def at(self, name: str) -> tuple[str, list[Path]] | Path | None:
        """What a path of the address stands for: the state and runs of a page, a file, or None."""
        folders, _ = runs_below(self.paths)
        if name == "":
            return _state(folders), folders
        file = self.home / name
        for folder in folders:
            if file in (folder, RunDirectory(folder).report):
                return _state([folder]), [folder]
            there = file.resolve()  # links and dots may lead out of it
            if there.is_relative_to(folder) and there.is_file() and there.suffix in KINDS:
                return there
        return None

    def page(self, name: str, state: str, folders: Sequence[Path]) -> bytes:
        """The HTML of runs, which is drawn if it was not yet in this state."""
        with self._drawing:
            if self._drawn.get(name, ("",))[0] != state:
                runs = [self._run(folder) for folder in folders]
                text = page(self.home / (name or "report.html"), runs, state)
                self._drawn[name] = state, text.encode()
            return self._drawn[name][1]

    def _run(self, folder: Path) -> Run:
        state = _state([folder])
        if self._read.get(folder, ("",))[0] != state:
            self._read[folder] = state, read_run(folder)
        return self._read[folder][1]


class _Handler(BaseHTTPRequestHandler):
    server: Board

    def do_GET(self) -> None:
        """A page, or a file of a run."""
        host = (self.headers["Host"] or "").partition(":")[0]
        if host not in (LOOPBACK, "localhost"):
            self.send_error(403, "only for this machine")  # a foreign name that leads here
            return
        name = unquote(urlsplit(self.path).path).strip("/")
        try:
            found = self.server.at(name)
            data = found.read_bytes() if isinstance(found, Path) else b""
        except (OSError, ValueError):  # gone by now, or no path at all
            found = None
        if found is None:
            self.send_error(404, "not a run, nor a picture or table of one")
        elif isinstance(found, Path):
            self._answer(data, KINDS[found.suffix])
        elif name and not name.endswith("report.html"):  # so that its links hold
            self.send_response(302)
            self.send_header("Location", f"/{quote(name)}/report.html")
            self.end_headers()
        else:
            state, folders = found
            body = b"" if self.command == "HEAD" else self.server.page(name, state, folders)
            self._answer(body, "text/html; charset=utf-8", ETag=state)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(200)
        own = {
            "Content-Type": kind,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        for name, value in (own | headers).items():
            self.send_header(name, value)
        if self.command == "GET":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the page asks all the time."""


def _state(folders: Sequence[Path]) -> str:
    """A digest of names, sizes and times of all that a page of the runs shows, and of how each is.

    A run that was killed leaves all files as they were.
    """
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(read_state(folder, "").state.encode())
        run = RunDirectory(folder)
        shown = [run.config, run.manifest, run.metrics, *run.grids(), *run.saved()[-1:]]
        for path in (*shown, *run.evaluation.glob("*"), *run.figures.glob("*")):
            try:
                found = path.stat()
                digest.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode())
            except OSError:  # not there, or gone by now
                continue
    return digest.hexdigest()[:16]
