"""An evaluation of a small simulated stack, made once for all that draw or tell it."""

import functools
from dataclasses import replace

import numpy as np
import xarray as xr

from cube_denoise.evaluate.injection import Case
from cube_denoise.evaluate.judge import Evaluation, evaluate_cube
from cube_denoise.simulate import Scene, simulate_scene

REFERENCE = {"y": slice(0, 8), "x": slice(0, 8)}
CASES = [
    Case(shape, radius, rate)
    for shape in ("bowl", "patch")
    for radius in (300.0, 600.0)
    for rate in (0.02, 0.1)
] + [Case("bowl", 400.0, size, "step") for size in (0.01, 0.04)]
METHODS = ["raw", "ramp", "phase-elevation"]


def stations_of(scene: Scene) -> xr.Dataset:
    """Four stations that see what the ground does along the line of sight."""
    from pyproj import Transformer

    cube, truth = scene.cube, scene.truth
    rows, columns = np.array([6, 20, 30, 41]), np.array([30, 8, 40, 22])
    crs = str(cube.odc.geobox.crs)
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    place = to_degrees.transform(cube.x.values[columns], cube.y.values[rows])
    moved = truth.displacement.values[:, rows, columns].T
    parts = {}
    for part, vector in zip(
        ("east", "north", "up"), ("los_east", "los_north", "los_up"), strict=True
    ):
        values = moved * cube[vector].values[rows, columns][:, None]
        parts[part] = (("station", "time"), values)
        parts[f"{part}_std"] = (("station", "time"), np.full(moved.shape, 0.001))
    coords = {
        "station": ["AAAA", "BBBB", "CCCC", "DDDD"],
        "time": truth.time.values,
        "longitude": ("station", place[0]),
        "latitude": ("station", place[1]),
    }
    return xr.Dataset(parts, coords)


@functools.cache
def judged_scene() -> Scene:
    """48 x 48 pixels, 7 dates. Not to be changed."""
    made = simulate_scene(size=48, dates=7, rate=0.3, gaps=0.02, seed=3)
    made.cube.load()
    return made


@functools.cache
def judged() -> Evaluation:
    """Raw and two methods with truth, stations and injection. Not to be changed."""
    scene = judged_scene()
    return evaluate_cube(
        scene.cube,
        METHODS[1:],
        truth=scene.truth,
        stations=stations_of(scene),
        reference_station="AAAA",
        cases=CASES,
        reference=REFERENCE,
    )


def with_zero(evaluation: Evaluation) -> Evaluation:
    """The evaluation with a second method of which nothing comes back."""
    raw = evaluation.verdicts[0]
    nothing = [r._replace(slope=0 * r.slope) for r in raw.recoveries]
    scores = raw.scores | {"steady detectable": np.inf}
    lost = replace(raw, method="zero", recoveries=nothing, scores=scores)
    return replace(evaluation, verdicts=[raw, lost])
