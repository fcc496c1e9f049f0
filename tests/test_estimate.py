"""Dry runs: what they promise is what a real run does."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cube_denoise import calibration, store
from cube_denoise.catalog import search
from cube_denoise.cli import app
from cube_denoise.cluster import Workers
from cube_denoise.correct import plan_correction
from cube_denoise.cube_fit import attributes_of
from cube_denoise.dry_run import (
    plan_correct,
    plan_ingest,
    plan_invert,
    plan_job,
    plan_steps,
)
from cube_denoise.estimate import Rates, total
from cube_denoise.grid import regular_grid
from cube_denoise.ingest import ingest
from cube_denoise.interferogram import Asset, Interferogram
from cube_denoise.pipeline import run
from cube_denoise.planned_cube import empty_cube
from cube_denoise.steps import correct_cube, invert_cube
from cube_denoise.update import update


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def contents(folder: Path) -> set[tuple[str, int, int]]:
    """Every file with its size and time of change."""
    return {
        (str(p), p.stat().st_size, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


class Counted:
    """What tasks of a real run write, and how many there are."""

    def __init__(self, monkeypatch):
        self.bytes = self.blocks = self.submitted = 0
        lock, fill, submit = threading.Lock(), store.Stage.fill, Workers._submit

        def counting_fill(stage, work, tasks, workers, **options):
            def counting(cube, task):
                for window, arrays in work(cube, task):
                    with lock:
                        self.bytes += sum(a.nbytes for a in arrays.values())
                    yield window, arrays

            self.blocks += len(tasks)
            fill(stage, counting, tasks, workers, **options)

        def counting_submit(workers, *args):
            self.submitted += 1
            return submit(workers, *args)

        monkeypatch.setattr(store.Stage, "fill", counting_fill)
        monkeypatch.setattr(Workers, "_submit", counting_submit)

    def agrees_with(self, step):
        found = (self.bytes, self.blocks, self.submitted)
        self.bytes = self.blocks = self.submitted = 0
        return found == (step.bytes_written, step.tasks, step.tasks + step.looks)


@pytest.fixture
def counted(monkeypatch):
    return Counted(monkeypatch)


@pytest.fixture(scope="module")
def catalog(product_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("catalogs") / "catalog.json"
    assert call("index", product_folder, "-o", out).exit_code == 0
    return out


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Calibrate on little: these tests are not about time."""
    monkeypatch.setattr(calibration, "SIDE", 48)
    monkeypatch.setattr(calibration, "NETWORK_SIDE", 48)


# --- counts -----------------------------------------------------------------------


def test_ingest_reads_writes_and_cuts_as_told(catalog, tmp_path, counted):
    records = search(catalog)
    sizes = {"chunk": 32, "shard": 64}
    (step,) = plan_ingest(records, tmp_path / "cube", **sizes).steps
    assert not (tmp_path / "cube").exists()
    ingest(records, tmp_path / "cube", **sizes)
    assert counted.agrees_with(step)
    assert (step.pairs, step.done) == (7, 0)
    # phase, coherence of 7 pairs, elevation and two angles once
    assert step.bytes_read == pytest.approx((2 * 7 + 3) * 4 * 96 * 96, rel=1e-3)
    (again,) = plan_ingest(records, tmp_path / "cube").steps
    assert (again.tasks, again.bytes_written, again.done) == (0, 0, 7)


@pytest.mark.parametrize(
    "method", ["ramp", "phase-elevation", "temporal-filter", "common-scene"]
)
def test_correction_by_formula_as_told(small_cube, tmp_path, counted, method):
    cube = shutil.copytree(small_cube, tmp_path / "cube")
    (step,) = plan_correct(cube, method).steps
    correct_cube(cube, method)
    assert counted.agrees_with(step)
    assert (step.pairs, step.method) == (7, method)
    (again,) = plan_correct(cube, method).steps
    assert (again.tasks, again.done) == (0, 7)


