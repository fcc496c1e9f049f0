"""Archives of simulated frames, joined: error, steps and coverage against truth.

60 frames of 6 tracks, ascending and descending, with an offset each (10 mm/yr) and, in
the second and third case, a ramp (5 mm/yr on 100 km), over ground with a fault, a
turning plate and sinking basins; 40 GNSS stations. The noise of every frame is its own;
in the third case frames of one track have the same where they overlap. Beside the join:
the same frames decomposed as they are, and less their true offsets and ramps, which is
the best that can be had.
"""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from benchmarks.report import Row, options, report
from cube_denoise.joining.decompose import MAX_CONDITION
from cube_denoise.joining.frames import Frame, frame_of_dataset
from cube_denoise.joining.ground import Stations
from cube_denoise.joining.join import Joined, join, product_grid
from cube_denoise.joining.mosaic import Plan, product_of
from cube_denoise.joining.seams import step_over_std
from cube_denoise.simulate.frames import FrameScene, simulate_frames

log = logging.getLogger(__name__)

SCENES = {False: 6, True: 1}
SIZES = {
    False: {},
    True: {"tracks": 4, "per_track": 3, "size": (60, 50), "stations": 15},
}
CASES: dict[str, dict[str, float]] = {
    "offsets": {},
    "offsets and ramps": {"ramp_std": 5e-3},
    "offsets and ramps, noise of a track alike": {"ramp_std": 5e-3, "alike": 1.0},
}
"""Options of `simulate_frames`."""
COMPONENTS = ("east", "up")
SEED_WORD = 830


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; the rows are printed and returned."""
    asked = options(__doc__, arguments)
    rows: list[Row] = []
    for case, kind in CASES.items():
        found: dict[tuple[str, str, str], list[float]] = {}
        for number in range(SCENES[asked.quick]):
            seed = 1000 * SEED_WORD + number
            scene = simulate_frames(seed=seed, **kind, **SIZES[asked.quick])
            for method, metric, value, unit in measure(scene, "ramp_std" in kind):
                found.setdefault((method, metric, unit), []).append(value)
            log.info("%s, archive %d", case, number + 1)
        for (method, metric, unit), values in found.items():
            middle, low, high = np.median(values), min(values), max(values)
            cell = (float(middle), unit, float(low), float(high), len(values))
            rows.append(Row(case, method, metric, *cell))
    report(rows, asked.out, notes=NOTES)
    return rows


NOTES = (
    "Median (lowest to highest) over the archives. error: root mean square against\n"
    "truth; covered: share of pixels whose error is below the stated standard\n"
    "deviation (68 % would be right); step: root mean square over the seams; step\n"
    "over std: the same, each over the standard deviation that noise gives it."
)


def measure(scene: FrameScene, ramps: bool) -> Iterator[tuple[str, str, float, str]]:
    """Method, metric, value and unit."""
    frames = [frame_of_dataset(d, name=n) for n, d in scene.frames.items()]
    ground = Stations(scene.stations)
    begin = time.monotonic()
    joined = join(frames, ground=ground, order=int(ramps))
    product = joined.product.compute()
    seconds = time.monotonic() - begin
    for method, values in (
        ("as they are", replaced(joined, frames, ground, None)),
        ("joined", product),
        ("less the true errors", replaced(joined, frames, ground, scene)),
    ):
        for name in COMPONENTS:
            error = (values.velocity.sel(component=name) - scene.truth[name]).values
            there = np.isfinite(error)
            std = values.velocity_std.sel(component=name).values[there]
            error = error[there]
            rms = float(np.sqrt(np.mean(error**2)))
            yield method, f"{name} error", 1e3 * rms, "mm/yr"
            covered = float(np.mean(np.abs(error) < std))
            yield method, f"{name} covered", 100 * covered, "%"
    for method, steps in (
        ("as they are", [s.before for s in joined.seams]),
        ("joined", [s.after for s in joined.seams]),
    ):
        yield method, "step", 1e3 * float(np.sqrt(np.mean(np.square(steps)))), "mm/yr"
    yield "joined", "step over std", step_over_std(joined.seams), "1"
    yield "joined", "time", seconds, "s"


def replaced(
    joined: Joined, frames: list[Frame], ground: Stations, scene: FrameScene | None
) -> xr.Dataset:
    """The product with offsets of nought, or with the true ones and no error."""
    frames = sorted(frames, key=lambda f: f.name)
    offsets = joined.offsets
    coefficients = np.zeros_like(offsets.coefficients)
    if scene is not None:
        size = offsets.bases[0].size
        for k, frame in enumerate(frames):
            coefficients[offsets.part(k)] = scene.errors[frame.name][:size]
    known = replace(
        offsets,
        coefficients=coefficients,
        covariance=np.zeros_like(offsets.covariance),
        rows=(),
    )
    grid = product_grid(frames)
    plan = Plan(tuple(frames), known, grid, ground, COMPONENTS, MAX_CONDITION)
    return product_of(plan).compute()


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    main()
