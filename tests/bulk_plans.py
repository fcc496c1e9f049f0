"""Plans of small frames, each with a source of its own, for tests."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from frames import frames

from cube_denoise import store
from cube_denoise.archive import cube_place
from cube_denoise.bulk_plan import Plan, make_plan
from cube_denoise.catalog import write_items
from cube_denoise.pipeline import run

SHARED = {"invert": {"reference": {"y": [0, 6], "x": [0, 6]}}}
"""Options of all frames."""


def sources(folder: Path, count: int) -> list[dict[str, Any]]:
    """Entries of a plan: frames of five pairs each, no two alike."""
    entries = []
    for k in range(count):
        items = frames(folder / f"rasters-{k}", spans=(1,), seed=k)
        source = write_items(items, folder / f"items-{k}.json")
        entries.append({"name": f"frame-{k:03d}", "source": str(source)})
    return entries


def plan_of(folder: Path, entries: Any, **more: Any) -> Plan:
    told = {"archive": str(folder / "archive"), "frames": entries, "workers": 2}
    return make_plan({**told, "cluster": "threads", **SHARED, **more})


@functools.cache
def _alone(source: str) -> Path:
    url = Path(source).with_suffix(".cube")
    run({"source": source, "cube": str(url), "cluster": "threads", **SHARED})
    return url


def alone(entry: dict[str, Any]) -> Path:
    """Cube of a frame by one run without an archive. Not to be changed."""
    return _alone(entry["source"])


def published(plan: Plan, name: str) -> int:
    """Commits that showed readers a new state of the frame's pairs."""
    states = store.history(cube_place(plan.archive, name))
    return sum(s["metadata"]["step"] in ("run", "update") for s in states)


def assert_same_cube(one: str | Path, other: str | Path) -> None:
    """All values equal, to the bit."""
    a, b = (store.open_cube(url).load() for url in (one, other))
    assert set(a.variables) == set(b.variables)
    assert np.isfinite(a["velocity"]).mean() > 0.9
    for name in a.variables:
        xr.testing.assert_equal(a[name].variable, b[name].variable)
