"""The page on a port of this machine; nothing is asked of another."""

import errno
import logging
import signal
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop

from cube_denoise.view.page import Page
from cube_denoise.view.source import Source

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
READERS = 2
"""Threads that read: one for the map, one for a point."""


def make_server(source: Source, *, port: int = 0) -> tuple[BaseServer, str]:
    """Make the server of a page; it listens, and answers once its loop runs.

    Parameters
    ----------
    source : Source
        What is shown.
    port : int
        Of 127.0.0.1; 0 = any free one.

    Returns
    -------
    server : bokeh.server.server.BaseServer
        Its files are those of the installed Bokeh.
    address : str
        Of the page.

    Raises
    ------
    ValueError
        If the port is in use or cannot be had.
    """
    executor = ThreadPoolExecutor(READERS, "view")

    def open_page(document: Document) -> None:
        Page(document, source, executor)

    try:
        sockets, port = bind_sockets(HOST, port)
    except OSError as error:
        why = error.strerror or error
        if error.errno == errno.EADDRINUSE:
            why = "is in use: give another, or none for any free one"
        raise ValueError(f"{port=} of {HOST} {why}") from None
    # The second is what a tunnel to the same port of another machine asks for.
    names = [f"{HOST}:{port}", f"localhost:{port}"]
    application = Application(FunctionHandler(open_page))
    tornado = BokehTornado({"/": application}, extra_websocket_origins=names)
    http = HTTPServer(tornado)
    http.add_sockets(sockets)
    return BaseServer(IOLoop.current(), tornado, http), f"http://{names[0]}/"


def serve(source: Source, *, port: int = 0, browser: bool = True) -> None:
    """Serve the page until Ctrl-C or SIGTERM; of the main thread alone.

    Parameters
    ----------
    source : Source
        What is shown.
    port : int
        Of 127.0.0.1; 0 = any free one.
    browser : bool
        Whether to open the page in the browser of this machine.

    Raises
    ------
    ValueError
        If the port is in use or cannot be had.
    """
    server, address = make_server(source, port=port)
    server.start()
    log.info("%s shows %s; Ctrl-C ends it", address, source.title)
    stop = server.io_loop.stop
    if browser:
        # Of a thread, since browsers of a terminal return only when they are left.
        Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.io_loop.add_callback_from_signal(stop))
    server.io_loop.start()
    server.stop()
    log.info("stopped")
