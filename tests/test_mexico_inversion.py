"""Mexico City, Sentinel-1 (real): the inversion against independent least squares."""

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from cube_denoise.invert import invert
from cube_denoise.reference import choose_reference
from cube_denoise.network import closure_triplets, connected_subsets, triplet_closure

FOLDER = Path(__file__).parents[2] / "shared/data/mexico-city-s1"
WAVELENGTH = 0.05550415767769124
AREA = {"y": slice(45, 55), "x": slice(15, 25)}

pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason=f"needs the data folder {FOLDER}"
)


def read(path):
    with rasterio.open(path) as source:
        values = source.read(1)
    return np.where(values == 0, np.nan, values)


@pytest.fixture(scope="module")
def cube():
    with (FOLDER / "pairs.csv").open() as file:
        pairs = [(row["reference"], row["secondary"]) for row in csv.DictReader(file)]
    names = [f"{reference}-{secondary}" for reference, secondary in pairs]
    phase = [read(FOLDER / f"unw/cropA_{n}_VV_8rlks_eqa_unw.tif") for n in names]
    coherence = [
        read(FOLDER / f"coh/cropA_{n}_VV_8rlks_flat_eqa_cc.tif") for n in names
    ]
    days = np.array(
        [[f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in pair] for pair in pairs], "datetime64[s]"
    )
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), np.stack(phase)),
            "coherence": (("pair", "y", "x"), np.stack(coherence)),
        },
        coords={
            "reference_time": ("pair", days[:, 0]),
            "secondary_time": ("pair", days[:, 1]),
        },
        attrs={"wavelength": WAVELENGTH, "crs": "EPSG:4326"},
    )


def independent_velocity(cube, weight):
    """LOS rate (m/yr) by one LAPACK call a pixel, as published: velocity increments."""
    reference, secondary = cube.reference_time.values, cube.secondary_time.values
    times = np.unique(np.concatenate([reference, secondary])).astype("datetime64[s]")
    years = (times - times[0]).astype(float) / (365.25 * 86400)
    B = (times[:-1] >= reference[:, None]) & (times[1:] <= secondary[:, None])
    B = B * np.diff(years)
    phase = cube.unwrapped_phase.values.astype("float64")
    phase = phase - np.nanmean(phase[:, 45:55, 15:25], axis=(1, 2))[:, None, None]
    rate = np.full(phase.shape[1:], np.nan)
    for y, x in zip(*np.nonzero(np.isfinite(phase).any(0)), strict=True):
        used = np.isfinite(phase[:, y, x])
        if np.linalg.matrix_rank(B[used]) < B.shape[1]:
            continue
        root = np.sqrt(weight[used, y, x])
        steps = np.linalg.lstsq(
            B[used] * root[:, None], phase[used, y, x] * root, rcond=None
        )[0]
        dates = np.concatenate([[0], np.cumsum(steps * np.diff(years))])
        rate[y, x] = np.polyfit(years, -WAVELENGTH / (4 * np.pi) * dates, 1)[0]
    return rate


@pytest.mark.parametrize("weights", ["none", "coherence"])
def test_velocity_equals_independent_least_squares(cube, weights):
    result = invert(cube, weights=weights, reference=AREA).compute()
    weight = np.ones(cube.unwrapped_phase.shape)
    if weights == "coherence":
        weight = np.clip(np.nan_to_num(cube.coherence.values), 0.05, 0.99)
    truth = independent_velocity(cube, weight)
    complete = result.gap_count.values == 0
    np.testing.assert_array_equal(np.isfinite(truth), complete)
    assert complete.mean() > 0.97
    np.testing.assert_allclose(
        result.velocity.values[complete], truth[complete], 0, 1e-4
    )


def test_city_subsides_at_the_known_rate(cube):
    result = invert(cube, weights="none", reference=AREA).compute()
    low, high = np.nanpercentile(result.velocity, [1, 99])
    assert low == pytest.approx(-0.266, abs=0.002)
    assert high == pytest.approx(0.026, abs=0.002)
    rms = np.sqrt(np.nanmean(result.residual_rms.values**2))
    assert rms == pytest.approx(0.41, abs=0.02)
    assert abs(np.nanmean(result.velocity[45:55, 15:25])) < 1e-6
    # The rock hill in the north-east stands in the subsiding plain.
    assert result.velocity[8, 75] > -0.1


def test_network_and_loops_are_as_documented(cube):
    dates = cube.reference_time.values, cube.secondary_time.values
    assert [s.size for s in connected_subsets(*dates)] == [13]
    triplets = closure_triplets(*dates)
    assert triplets.shape == (24, 3)
    closure = triplet_closure(cube.unwrapped_phase.values.astype("float64"), triplets)
    cycles = np.round(np.nanmedian(closure, axis=(1, 2)) / (2 * np.pi))
    closure -= 2 * np.pi * cycles[:, None, None]
    bad = (np.abs(closure) > np.pi).sum((1, 2)) / np.isfinite(closure).sum((1, 2))
    error = np.flatnonzero(
        (dates[0] == np.datetime64("2018-03-07"))
        & (dates[1] == np.datetime64("2018-03-19"))
    )
    wrong = np.isin(triplets, error).any(1)
    assert bad[wrong] == pytest.approx([0.205, 0.434, 0.153], abs=0.002)
    assert bad[~wrong].max() < 0.06 and np.median(bad) < 0.002


def test_reference_can_be_chosen(cube):
    area = choose_reference(cube)
    inside = cube.isel(y=area.y, x=area.x)
    assert np.isfinite(inside.unwrapped_phase).all()
    assert inside.coherence.mean() > cube.coherence.mean()
    given = invert(cube, reference=AREA).velocity.compute()
    chosen = invert(cube).velocity.compute()
    # Another reference adds one constant to the velocities, up to the weights.
    assert (given - chosen).std() < 0.01
