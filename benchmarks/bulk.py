"""What a bulk run costs beside its jobs, what it holds in memory, and a continent.

``overhead``: frames of 48 x 48 pixels and 12 pairs, corrected with a ramp and inverted,
one after another by `pipeline.run` in this process, and the same by `bulk.run_plan`
with one worker of each kind. Seconds a frame are those between the end of the first
frame and that of the last (a worker's start is not in them), over the frames between;
the overhead is what a bulk run takes longer for a frame. Processor time is that of this
process, where the jobs are in it, of all frames. Interval: all repeats.

``planned frames``: a plan in a CSV file whose frames are all done already, on a Dask
scheduler and two workers that are processes of their own. Each frame is a task of a
worker, which reads its state and finds nothing to do: the path of the client and the
scheduler is that of frames with work. The highest resident memory (``VmHWM``) of the
scheduler and of the client's process, new ones for each number of frames.

``measured``: one frame of 512 x 512 pixels and 30 pairs by `pipeline.run` with one
thread: its processor time beside what the dry run says of it.

``continent``: 5 million km2 at 80 m, ascending and descending, frames of 250 x 200 km
that overlap by 15 %, 400 pairs each (every date with the next three), HyP3's layers.
Planned from metadata as `dry_run` does, with the rates of this machine, one core a
worker; worker-hours times the factor that was measured stand beside.
"""

import argparse
import json
import logging
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from odc.geo.geobox import GeoBox

from benchmarks.rasters import PLACE, write_pairs
from benchmarks.report import Row, options, report
from cube_denoise import archive, pipeline, store
from cube_denoise.bulk import run_plan
from cube_denoise.bulk_plan import Plan, make_plan, read_plan
from cube_denoise.catalog import write_items
from cube_denoise.cluster import Workers
from cube_denoise.cube_fit import attributes_of
from cube_denoise.dry_run import plan_job, plan_steps
from cube_denoise.estimate import Rates, StepEstimate, total
from cube_denoise.frame_status import FrameStatus, object_name, read_status
from cube_denoise.interferogram import Asset, Interferogram
from cube_denoise.json_objects import JsonObjects
from cube_denoise.planned_cube import empty_cube

log = logging.getLogger(__name__)

FRAMES = {False: 12, True: 2}
"""Of the overhead, by ``--quick``."""
REPEATS = {False: 3, True: 1}
KINDS = {False: ("threads", "processes", "dask"), True: ("threads",)}
PLANNED = {False: (100, 1000, 10_000), True: (20, 200)}
"""Numbers of planned frames."""
MEASURED = {False: (512, 30), True: (96, 6)}
"""Pixels a side and pairs of the frame that is measured."""
AREA, PIXEL, PAIRS = 5e6, 80, 400
"""Of the continent: km2, m, pairs a frame."""
FRAME_KM, OVERLAP, DIRECTIONS = (250, 200), 0.15, 2
LATER = 3
"""Every date is paired with so many later ones."""
SHARED = {
    "correct": {"method": "ramp"},
    "invert": {"reference": {"y": [0, 6], "x": [0, 6]}},
}


# --- overhead --------------------------------------------------------------------


def overhead(folder: Path, *, quick: bool) -> list[Row]:
    """Seconds a frame without and with a bulk run."""
    count = FRAMES[quick]
    items = write_pairs(folder / "rasters", 12, 48, coherence=True)
    source = str(write_items(items, folder / "items.json"))
    job = {"source": source, "cluster": "threads", "workers": 1, **SHARED}
    pipeline.run({**job, "cube": str(folder / "warm")})
    alone, bulk = [], {kind: [] for kind in KINDS[quick]}
    starts: dict[str, list[float]] = {kind: [] for kind in KINDS[quick]}
    computed: dict[str, list[float]] = {kind: [] for kind in ("alone", *bulk)}
    for turn in range(REPEATS[quick]):
        ends = []
        clock = time.process_time()
        for k in range(count):
            pipeline.run({**job, "cube": str(folder / f"alone-{turn}-{k}")})
            ends.append(time.time())
        alone.append((ends[-1] - ends[0]) / (count - 1))
        computed["alone"].append((time.process_time() - clock) / count)
        for kind, found in bulk.items():
            told = {k: v for k, v in job.items() if k != "cluster"}
            frames = [{"name": f"frame-{k}"} for k in range(count)]
            place = str(folder / f"{kind}-{turn}")
            plan = make_plan(
                {**told, "archive": place, "frames": frames, "cluster": kind}
            )
            begin, clock = time.time(), time.process_time()
            run_plan(plan)
            computed[kind].append((time.process_time() - clock) / count)
            done = sorted(_ends(plan))
            found.append((done[-1] - done[0]) / (count - 1))
            starts[kind].append(done[0] - begin)
            log.info("%s: %.2f s a frame, %.2f alone", kind, found[-1], alone[-1])
    case = "48 x 48 pixels, 12 pairs"
    how = "one after another, one process"
    rows = [_timed(case, how, "a frame", alone)]
    rows.append(_timed(case, how, "processor time a frame", computed["alone"]))
    for kind, found in bulk.items():
        how = f"bulk, {kind}, 1 worker"
        rows.append(_timed(case, how, "a frame", found))
        if kind == "threads":
            rows.append(_timed(case, how, "processor time a frame", computed[kind]))
        more = [b - a for a, b in zip(alone, found, strict=True)]
        rows.append(_timed(case, how, "overhead a frame", more))
        rows.append(_timed(case, how, "first frame after", starts[kind]))
    return rows


