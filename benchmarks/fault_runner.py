"""Start the steps of `benchmarks.faults` as processes, and let faults meet them."""

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks import fault_steps
from benchmarks.fault_states import State
from benchmarks.faulty_proxy import FAULTS, FaultyProxy

STEPS = ("ingest", "correct", "invert", "update")
KILLS = ("client", "process", "dask worker", "scheduler")
DECK = (
    *["client"] * 8,
    *["process"] * 2,
    *["dask worker"] * 3,
    *["scheduler"] * 3,
    *[fault for fault in FAULTS for _ in range(2)],
)
"""Kinds of faults, in the shares in which they are drawn."""
OUTAGE = (0.2, 2.0)
"""Seconds that the network misbehaves."""
PATIENCE = 40.0
"""Seconds after which a step that a fault has met is killed as well."""


class Material(NamedTuple):
    """What all runs share."""

    folder: Path
    before: str
    """Item list that `ingest` finds."""
    source: str
    """Item list that `update` finds."""
    states: dict[str, State]
    """After each step, undisturbed; "nothing" before the first."""
    seconds: dict[tuple[str, str], float]
    """(place, step) -> duration undisturbed."""


@contextlib.contextmanager
def s3_port(folder: Path) -> Iterator[int]:
    """Port of a SeaweedFS that this process's environment points to."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    import pytest
    import s3_server

    folder.mkdir()
    with s3_server.running(folder) as server, pytest.MonkeyPatch.context() as patch:
        server.use(patch)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "3s")
        yield int(server.endpoint.rpartition(":")[2])


class Runner:
    """Starts steps, and a Dask cluster where one is asked for; a context manager."""

    def __init__(self, given: Material, proxy: FaultyProxy) -> None:
        self.given, self.proxy = given, proxy
        self.environment = {
            name: value for name, value in os.environ.items() if name[:4] == "AWS_"
        } | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        self.log = given.folder / "errors.log"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(fault_steps.PRELOAD)
        self._scheduler: BaseProcess | None = None
        self._workers: list[BaseProcess] = []
        self._port = 0

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *exception: object) -> None:
        for child in (*self._workers, self._scheduler):
            if child is not None:
                end(child)

    def _start(self, target: Callable[..., None], *args: Any) -> BaseProcess:
        child = self._context.Process(
            target=target, args=(*args, self.environment, str(self.log))
        )
        child.start()
        return child

    def start(self, step: str, url: str, cluster: str = "threads") -> BaseProcess:
        """Begin a step in a process of its own."""
        self.log.write_text("")
        given = self.given
        return self._start(
            fault_steps.take_step, step, url, cluster, given.before, given.source
        )

    def error(self) -> str:
        """Kind of the error that the last step ended in."""
        lines = self.log.read_text(errors="replace").splitlines()
        told = [line for line in lines if line.startswith("ERROR ")]
        return told[-1].removeprefix("ERROR ") if told else ""

    def finish(self, step: str, url: str, cluster: str = "threads") -> float:
        """Run a step to its end; seconds."""
        begin = time.monotonic()
        child = self.start(step, url, cluster)
        child.join()
        if child.exitcode:
            raise RuntimeError(f"{step} failed undisturbed: {self.log.read_text()}")
        return time.monotonic() - begin

    def dask(self) -> tuple[str, BaseProcess, list[BaseProcess]]:
        """Address, scheduler and workers of a cluster that is whole."""
        if self._scheduler is None or not self._scheduler.is_alive():
            for child in self._workers:
                end(child)
            self._workers = []
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._port = free.getsockname()[1]
            self._scheduler = self._start(fault_steps.run_scheduler, self._port)
            _wait_for(lambda: _answers(self._port))
        address = f"tcp://127.0.0.1:{self._port}"
        self._workers = [child for child in self._workers if child.is_alive()]
        while len(self._workers) < 2:
            place = tempfile.mkdtemp(dir=self.given.folder)
            self._workers.append(self._start(fault_steps.run_worker, address, place))
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            _wait_for(lambda: len(client.scheduler_info()["workers"]) == 2)
        return address, self._scheduler, self._workers


def end(child: BaseProcess) -> None:
    """Kill a child with all its children."""
    if child.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.join()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"still waiting after {seconds:g} s")
        time.sleep(0.02)


def planned(seed: int, slot: int) -> tuple[str, str, str, random.Random]:
    """Step, kind and place of a fault, and the generator of its moments."""
    life, number = divmod(slot, len(STEPS))
    deck = list(DECK)
    random.Random(f"{seed} deck {slot // len(DECK)}").shuffle(deck)
    kind = deck[slot % len(DECK)]
    place = "disk" if life % 4 == 3 else "S3"
    if place == "disk" and kind in FAULTS:
        kind = "client"
    return STEPS[number], kind, place, random.Random(f"{seed} fault {slot}")


def strike(
    runner: Runner, step: str, url: str, kind: str, place: str, moments: random.Random
) -> tuple[BaseProcess, bool]:
    """Begin a step and let a fault meet it; the step, and whether it did."""
    usual = runner.given.seconds[place, step]
    fraction = moments.uniform(0.02, 0.95)
    if kind in FAULTS:
        child = runner.start(step, url)
        child.join(fraction * usual)
        under_way = child.is_alive()
        met = runner.proxy.misbehave(kind, moments.uniform(*OUTAGE)) if under_way else 0
        # Connections that are refused do not come to the proxy's notice.
        refused = kind == "refused" and under_way and child.exitcode != 0
        return child, bool(met) or refused
    if kind == "client":
        child = runner.start(step, url)
        child.join(fraction * usual)
        return child, _kill(child)
    if kind == "process":
        child = runner.start(step, url, "processes")
        workers: list[psutil.Process] = []
        while child.is_alive() and not workers:
            time.sleep(0.01)
            workers = _pool_of(child)
        child.join(fraction * 2 * usual)
        workers = _pool_of(child) if child.is_alive() else []
        if not workers:
            return child, False
        moments.choice(workers).kill()
        return child, True
    address, scheduler, workers_there = runner.dask()
    child = runner.start(step, url, address)
    child.join(fraction * usual)
    if not child.is_alive():
        return child, False
    _kill(scheduler if kind == "scheduler" else moments.choice(workers_there))
    return child, True


def _kill(child: BaseProcess) -> bool:
    """SIGKILL; whether the process was alive, and died of it."""
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL


def _pool_of(child: BaseProcess) -> list[psutil.Process]:
    """Worker processes of a client."""
    with contextlib.suppress(psutil.Error):
        return [
            p
            for p in psutil.Process(child.pid).children()
            if any("spawn_main" in word for word in p.cmdline())
        ]
    return []