def test_correction_by_network_as_told(small_cube, dilated_model, tmp_path, counted):
    cube = shutil.copytree(small_cube, tmp_path / "cube")
    (step,) = plan_correct(cube, dilated_model).steps
    correct_cube(cube, dilated_model)
    assert counted.agrees_with(step)
    # one tile of the lattice holds the scene: each of 4 blocks sees all of it, twice
    # over (phase and elevation)
    assert step.bytes_read == 7 * 4 * 2 * 96 * 96 * 4


def test_inversion_as_told(small_cube, tmp_path, counted):
    cube = shutil.copytree(small_cube, tmp_path / "cube")
    (chosen,) = plan_invert(cube).steps
    area = {"y": [0, 8], "x": [0, 8]}
    (given,) = plan_invert(cube, reference=area).steps
    assert chosen.bytes_read == 2 * given.bytes_read == 2 * 2 * 7 * 4 * 96 * 96
    invert_cube(cube, reference=area)
    assert counted.agrees_with(given)
    (again,) = plan_invert(cube, reference=area).steps
    assert (again.tasks, again.done) == (0, 7)


def test_job_is_planned_before_its_cube_is_there(catalog, tmp_path, counted):
    job = {
        "source": str(catalog),
        "cube": str(tmp_path / "cube"),
        "correct": {"method": "ramp"},
        "invert": {"weights": "none"},
    }
    plan = plan_job(job)
    assert [s.step for s in plan.steps] == ["ingest", "correct", "invert"]
    assert plan.steps[2].method == "corrected_phase"
    run(job)
    assert counted.agrees_with(plan.total)
    assert plan_job(job).total.tasks == 0


def test_update_is_planned_for_what_changed(catalog, product_folder, tmp_path, counted):
    source = tmp_path / "items.json"
    assert call("search", catalog, "-o", source).exit_code == 0
    listed = json.loads(source.read_text())
    assert len(listed["features"]) == 7
    job = {
        "source": str(source),
        "cube": str(tmp_path / "cube"),
        "correct": {"method": "ramp"},
    }
    some = {**listed, "features": listed["features"][:5]}
    source.write_text(json.dumps(some))
    run(job)
    counted.agrees_with(plan_job(job).total)  # forgets what was counted
    features = [dict(f) for f in listed["features"][1:]]
    features[0]["properties"] = {
        **features[0]["properties"],
        "updated": "2031-01-01T00:00:00Z",
    }
    source.write_text(json.dumps({**listed, "features": features}))
    plan = plan_job(job, updating=True)
    assert [s.pairs for s in plan.steps] == [3, 3, 6]
    assert [s.done for s in plan.steps] == [3, 3, 0]
    update(job)
    assert counted.agrees_with(plan.total)
    assert plan_job(job, updating=True).total.tasks == 0


# --- memory -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide_cube(tmp_path_factory):
    """Blocks large enough that memory is in arrays: 12 pairs of 256 x 256."""
    from cube_denoise.ingest import ingest_dataset
    from cube_denoise.simulate import simulate_scene

    scene = simulate_scene(size=256, dates=6, max_temporal_baseline=36, seed=3)
    url = tmp_path_factory.mktemp("wide") / "cube"
    ingest_dataset(scene.cube.load(), url, chunk=128, shard=256)
    return url


def traced(function) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "method", ["ramp", "phase-elevation", "common-scene", "temporal-filter"]
)
def test_memory_of_a_classical_task(wide_cube, method):
    (step,) = plan_correct(wide_cube, method).steps
    cube = store.open_cube(wide_cube)
    peaks = []

    def run(function, tasks):
        peaks.append(traced(lambda: function(tasks[0])))
        return [function(task) for task in tasks]

    job, _ = plan_correction(cube, method, block=256, run=run)
    peaks.append(traced(lambda: job.compute(cube, job.windows[0])))
    assert max(peaks) / 2 < step.memory_per_task < 2 * max(peaks)


def test_memory_of_an_inversion_task(wide_cube):
    from cube_denoise.invert import inversion_block, plan_inversion

    (step,) = plan_invert(wide_cube).steps
    cube = store.open_cube(wide_cube)
    corner = {"y": slice(0, 8), "x": slice(0, 8)}
    job = plan_inversion(cube, reference=corner, block=inversion_block(cube))
    peak = traced(lambda: job.compute(cube, job.windows[0]))
    assert peak / 2 < step.memory_per_task < 2 * peak


