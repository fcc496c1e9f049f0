"""Faults at random moments: a short run of `benchmarks.faults`, and its parts."""

import contextlib
import http.client
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import faults
from benchmarks.fault_runner import DECK, KILLS, STEPS, Material, Runner, planned
from benchmarks.fault_states import State, look, material, same
from benchmarks.faulty_proxy import FAULTS, FaultyProxy


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"x" * 100_000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with FaultyProxy(server.server_port) as found:
            yield found
        server.shutdown()


def ask(proxy: FaultyProxy) -> tuple[int, int]:
    """Status and bytes of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, len(answer.read())


def test_the_proxy_misbehaves_as_told(proxy: FaultyProxy) -> None:
    assert ask(proxy) == (200, 100_000)
    assert proxy.struck == 0
    proxy.fault = "500"
    assert ask(proxy) == (500, 0)
    proxy.fault = "truncated"
    got = 0
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        got = ask(proxy)[1]
    assert got < 100_000
    proxy.fault = "slow"
    assert ask(proxy) == (200, 100_000)
    assert proxy.struck >= 4
    proxy.fault = "refused"
    with pytest.raises(ConnectionError):
        for _ in range(200):  # it takes a moment to close the port
            ask(proxy)
    proxy.fault = None
    time.sleep(0.3)
    assert ask(proxy) == (200, 100_000)


def test_every_kind_meets_every_step() -> None:
    slots = [planned(0, k) for k in range(200)]
    assert {(step, kind) for step, kind, *_ in slots} == {
        (step, kind) for step in STEPS for kind in (*KILLS, *FAULTS)
    }
    assert set(DECK) == {*KILLS, *FAULTS}
    assert not [
        kind for _, kind, place, _ in slots if place == "disk" != kind in FAULTS
    ]
    again = planned(0, 7)
    assert again[:3] == slots[7][:3]
    assert again[3].random() == slots[7][3].random()


def test_what_is_not_whole_is_seen(small_cube: Path) -> None:
    """The judge can fail: a pair less, twice, or another value."""
    state, doubled = look(str(small_cube))
    assert (len(state.versions), doubled) == (7, 0)
    assert same(state, state)
    cube = state.cube
    assert cube is not None
    phase = cube["unwrapped_phase"]
    spot = np.argwhere(np.isfinite(phase.values))[0]
    for change, equal in ((1e-7, True), (1e-4, False), (np.nan, False)):
        moved = phase.copy(deep=True)
        moved.values[tuple(spot)] = change + float(phase.values[tuple(spot)])
        other = State(state.versions, cube.assign(unwrapped_phase=moved))
        assert same(state, other) is equal
    first = next(iter(state.versions))
    assert not same(state, State({**state.versions, first: "new"}, cube))
    assert not same(state, State(state.versions, cube.drop_vars("coherence")))
    assert not same(state, State({}, None))
    assert same(State({}, None), State({}, None))
    nowhere, _ = look(str(small_cube.parent / "nothing"))
    assert same(nowhere, State({}, None))


def test_a_killed_client(proxy: FaultyProxy, tmp_path: Path) -> None:
    """The first step, on disk: readers see whole states, and a rerun ends well."""
    states = {"nothing": State({}, None)}
    given = Material(tmp_path, *material(tmp_path), states, {})
    with Runner(given, proxy) as runner:
        # The first child waits for the fork server to have imported everything.
        runner.finish("ingest", str(tmp_path / "warm"))
        clean = str(tmp_path / "undisturbed")
        given.seconds["disk", "ingest"] = runner.finish("ingest", clean)
        states["ingest"] = look(clean)[0]
        found = faults.meet(runner, 12, 0, str(tmp_path / "cube"))
    assert (found.step, found.kind, found.place) == ("ingest", "client", "disk")
    assert found.hit and not faults.bad(found), found
    assert (found.readers, found.reruns) == (2, 1), found


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 20])
def test_nothing_is_lost(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.json"
    record = tmp_path / "record.jsonl"
    arguments = ["--count", str(count), "--out", str(out), "--record", str(record)]
    rows = faults.main(arguments)
    total = {r.metric: r.value for r in rows if r.case == "all"}
    assert total["faults"] == count
    assert total["readers"] >= 2 * count
    for metric in faults.ZERO:
        assert total[metric] == 0, (metric, rows)
    assert "Nothing was half visible" in capsys.readouterr().out
    assert len(json.loads(out.read_text())) == len(rows)
    # Those that are recorded are not done again.
    assert sum(o.hit for o in faults.try_faults(count, record=record)) == count
