"""What an update with a few new pairs reads and writes, against the full run.

A cube of 300 pairs of 96 x 96 pixels is made by `pipeline.run`, then 3 pairs are added
by `update.update`. Rasters and cube are on an S3 server (SeaweedFS) behind a proxy,
which counts requests and bytes (headers included) of every step. The correction works
on each pair by itself; the inversion needs the phase and coherence of all pairs.
"""

import functools
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.counting_proxy import Meter, Traffic, counting, since
from benchmarks.rasters import moved, write_pairs
from benchmarks.report import Row, options, report
from cube_denoise import pipeline, store
from cube_denoise.catalog import write_items
from cube_denoise.update import update

log = logging.getLogger(__name__)

PAIRS = {False: 300, True: 12}
"""Of the cube, by ``--quick``."""
NEW = 3
SIZE = {False: 96, True: 48}
"""Pixels a side, by ``--quick``."""
METHOD = "ramp"
STEPS = ("ingest", "correct_cube", "invert_cube")
"""Functions of `pipeline` that are watched."""
METRICS = {
    "seconds": "s",
    "requests": "1",
    "read": "kB",
    "written": "kB",
    "rasters read": "kB",
    "chunks read": "kB",
    "chunks written": "kB",
}


class Watch:
    """Time and traffic of every step of a job."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.found: dict[str, dict[str, float]] = {}

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, watched."""

        @functools.wraps(function)
        def watched(*args: Any, **options: Any) -> Any:
            before, begin = self.meter.now(), time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.found[name] = self._since(before, begin)

        return watched

    def _since(self, before: Mapping[str, Traffic], begin: float) -> dict[str, float]:
        seconds = time.perf_counter() - begin
        return {"seconds": seconds} | since(before, self.meter.now())

    def job(
        self, act: Callable[[dict[str, Any]], Any], job: dict[str, Any]
    ) -> tuple[dict[str, dict[str, float]], Any]:
        """Do a job; numbers of every step, of the rest and of all."""
        with pytest.MonkeyPatch.context() as patch:
            for name in STEPS:
                whole = self.around(name, getattr(pipeline, name))
                patch.setattr(pipeline, name, whole)
            result = self.around("all", act)(job)
        found, self.found = self.found, {}
        rest = {
            key: value - sum(found[s][key] for s in STEPS)
            for key, value in found["all"].items()
        }
        names = {s: s.removesuffix("_cube") for s in STEPS}
        steps = {short: found[s] for s, short in names.items()}
        return {**steps, "search, publish": rest, "all": found["all"]}, result


def measure(folder: Path, pairs: int, size: int) -> list[Row]:
    """Rows of a run and an update; skips, as a test does, where there is no server."""
    from tests import s3_server

    (folder / "server").mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(s3_server.running(folder / "server"))
        meter = stack.enter_context(counting(server.endpoint))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        server.use(patch)
        patch.setenv("AWS_ENDPOINT_URL", meter.endpoint)
        bucket = f"s3://{s3_server.BUCKET}"
        items = write_pairs(folder / "rasters", pairs + NEW, size, coherence=True)
        s3_server.upload(folder / "rasters", bucket)
        items = moved(items, bucket)
        corner = [0, size // 8]
        job = {
            "source": str(folder / "items.json"),
            "cube": f"{bucket}/cube",
            "correct": {"method": METHOD},
            "invert": {"reference": {"y": corner, "x": corner}},
            "workers": 2,
            "cluster": "threads",
        }
        watch = Watch(meter)
        rows = []
        for case, count, act in (
            (f"run, {pairs} pairs", pairs, pipeline.run),
            (f"update, {NEW} new pairs", pairs + NEW, update),
        ):
            write_items(items[:count], folder / "items.json")
            found, result = watch.job(act, job)
            log.info("%s: %.1f s", case, found["all"]["seconds"])
            rows += rows_of(case, found, result.correct.done)
        before = meter.now()
        cube = store.open_cube(job["cube"])
        for name in ("corrected_phase", "coherence"):
            cube[name].load()
        needed = since(before, meter.now())["chunks read"] / 1e3
        method = "corrected phase and coherence of all pairs"
        return [*rows, Row("the inversion needs", method, "chunks read", needed, "kB")]


def rows_of(
    case: str, found: Mapping[str, Mapping[str, float]], corrected: int
) -> list[Row]:
    """Rows of one job."""
    rows = [
        Row(case, step, metric, value / (1e3 if unit == "kB" else 1), unit)
        for step, numbers in found.items()
        for metric, unit in METRICS.items()
        for value in [numbers[metric]]
    ]
    return [*rows, Row(case, "correct", "pairs corrected", float(corrected), "1")]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    pairs, size = PAIRS[asked.quick], SIZE[asked.quick]
    with tempfile.TemporaryDirectory(prefix="cube-update-") as name:
        try:
            rows = measure(Path(name), pairs, size)
        except pytest.skip.Exception as reason:
            print(f"Left out: {reason}")
            return []
    value = {(r.case.split(",")[0], r.method, r.metric): r.value for r in rows}
    fresh = [value["update", s, m] for s in ("ingest", "correct") for m in ("written",)]
    whole = [value["run", s, m] for s in ("ingest", "correct") for m in ("written",)]
    notes = (
        f"{size} x {size} pixels; bytes counted before the server, with headers; "
        f"{METHOD}.\n"
        f"Ingest and correct of {NEW} new pairs wrote {sum(fresh):.0f} kB, those of "
        f"{pairs} pairs {sum(whole):.0f} kB: {sum(fresh) / sum(whole):.1%}, where the "
        f"pairs are {NEW / pairs:.1%}."
    )
    report(rows, asked.out, notes=notes)
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