PEAK = """
import sys
from cube_denoise import store
from cube_denoise.correct import plan_correction
url, method = sys.argv[1:]
cube = store.open_cube(url)
def run(function, tasks):
    return [("float32", "")]
job, _ = plan_correction(cube, method, block=256, run=run)
window = job.windows[0]
small = {**window, "y": slice(0, 8), "x": slice(0, 8)}
job.compute(cube.isel(y=slice(16), x=slice(16)), small)
def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(n for n in lines if n.startswith(name)).split()[1]) * 1024
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
job.compute(cube, window)
print(memory("VmHWM") - before)
"""


def test_memory_of_a_network_task(wide_cube, tmp_path):
    from conftest import random_network

    model = random_network(tmp_path / "model", seed=3, depth=4, channels=32)
    (step,) = plan_correct(wide_cube, model, precision="float32").steps
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(wide_cube), str(model)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    peak = int(done.stdout)
    assert peak / 2 < step.memory_per_task < 2 * peak


# --- a continent ------------------------------------------------------------------


def frame(k: int, pairs: int = 400, shape=(2250, 3125)) -> list[Interferogram]:
    """A frame of 180 x 250 km at 80 m, `k` steps of 200 km to the east."""
    day = datetime(2016, 1, 1, tzinfo=UTC)
    phase = Asset("s3://none/a.tif", "unwrapped_phase", "rad", None)
    coherence = Asset("s3://none/b.tif", "coherence", "1", None)
    place = (80.0, 0.0, 2e5 * k, 0.0, -80.0, 4e6)
    return [
        Interferogram(
            id=f"{k}-{n}",
            reference_time=day + timedelta(days=12 * (n // 4)),
            secondary_time=day + timedelta(days=12 * (n // 4 + n % 4 + 1)),
            track="A001",
            wavelength=0.0555,
            perpendicular_baseline=0.0,
            crs="EPSG:32633",
            shape=shape,
            transform=place,
            phase_sign=1,
            incidence_angle=39.0,
            heading=-12.0,
            assets={"unwrapped_phase": phase, "coherence": coherence},
            version="1",
        )
        for n in range(pairs)
    ]


def planned(records, rates, method="ramp"):
    job = {"source": "s", "cube": "c", "correct": {"method": method}}
    grid = regular_grid([(r.crs, r.shape, r.transform) for r in records[:1]])
    cube = empty_cube(grid, attributes_of(records[0]))
    return plan_steps(cube, records, job, Workers("threads", count=4), rates)


def calls_during(function) -> int:
    """Python functions called."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_continent_is_planned_in_few_operations(monkeypatch):
    """280 frames cover 10 million square kilometres with a fifth of overlap."""
    rates = Rates()
    planned(frame(0), rates)  # calibrates

    def never(**cuts):
        raise AssertionError("windows are counted, not made")

    for name in ("blocks", "correct", "invert"):
        monkeypatch.setattr(sys.modules[f"cube_denoise.{name}"], "windows", never)
    one = planned(frame(1), rates)
    frames = 280
    whole = total([s for s in one for _ in range(frames)])
    assert whole.tasks == frames * (401 + 400 * 3 * 4 + 9 * 13)
    assert whole.bytes_written > 3e12
    few = frame(2)
    # 4.4 million calls took 3.5 seconds of CPU.
    assert frames * calls_during(lambda: planned(few, rates)) < 6e6


def test_frames_add_up_and_cost_no_more_when_large():
    rates = Rates()
    small, large = (
        planned(frame(0, 20, shape), rates) for shape in ((2250, 3125), (9000, 12500))
    )
    for a, b in zip(small, large, strict=True):
        assert b.memory_per_task == a.memory_per_task
        assert b.bytes_written > 15 * a.bytes_written
    both = total([*small, *large])
    assert both.tasks == sum(s.tasks for s in (*small, *large))
    records = frame(0, 20, (9000, 12500))
    assert calls_during(lambda: planned(records, rates)) < 1.5 * calls_during(
        lambda: planned(frame(0, 20), rates)
    )
    peak = traced(lambda: planned(records, rates))
    assert peak < 3e7  # one pair is 450 MB


# --- the command line -------------------------------------------------------------


def test_nothing_is_written(catalog, small_cube, tmp_path):
    cube = shutil.copytree(small_cube, tmp_path / "cube")
    job = tmp_path / "job.yaml"
    told = {"source": str(catalog), "cube": "cube", "correct": {"method": "ramp"}}
    job.write_text(yaml.safe_dump(told))
    new = tmp_path / "new.yaml"
    new.write_text(yaml.safe_dump({**told, "cube": "other"}))
    before = contents(tmp_path)
    branches = store.open_repository(cube).list_branches()
    for command in (
        ("ingest", catalog, cube),
        ("ingest", catalog, tmp_path / "other"),
        ("correct", cube, "--method", "ramp", "--branch", "trial"),
        ("invert", cube),
        ("run", job),
        ("run", new),
        ("update", job),
    ):
        result = call(*command, "--dry-run")
        assert result.exit_code == 0, result.output + repr(result.exception)
        assert "memory of a task" in result.output and "estimates" in result.output
    assert contents(tmp_path) == before
    assert store.open_repository(cube).list_branches() == branches


def test_json_says_the_same(small_cube):
    result = call("correct", small_cube, "--method", "ramp", "--dry-run", "--json")
    found = json.loads(result.stdout)
    (step,) = plan_correct(small_cube, "ramp").steps
    (told,) = found["steps"]
    for name in ("tasks", "looks", "pairs", "bytes_written", "bytes_read"):
        assert told[name] == getattr(step, name)
    assert found["memory"] > found["process_memory"]


def test_mistakes_are_those_of_the_command(catalog, small_cube, plain_model, tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(f"source: {catalog}\ncube: {small_cube}\nmodel: dncnn\n")
    for command in (
        ("correct", small_cube, "--method", "resnet"),
        ("correct", small_cube, "--method", "ramp", "--set", "surface=round"),
        ("correct", small_cube, "--method", plain_model, "--set", "precision=float16"),
        ("correct", tmp_path / "none", "--method", "ramp"),
        ("invert", small_cube, "--weights", "nice"),
        ("invert", small_cube, "--variable", "corrected_phase"),
        (
            "invert",
            small_cube,
            "--reference-rows",
            "0:999",
            "--reference-columns",
            "0:8",
        ),
        ("invert", small_cube, "--cluster", "fast"),
        ("ingest", catalog, small_cube, "--resolution", "50"),
        ("ingest", catalog, tmp_path / "new", "--shard", "100"),
        ("run", job),
        ("update", job),
    ):
        dry, real = call(*command, "--dry-run"), call(*command)
        assert dry.exit_code == real.exit_code == 2, command
        # Names of variables come in any order.
        said = [r.stderr[r.stderr.index("error: ") :] for r in (dry, real)]
        texts = [sorted(text.replace(",", " ").split()) for text in said]
        assert texts[0] == texts[1], command
        assert not (tmp_path / "new").exists()
    assert "--dry-run" in call("invert", small_cube, "--json").stderr


# --- time -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("network", [False, True])
def test_time_within_a_factor_of_four(
    wide_cube, plain_model, tmp_path, monkeypatch, network
):
    monkeypatch.undo()
    method = plain_model if network else "phase-elevation"
    cube = shutil.copytree(wide_cube, tmp_path / "cube")
    two = Workers("threads", count=2)
    plans = [plan_correct(cube, method, workers=two), plan_invert(cube, workers=two)]
    begin = time.perf_counter()
    correct_cube(cube, method, workers=Workers("threads", count=2))
    invert_cube(cube, workers=Workers("threads", count=2))
    seconds = time.perf_counter() - begin
    assert seconds / 4 < sum(p.seconds for p in plans) < 4 * seconds
