"""A proxy on loopback that can be told to misbehave as networks and servers do."""

import random
import socket
import threading
import time
from contextlib import suppress

FAULTS = ("refused", "500", "slow", "truncated")
"""What it can do wrong: no port, an error for every request, every piece late, answers
that end half way."""
LATE = (0.02, 0.3)
"""Seconds that a piece is late."""
PIECE = 1 << 16
_ERROR = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class FaultyProxy:
    """Passes connections on to a port; a context manager.

    Parameters
    ----------
    target : int
        Port on loopback to pass on to.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.fault: str | None = None
        """One of `FAULTS`, or None for none."""
        self.struck = 0
        """Connections and pieces that a fault has met so far."""
        self._ended = False
        self._random = random.Random(0)
        self._listener: socket.socket | None = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        """Port on loopback to connect to."""
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended = True
        self._thread.join()

    def misbehave(self, fault: str, seconds: float) -> int:
        """Do wrong for a while; how often it was met."""
        before = self.struck
        self.fault = fault
        time.sleep(seconds)
        self.fault = None
        return self.struck - before

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        listener.settimeout(0.05)
        return listener

    def _accept(self) -> None:
        while not self._ended:
            if self.fault == "refused":
                if self._listener is not None:
                    self._listener.close()
                    self._listener = None
                time.sleep(0.005)
                continue
            if self._listener is None:
                self._listener = self._listen(self.port)
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                client.settimeout(None)
                threading.Thread(
                    target=self._serve, args=(client,), daemon=True
                ).start()
        if self._listener is not None:
            self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        # Requests would wait for the acknowledgement of the piece before.
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(
            target=self._pump, args=(server, client, True), daemon=True
        )
        back.start()
        self._pump(client, server, False)
        back.join()
        client.close()
        server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, answer: bool) -> None:
        """Pass on one direction of a connection, as the fault of the moment has it."""
        with suppress(OSError):
            while piece := source.recv(PIECE):
                fault = self.fault
                if fault is not None:
                    self.struck += 1
                if fault == "slow":
                    time.sleep(self._random.uniform(*LATE))
                elif fault == "refused":
                    break
                elif fault == "truncated" and answer:
                    sink.sendall(piece[: len(piece) // 2])
                    break
                elif fault == "500" and not answer:
                    source.sendall(_ERROR)
                    source.settimeout(0.05)
                    while source.recv(PIECE):  # else the answer would be a reset
                        pass
                    break
                sink.sendall(piece)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
