"""A proxy before a storage server that notes requests and cuts the answers named."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Cut = Callable[[int, str], bool]
"""``cut(number, path)``: whether the answer to a request ends half way."""


class Proxy:
    """Where it is, what was asked, and what it does wrong."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.requests: list[tuple[str, str]] = []
        """Method and path with its query, in the order they came."""
        self.cut: Cut = lambda number, path: False
        self._lock = threading.Lock()

    def note(self, method: str, path: str) -> bool:
        with self._lock:
            number = len(self.requests)
            self.requests.append((method, path))
        return self.cut(number, path)

    def begin(self, cut: Cut = lambda number, path: False) -> None:
        """Forget the requests so far; cut from now on as told."""
        with self._lock:
            self.requests.clear()
        self.cut = cut


@contextmanager
def cutting(endpoint: str) -> Iterator[Proxy]:
    """Run it before the server at `endpoint`, ``http://host:port``."""
    where = urlsplit(endpoint)
    proxy: Proxy

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are sent one after the other

        def _pass_on(self) -> None:
            cut = proxy.note(self.command, self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            up = http.client.HTTPConnection(where.hostname or "", where.port)
            up.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                up.putheader(name, value)
            up.endheaders(body)
            answer = up.getresponse()
            content = answer.read()
            up.close()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length"):
                    self.send_header(name, value)
            told = str(len(content))
            if self.command == "HEAD" and answer.getheader("Content-Length"):
                told = answer.getheader("Content-Length") or told
            self.send_header("Content-Length", told)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