def _ends(plan: Plan) -> Iterator[float]:
    """When the frames of a plan were done, s since 1970."""
    objects = JsonObjects(plan.archive)
    for frame in plan.frames():
        seen = read_status(objects, frame.name).seen
        yield datetime.fromisoformat(seen).timestamp()


def _timed(case: str, method: str, metric: str, values: Sequence[float]) -> Row:
    low, high = (min(values), max(values)) if len(values) > 1 else (None, None)
    return Row(case, method, metric, median(values), "s", low, high)


# --- memory ----------------------------------------------------------------------

CLIENT = """
import json, sys, time
from pathlib import Path
from cube_denoise.bulk import run_plan
from cube_denoise.bulk_plan import read_plan
begin = time.perf_counter()
report = run_plan(read_plan(sys.argv[1]))
status = Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([report.already, time.perf_counter() - begin, peak]))
"""


def memory(folder: Path, *, quick: bool) -> list[Row]:
    """Highest memory of client and scheduler for several numbers of frames."""
    rows: list[Row] = []
    peaks: dict[str, list[float]] = {"scheduler": [], "client": []}
    for count in PLANNED[quick]:
        place = folder / f"planned-{count}"
        path = done_before(place, count)
        with scheduler(place) as (address, process):
            plan = path.read_text() + f"cluster: {address}\n"
            path.write_text(plan)
            command = [sys.executable, "-c", CLIENT, str(path)]
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            already, seconds, client = json.loads(ran.stdout.splitlines()[-1])
            status = Path(f"/proc/{process.pid}/status").read_text()
        if already != count:
            raise RuntimeError(f"{already} of {count} frames were found done")
        of_scheduler = int(status.split("VmHWM:")[1].split()[0]) / 1024
        peaks["scheduler"].append(of_scheduler)
        peaks["client"].append(client)
        case = f"{count} planned frames"
        rows.append(Row(case, "all done already", "scheduler", of_scheduler, "MiB"))
        rows.append(Row(case, "all done already", "client", client, "MiB"))
        each = 1e3 * seconds / count
        rows.append(Row(case, "all done already", "time a frame", each, "ms"))
        log.info("%s: scheduler %.0f, client %.0f MiB", case, of_scheduler, client)
    case = f"{PLANNED[quick][-1]} over {PLANNED[quick][0]} planned frames"
    return rows + [
        Row(case, "ratio of peaks", who, found[-1] / found[0], "1")
        for who, found in peaks.items()
    ]


