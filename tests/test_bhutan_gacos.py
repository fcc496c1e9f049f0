"""North-west Bhutan, ALOS PALSAR (real), with GACOS delays."""

import numpy as np
import pytest
import rasterio
import xarray as xr

from benchmarks import bhutan_gacos
from benchmarks.bhutan_gacos import (
    DELAYS,
    FOLDER,
    INCIDENCE,
    OFFSET,
    WAVELENGTH,
    delays_at,
    main,
    moved_delays,
    scene_cube,
    stack,
)
from cube_denoise.conventions import phase_to_displacement
from cube_denoise.correct import correct
from cube_denoise.delays import open_delays

pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason=f"needs the data folder {FOLDER}"
)
COSINE = np.cos(np.deg2rad(INCIDENCE))


@pytest.fixture(scope="module")
def cube():
    return scene_cube()


@pytest.fixture(scope="module")
def tif():
    """Zenith delays that the origin brought onto the grid of the scene, m."""
    return open_delays(FOLDER / "GACOS/*.tif").values.astype("float64")


def test_origin_multiplied_by_the_cosine(cube, tif):
    """Where physics divides: its delays are 0.68 of those along the line of sight."""
    theirs = stack("cube_gacos")
    np.testing.assert_allclose(
        theirs, -1000 * COSINE * (tif - tif[0]), rtol=0, atol=2e-4
    )
    result = correct(
        cube, "weather", delays=FOLDER / "GACOS/*.tif", incidence=INCIDENCE
    )
    change = result["corrected_phase"].values - cube["unwrapped_phase"].values
    ours = 1e3 * phase_to_displacement(change[:7].astype("float64"), WAVELENGTH)
    known = np.isfinite(ours)
    assert known.mean() > 0.8
    np.testing.assert_allclose(
        (COSINE**2 * ours)[known], -theirs[1:][known], rtol=0, atol=1e-3
    )


def test_header_is_that_of_the_corner(cube, tif):
    """The origin's GeoTIFF are its binary files so placed; not half a pixel off."""
    binary = open_delays(DELAYS)
    step = float(binary["x"][1] - binary["x"][0])

    def misfit(delays):
        x, y = np.meshgrid(cube["x"].values, cube["y"].values)
        lon, lat = rasterio.warp.transform(
            "EPSG:32645", "EPSG:4326", x.ravel(), y.ravel()
        )
        points = {"x": xr.DataArray(lon, dims="p"), "y": xr.DataArray(lat, dims="p")}
        found = delays.interp(points, kwargs={"fill_value": None}).values
        return 1e3 * np.sqrt(np.mean((found.reshape(tif.shape) - tif) ** 2))

    corner = misfit(binary)
    centre = misfit(
        binary.assign_coords(x=binary["x"] - step / 2, y=binary["y"] + step / 2)
    )
    assert corner < 2 and centre > 2.5 * corner


def standard_dry_delay(height):
    """Saastamoinen (1972) at the zenith, standard atmosphere, m."""
    pressure = 1013.25 * (1 - 2.25577e-5 * height) ** 5.25588
    return 2.2768e-3 * pressure


def test_delays_as_they_lie_are_not_of_this_terrain(cube, tmp_path):
    """They are below what its dry air alone delays; from 24 km away they fit."""
    height = cube["elevation"].values
    known = np.isfinite(height)
    dry = standard_dry_delay(height[known])
    here = delays_at(cube, DELAYS)[:, known]
    there = delays_at(cube, moved_delays(tmp_path))[:, known]
    assert (here < dry).mean() > 0.95
    assert (there > dry).mean() > 0.95
    assert all(np.corrcoef(d, height[known])[0, 1] > 0.3 for d in here)
    assert all(np.corrcoef(d, height[known])[0, 1] < -0.995 for d in there)


def test_where_the_delays_fit_is_found_without_being_told(cube):
    """Of all places in the files, the elevation of the scene is in one."""
    delays = open_delays(DELAYS)[3].load()
    x, y = np.meshgrid(cube["x"].values[::8], cube["y"].values[::8])
    lon, lat = map(
        np.array,
        rasterio.warp.transform("EPSG:32645", "EPSG:4326", x.ravel(), y.ravel()),
    )
    height = cube["elevation"].values[::8, ::8].ravel()
    known = np.isfinite(height)
    west, north = float(delays["x"][0]), float(delays["y"][0])
    found = {}
    for east in np.arange(0, float(delays["x"][-1]) - lon.max(), 0.004):
        for south in np.arange(0.002, lat.min() - float(delays["y"][-1]), 0.004):
            columns = np.rint((lon + east - west) / 0.00083333).astype(int)
            rows = np.rint((north - lat + south) / 0.00083333).astype(int)
            at = delays.values[rows[known], columns[known]]
            found[east, -south] = np.corrcoef(at, height[known])[0, 1]
    best = min(found, key=found.get)
    assert np.abs(np.subtract(best, OFFSET)).max() < 0.004
    elsewhere = [
        c for place, c in found.items() if np.abs(np.subtract(place, best)).max() > 0.03
    ]
    assert found[best] < -0.98 and min(elsewhere) > -0.9


@pytest.mark.filterwarnings("ignore:elevation is missing")
def test_rows(capsys):
    rows = main(["--quick"])
    value = {(r.method, r.metric): r.value for r in rows}
    raw = {m: v for (method, m), v in value.items() if method == "raw"}
    assert 6 < raw["to first date"] < 8
    for metric in ("to first date", "neighbours", "velocity"):
        change = value["origin's correction", metric] / raw[metric] - 1
        assert abs(change) < 0.005
    # As they lie the delays add scatter; moved they take some out of the pairs of the
    # first date, add to those of neighbours, and leave the velocity as it was.
    assert value["weather", "to first date"] > 1.15 * raw["to first date"]
    assert value["weather, moved", "to first date"] < 0.95 * raw["to first date"]
    assert value["weather, moved", "neighbours"] > 1.2 * raw["neighbours"]
    assert value["weather, moved", "velocity"] == pytest.approx(
        raw["velocity"], rel=0.02
    )
    assert abs(value["weather, moved", "correlation with elevation"]) < 0.15
    assert bhutan_gacos.__doc__ and "weather, moved" in capsys.readouterr().out
