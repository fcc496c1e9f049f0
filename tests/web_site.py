"""A web server in this process that gives parts of files to those it admits."""

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "token-MARKER-0123456789"
BASIC = "Basic " + base64.b64encode(b"user:word-MARKER").decode()


@dataclass
class Site:
    """A folder served to those who show what `admits` wants."""

    folder: Path
    admits: Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str]] | None]
    port: int = 0
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Authorization) of every request."""
    sent: int = 0
    """Bytes of content."""
    whole: bool = False
    """Whether it gives whole files, whatever part is asked for."""

    def url(self, name: str, host: str = "localhost") -> str:
        return f"http://{host}:{self.port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def __init__(self, *args: object, site: Site) -> None:
        self.site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.site.seen.append((self.path, self.headers["Authorization"]))
        answer = self.site.admits(self)
        if answer is not None:
            self.answer(*answer)
            return
        path = self.site.folder / self.path.lstrip("/").partition("?")[0]
        if not path.is_file():
            self.answer(404, {})
            return
        content = path.read_bytes()
        begin, end = 0, len(content)
        wanted = None if self.site.whole else self.headers["Range"]
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            begin, end = int(first), min(int(last or end - 1) + 1, end)
        where = {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"}
        self.answer(206 if wanted else 200, where if wanted else {}, content[begin:end])

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.site.sent += len(body)
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def bearer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]] | None:
    good = request.headers["Authorization"] == f"Bearer {TOKEN}"
    return None if good else (401, {"WWW-Authenticate": "Bearer"})


def basic(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]] | None:
    good = request.headers["Authorization"] == BASIC
    return None if good else (401, {"WWW-Authenticate": "Basic"})


@contextmanager
def serving(folder: Path, admits: Callable) -> Iterator[Site]:
    site = Site(folder, admits)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, site=site))
    site.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield site
    server.shutdown()
    server.server_close()
