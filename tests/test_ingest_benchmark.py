"""The benchmark of ingest: its rows and counts, and that it checks what it wrote."""

import http.client
import http.server
import json
import threading
from importlib.util import find_spec

import numpy as np
import pytest
import zarr

from benchmarks import ingest, ingest_sides
from benchmarks.counting_proxy import counting, kind_of, since
from benchmarks.rasters import write_pairs
from cube_denoise.catalog import write_items


@pytest.mark.slow
def test_rows_and_one_open_of_each_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(ingest.SIZES, True, ingest.Size(files=3, pixels=128, rounds=1))
    monkeypatch.setitem(ingest.PEERS, "nobody", "no_such_package")
    rows = ingest.main(["--quick", "--out", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == [r.record for r in rows]
    printed = capsys.readouterr().out
    assert "nobody is not installed" in printed
    assert "times the codec floor" in printed
    found = {(r.case.split(",")[0], r.method, r.metric): r.value for r in rows}
    there = {"cube_denoise", "plain loop", "rioxarray"}
    there |= {"odc-stac"} if find_spec("odc") and find_spec("odc.stac") else set()
    assert {m for c, m, n in found if n == "to the floor"} == there
    floor = found["local disk", "codec floor", "time"]
    sides = [found["local disk", s, "time"] for s in ("decode", "encode")]
    assert floor == pytest.approx(sum(sides))
    for side in there:
        ratio = found["local disk", side, "to the floor"]
        assert ratio == pytest.approx(found["local disk", side, "time"] / floor)
        assert found["local disk", side, "peak over start"] > 0
    assert found["local disk", "cube_denoise", "opens of a file"] == 1
    if not any(case == "S3" for case, _, _ in found):
        pytest.skip("no S3 server")
    assert found["S3", "cube_denoise", "opens of a file"] == 1
    assert found["S3", "cube_denoise", "rasters requests"] >= 3
    assert found["S3", "plain loop", "requests"] >= 2 * 3  # a file, a shard


def test_wrong_values_are_refused(tmp_path):
    pairs = write_pairs(tmp_path / "rasters", 2, 64)
    source = str(write_items(pairs, tmp_path / "items.json"))
    for side in ("plain loop", "rioxarray", "cube_denoise"):
        target = str(tmp_path / side)
        ingest_sides.prepare(side, source, target)()
        ingest_sides.check(side, source, target)
    array = zarr.open_array(tmp_path / "plain loop", mode="r+")
    array[1, 5, 5] = np.float32(array[1, 5, 5]) + 1e-3
    with pytest.raises(AssertionError, match="plain loop"):
        ingest_sides.check("plain loop", source, str(tmp_path / "plain loop"))


def test_opens_are_counted(tmp_path, monkeypatch):
    pairs = write_pairs(tmp_path / "rasters", 2, 32)
    hrefs = [p.assets["unwrapped_phase"].href for p in pairs]
    monkeypatch.setattr(ingest_sides.rasterio, "open", ingest_sides.rasterio.open)
    counted = ingest_sides.opens()
    for href in (*hrefs, hrefs[0]):
        ingest_sides.read(href)
    assert dict(counted) == {hrefs[0]: 2, hrefs[1]: 1}


def test_the_proxy_counts_what_passes():
    class Echo(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(body)))
            self.end_headers()
            self.wfile.write(2 * body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    body = b"x" * 1_000_000
    with counting(f"http://127.0.0.1:{server.server_port}") as meter:
        before = meter.now()
        connection = http.client.HTTPConnection(meter.endpoint.split("//")[1])
        for path in ("/b/cube/chunks/A", "/b/cube/chunks/B", "/b/x.tif?versionId=1"):
            connection.request("PUT", path, body)
            assert connection.getresponse().read() == 2 * body
        connection.close()
        found = since(before, meter.now())
    server.shutdown()
    server.server_close()
    assert found["requests"] == 3 and found["chunks requests"] == 2
    assert found["rasters requests"] == 1 and found["metadata requests"] == 0
    assert found["chunks written"] == pytest.approx(2e6, rel=1e-3)
    assert found["rasters read"] == pytest.approx(2e6, rel=1e-3)
    assert kind_of(b"GET /cubes/cube/manifests/X HTTP/1.1\r\n") == "metadata"
