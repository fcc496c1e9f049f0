"""What bringing an inversion up to date costs while the archive grows.

200 dates come one by one, each with pairs to the 3 before it; after each the cube is
inverted (`steps.invert_cube`), which goes on from the last state, and the displacement
is compared with an inversion of all pairs. At every 20th date the inversion in full,
store to store, is measured beside it, on a branch of its own. Bytes are those that the
process read and wrote by system calls (Linux).
"""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import odc.geo.xr  # noqa: F401  (the .odc accessor)
import xarray as xr

from benchmarks.report import Row, options, report
from cube_denoise import extend, store
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR, phase_to_displacement
from cube_denoise.ingest import ingest_dataset
from cube_denoise.inversion.solver import solve
from cube_denoise.network import Network, pair_indices
from cube_denoise.steps import invert_cube

log = logging.getLogger(__name__)

DATES = {False: 200, True: 72}
"""By ``--quick``."""
SIZE = {False: 128, True: 32}
"""Pixels a side."""
EVERY = {False: 20, True: 12}
"""Dates between measurements."""
NEIGHBOURS = 3
FIRST = 10
"""Dates at the beginning."""
MISSING = 0.05
CORNER = {"y": [0, 8], "x": [0, 8]}
LIMIT = 1e-6
"""Largest difference allowed, m."""
WAVELENGTH = 0.0555


def stack(dates: int, size: int) -> xr.Dataset:
    """Random walks with atmosphere and gaps, in the order of the later date."""
    rng = np.random.default_rng(0)
    near = range(1, NEIGHBOURS + 1)
    pairs = [(j - k, j) for j in range(dates) for k in near if j >= k]
    first, second = np.array(pairs).T
    steps = rng.normal(0, 0.3, (dates, size, size)).astype("float32")
    x = np.cumsum(steps, 0) + rng.normal(0, 1, steps.shape).astype("float32")
    phase = x[second] - x[first]
    phase += rng.normal(0, 0.5, phase.shape).astype("float32")
    gaps = rng.random(phase.shape, "float32") < MISSING
    gaps[:, :8, :8] = False
    phase[gaps] = np.nan
    coherence = rng.uniform(0.2, 0.95, phase.shape).astype("float32")
    times = np.datetime64("2016-01-03", "s") + np.arange(dates) * np.timedelta64(
        12 * 86400, "s"
    )
    dims = (PAIR, "y", "x")
    return xr.Dataset(
        {"unwrapped_phase": (dims, phase), "coherence": (dims, coherence)},
        coords={
            "reference_time": (PAIR, times[first]),
            "secondary_time": (PAIR, times[second]),
            "y": 6e6 - 80.0 * np.arange(size),
            "x": 5e5 + 80.0 * np.arange(size),
        },
        attrs={"wavelength": WAVELENGTH, "track": "1"},
    ).odc.assign_crs("EPSG:32630")


def in_full(data: xr.Dataset) -> np.ndarray:
    """Displacement from all pairs, m."""
    first, second, times = pair_indices(
        data["reference_time"].values, data["secondary_time"].values
    )
    phase, coherence = (
        np.ascontiguousarray(data[name].values.reshape(first.size, -1))
        for name in ("unwrapped_phase", "coherence")
    )
    corner = data["unwrapped_phase"].values[:, :8, :8].astype("float64")
    found = solve(
        phase,
        Network(first, second, times.size, 0).plan,
        coherence=coherence,
        constants=corner.mean((1, 2)),
        weights="coherence",
        quality=False,
    )
    shape = (times.size, *data["unwrapped_phase"].shape[1:])
    return phase_to_displacement(found.phase, WAVELENGTH).reshape(shape)


def counters() -> dict[str, float]:
    """Bytes of system calls and seconds, up to now."""
    lines = Path("/proc/self/io").read_text().splitlines()
    told = {k: float(v) for k, v in (line.split(":") for line in lines)}
    return {
        "read": told["rchar"] / 1e6,
        "written": told["wchar"] / 1e6,
        "seconds": time.perf_counter(),
        "processor time": time.process_time(),
    }


UNITS = {"read": "MB", "written": "MB", "seconds": "s", "processor time": "s"}


def spent(work: Callable[[], Any]) -> dict[str, float]:
    """What some work costs."""
    before = counters()
    work()
    return {key: value - before[key] for key, value in counters().items()}


def measure(folder: Path, dates: int, size: int, every: int) -> list[Row]:
    """Rows of a cube that grows."""
    whole, url = stack(dates, size), folder / "cube"
    later = pair_indices(
        whole["reference_time"].values, whole["secondary_time"].values
    )[1]
    rows: list[Row] = []
    worst = 0.0
    workers = Workers("threads", count=2)
    for count in range(FIRST, dates + 1):
        data = whole.isel({PAIR: slice(0, int(np.searchsorted(later, count)))})
        ingest_dataset(data, url, workers=workers)
        case = f"{count} dates"
        told = count % every == 0
        if told:
            with mock.patch.object(extend, "WORTH", 0.0):
                cost = spent(
                    lambda case=case: invert_cube(
                        url,
                        branch=f"full-{case[:-6]}",
                        reference=CORNER,
                        workers=workers,
                    )
                )
            rows += [Row(case, "full", k, v, UNITS[k]) for k, v in cost.items()]
        cost = spent(lambda: invert_cube(url, reference=CORNER, workers=workers))
        found = store.open_cube(url)["displacement"].values
        known = in_full(data)
        if not np.array_equal(np.isnan(found), np.isnan(known)):
            raise AssertionError(f"{case}: other dates are linked")
        worst = max(worst, float(np.nanmax(np.abs(found - known))))
        if told:
            rows += [Row(case, "update", k, v, UNITS[k]) for k, v in cost.items()]
            rows.append(Row(case, "update", "largest difference", worst, "m"))
            log.info("%s: %.2f s, %.1e m", case, cost["seconds"], worst)
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    dates, size, every = DATES[asked.quick], SIZE[asked.quick], EVERY[asked.quick]
    with tempfile.TemporaryDirectory(prefix="cube-incremental-") as name:
        rows = measure(Path(name), dates, size, every)
    value = {(r.case, r.method, r.metric): r.value for r in rows}
    worst = value[f"{dates // every * every} dates", "update", "largest difference"]
    early = f"{-(-dates // 2 // every) * every} dates"
    late = f"{dates // every * every} dates"
    ratios = ", ".join(
        f"{k} {value[late, 'update', k] / value[early, 'update', k]:.2f}" for k in UNITS
    )
    full = ", ".join(
        f"{k} {value[late, 'full', k] / value[late, 'update', k]:.1f}" for k in UNITS
    )
    notes = (
        f"{size} x {size} pixels, {NEIGHBOURS} nearest neighbours. Largest difference "
        f"to the inversion of all pairs, of all dates up to then and of every update: "
        f"{worst:.1e} m ({'within' if worst <= LIMIT else 'ABOVE'} {LIMIT:g} m).\n"
        f"An update at {late} over one at {early}: {ratios}.\n"
        f"The inversion in full over the update at {late}: {full}."
    )
    report(rows, asked.out, notes=notes)
    return rows


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    main()