def done_before(folder: Path, count: int) -> Path:
    """Plan of frames that are done, with their items listed."""
    folder.mkdir()
    lines = ["name,search.orbit", *(f"frame-{k:05d},A005" for k in range(count))]
    (folder / "frames.csv").write_text("\n".join(lines) + "\n")
    path = folder / "plan.yaml"
    path.write_text("archive: archive\nframes: frames.csv\nsource: none.json\n")
    plan = read_plan(path)
    archive.make(plan.archive)
    objects = JsonObjects(plan.archive)
    properties = {"start_datetime": "2020-01-01", "end_datetime": "2021-01-01"}
    for frame in plan.frames():
        done = FrameStatus(frame.name, "done", frame.fingerprint)
        objects.write(object_name(frame.name), asdict(done))
        item = {"id": frame.name, "bbox": [0, 0, 1, 1], "properties": properties}
        objects.write(f"{archive.ITEMS}/{frame.name}.json", item)
    archive.list_items(plan.archive)
    return path


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of a Dask scheduler with two workers."""
    file = folder / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard", "--host", "127.0.0.1"]
    worker = ["worker", "--nthreads", "1", "--no-nanny", "--local-directory"]
    commands = [["scheduler", "--port", "0"], *[[*worker, str(folder)]] * 2]
    made = []
    try:
        for command in commands:
            line = [sys.executable, "-m", "dask", *command, *common]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            made.append(subprocess.Popen(line, **quiet))
            while not file.exists():
                time.sleep(0.1)
        yield json.loads(file.read_text())["address"], made[0]
    finally:
        for process in made:
            process.kill()
            process.wait()


# --- one frame, measured ---------------------------------------------------------


def measured(folder: Path, *, quick: bool) -> list[Row]:
    """Processor time of one frame beside its dry run."""
    size, pairs = MEASURED[quick]
    items = write_pairs(folder / "measured", pairs, size, coherence=True)
    source = str(write_items(items, folder / "measured.json"))
    job = {"source": source, "cube": str(folder / "measured-cube"), **SHARED}
    job |= {"cluster": "threads", "workers": 1}
    planned = plan_job(job)
    estimate = planned.total.core_seconds + planned.total.serial_seconds
    begin = time.process_time()
    pipeline.run(job)
    took = time.process_time() - begin
    case = f"measured: {size} x {size} pixels, {pairs} pairs"
    return [
        Row(case, "ramp", "dry run", estimate, "s"),
        Row(case, "ramp", "processor time", took, "s"),
        Row(case, "ramp", "measured over dry run", took / estimate, "1"),
    ]


# --- a continent -----------------------------------------------------------------


def frame_of_continent(folder: Path) -> tuple[GeoBox, list[Interferogram]]:
    """Grid and pairs of one frame; its rasters are never opened."""
    rows, columns = (round(1000 * km / PIXEL) for km in FRAME_KM)
    grid = GeoBox((rows, columns), PLACE, "EPSG:32613")
    roles = {
        **{"unwrapped_phase": "rad", "coherence": "1", "elevation": "m"},
        **{"look_elevation": "rad", "look_orientation": "rad"},
    }
    assets = {r: Asset(f"s3://none/{r}.tif", r, unit, 0.0) for r, unit in roles.items()}
    (small,) = write_pairs(folder / "continent", 1, 16)
    model = replace(small, shape=(rows, columns), assets=assets)
    begin, found = datetime(2015, 1, 1, 5, tzinfo=UTC), []
    dates = math.ceil((PAIRS + LATER * (LATER + 1) / 2) / LATER)
    for early in range(dates):
        for late in range(early + 1, min(early + LATER, dates - 1) + 1):
            times = [begin + timedelta(12 * k) for k in (early, late)]
            name = f"{early}-{late}"
            found.append(
                replace(
                    model, id=name, reference_time=times[0], secondary_time=times[1]
                )
            )
    return grid, found[:PAIRS]


def continent(folder: Path, factor: float) -> list[Row]:
    """Rows of one frame and of all."""
    grid, records = frame_of_continent(folder)
    cube = empty_cube(grid, attributes_of(records[0]))
    of_frame = FRAME_KM[0] * FRAME_KM[1] * (1 - OVERLAP)
    count = DIRECTIONS * math.ceil(AREA / of_frame)
    rates, rows = Rates(), []
    one_thread = Workers("threads", count=1)
    for method, job in (("raw pairs", {}), ("ramp", SHARED)):
        asked: Mapping[str, Any] = {"source": "none.json", **job}
        steps = plan_steps(cube, records, asked, one_thread, rates)
        of_steps = {s.step: _hours(s) for s in steps}
        frame = total(steps)
        numbers = _numbers(frame, grid, factor)
        for case, times in (("one frame", 1), (f"continent, {count} frames", count)):
            rows += [
                Row(case, method, metric, float(value * times), unit)
                for metric, (value, unit) in numbers.items()
            ]
        rows += [
            Row("share of the hours", method, step, hours / _hours(frame), "1")
            for step, hours in of_steps.items()
        ]
        phases = len(records) * math.prod(grid.shape)
        factors = {
            "a phase value": (3.6e9 * _hours(frame) / phases, "us"),
            "read of it": (frame.bytes_read / phases, "bytes"),
            "stored of it": (frame.bytes_stored / phases, "bytes"),
            "memory of a task": (frame.memory_per_task / 2**30, "GiB"),
            "days on 100 workers": (count * _hours(frame) * factor / 2400, "1"),
        }
        rows += [Row("cost factors", method, m, v, u) for m, (v, u) in factors.items()]
    return rows


def _hours(step: StepEstimate) -> float:
    return (step.core_seconds + step.serial_seconds) / 3600


def _numbers(
    frame: StepEstimate, grid: GeoBox, factor: float
) -> dict[str, tuple[float, str]]:
    shards = math.prod(-(-n // store.SHARD) for n in grid.shape)
    return {
        "pairs": (PAIRS, "1"),
        "tasks": (frame.tasks + frame.looks, "1"),
        "read": (frame.bytes_read / 1e12, "TB"),
        "written": (frame.bytes_written / 1e12, "TB"),
        "stored": (frame.bytes_stored / 1e12, "TB"),
        "objects of the phase": (PAIRS * shards, "1"),
        "worker-hours, dry run": (_hours(frame), "h"),
        "worker-hours, by the factor": (_hours(frame) * factor, "h"),
    }


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked: argparse.Namespace = options(__doc__, arguments)
    with tempfile.TemporaryDirectory(prefix="cube-bulk-") as name:
        folder, quick = Path(name), asked.quick
        rows = overhead(folder, quick=quick)
        rows += memory(folder, quick=quick)
        single = measured(folder, quick=quick)
        factor = single[-1].value
        rows += single + continent(folder, factor)
    notes = (
        f"Continent: {AREA:.2g} km2 at {PIXEL} m, {DIRECTIONS} directions, frames of "
        f"{FRAME_KM[0]} x {FRAME_KM[1]} km, {OVERLAP:.0%} of each in others. Hours are "
        "of one core of this machine, reading from memory: bring the time that the "
        f"network takes.\nThe factor is {factor:.2f}: processor time of the measured "
        "frame over its dry run."
    )
    report(rows, asked.out, notes=notes)
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
