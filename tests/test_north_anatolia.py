"""Four LiCSBAS frames over the North Anatolian Fault (real), joined by one command."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from command_line import call, done, mistake
from dense_joining import Equation, covariance
from odc.geo.crs import CRS
from scipy.interpolate import RegularGridInterpolator

import cube_denoise as cd
from cube_denoise.joining.frames import read_frames
from cube_denoise.joining.ground_files import read_ground
from cube_denoise.joining.lattice import Lattice, summarise
from cube_denoise.joining.offsets import RAMP_STD, solve_offsets

FOLDER = Path(__file__).parents[2] / "shared/data/north-anatolia-velocity"
GNSS = f"east={FOLDER}/GNSS/interp_E.grd,north={FOLDER}/GNSS/interp_N.grd"

pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason=f"needs the data folder {FOLDER}"
)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the command prints, and where it has put the product and pictures."""
    folder = tmp_path_factory.mktemp("anatolia")
    options = ("--gnss", GNSS, "--gnss-unit", "mm/yr", "--order", "1")
    result = done("join", FOLDER, "-o", folder / "v", *options, "--plots", folder / "p")
    return result.stdout, folder


def test_misfits_and_steps_fall(told):
    text, folder = told
    numbers = r"([\d.-]+) -> +([\d.-]+)"
    found = np.array(re.findall(numbers, text), float)
    assert len(found) == 4 + 2  # frames, then seams
    before, after = np.abs(found.T)
    assert (after[:4] < before[:4]).all() and after[:4].max() < 5
    assert before[4:].min() > 4 and after[4:].max() < 0.5
    assert {p.name for p in (folder / "p").iterdir()} == {
        "velocity.png",
        "velocity_std.png",
        "steps.png",
    }


def gnss_at(name, lon, lat):
    file = xr.open_dataset(FOLDER / f"GNSS/interp_{name}.grd")
    axes = (file.lat.values, file.lon.values)
    return 1e-3 * RegularGridInterpolator(axes, file.z.values)((lat, lon))


def test_the_shear_is_in_the_east_component(told):
    product = cd.open_velocity(told[1] / "v").compute()
    east = product.velocity.sel(component="east")
    lat, lon = xr.broadcast(product.y, product.x)
    there = np.isfinite(east.values)
    radar = east.values[there].astype("float64")
    ground = gnss_at("E", lon.values[there], lat.values[there])
    assert np.corrcoef(radar, ground)[0, 1] > 0.85
    assert 0.9 < np.polyfit(ground, radar, 1)[0] < 1.1
    north = radar[lat.values[there] > 41.3].mean()
    south = radar[lat.values[there] < 40.4].mean()
    assert 0.015 < north - south < 0.025
    # What is stated of a pixel covers its scatter about GNSS, and is no guess.
    assert 0.8e-3 < float(product.velocity_std.sel(component="east").median()) < 4e-3


def squares():
    """Means of the frames on squares of 2 km, by pandas, from the rasters alone."""
    found = []
    for folder in sorted(FOLDER.glob("*_*_*")):
        maps = {}
        for name in ("vel", "vstd", "E", "N", "U", "mask"):
            with rasterio.open(folder / f"{name}.geo.tif") as raster:
                maps[name], transform = (
                    raster.read(1).astype("float64"),
                    raster.transform,
                )
        there = np.isfinite(sum(maps.values())) & (maps["mask"] > 0)
        rows, columns = np.nonzero(there)
        step = 2000 / 111_320
        table = pd.DataFrame(
            {
                "v": 1e-3 * maps["vel"][there],
                "n": np.maximum(1e-3 * maps["vstd"][there], 1e-4) ** 2,
                **{k: maps[k][there] for k in "ENU"},
                "i": np.floor((transform.f + (rows + 0.5) * transform.e) / step).astype(
                    int
                ),
                "j": np.floor(
                    (transform.c + (columns + 0.5) * transform.a) / step
                ).astype(int),
            }
        )
        found.append(table.groupby(["i", "j"]).mean())
    return found, step


@pytest.mark.slow
def test_offsets_equal_a_dense_solution():
    ground = read_ground(GNSS, unit="mm/yr")
    lattice = Lattice(CRS("EPSG:4326"))
    frames = read_frames([FOLDER])
    offsets = solve_offsets(
        [summarise(f, lattice) for f in frames], lattice, ground=ground, order=1
    )
    tables, step = squares()
    centres = [
        [(t.index.get_level_values(k) + 0.5).to_numpy().mean() * step for k in "ji"]
        for t in tables
    ]

    def basis(f, index):
        x = (index.get_level_values("j").to_numpy() + 0.5) * step
        y = (index.get_level_values("i").to_numpy() + 0.5) * step
        cx, cy = centres[f]
        kilometres = 111.32 * np.array([(x - cx) * np.cos(np.radians(cy)), y - cy])
        return np.array([1, *(kilometres / 100).mean(1)])

    ramps = np.zeros((8, 12))
    for f in range(4):  # what is expected of ramps
        for k in (1, 2):
            ramps[2 * f + k - 1, 3 * f + k] = 1 / RAMP_STD
    equations, rows, right, shared = [], [], [], {}
    for number, r in enumerate(offsets.rows):
        design, values = np.zeros((len(r.pairs), 12)), np.zeros(len(r.pairs))
        looks, noise = np.zeros((len(r.pairs), 3)), np.zeros((len(r.pairs), 4))
        for k, (a, b) in enumerate(r.pairs):
            if b < 0:
                i, j = (int(np.floor(v / step)) for v in r.where[::-1])
                near = pd.MultiIndex.from_product(
                    [range(i - 1, i + 2), range(j - 1, j + 2)], names=["i", "j"]
                )
                parts = [(a, 1, tables[a].index.intersection(near))]
            else:
                cell = [int(np.floor(v / step / 10)) for v in r.where[::-1]]
                if (a, b) not in shared:
                    shared[a, b] = tables[a].index.intersection(tables[b].index)
                both = shared[a, b]
                inside = (both.get_level_values(0) // 10 == cell[0]) & (
                    both.get_level_values(1) // 10 == cell[1]
                )
                parts = [(f, s, both[inside]) for f, s in ((a, 1), (b, -1))]
            for f, sign, index in parts:
                mean = tables[f].loc[index].mean()
                values[k] += sign * mean["v"]
                looks[k] += sign * mean[["E", "N", "U"]].to_numpy()
                design[k, 3 * f : 3 * f + 3] = sign * basis(f, index)
                noise[k, f] = sign * np.sqrt(mean["n"])
        lon, lat = r.where
        known = np.array([gnss_at("E", lon, lat), gnss_at("N", lon, lat), 0.0])
        std = np.array([1e-3, 1e-3, 3e-3])
        if r.pairs[0][1] >= 0:
            std = np.hypot(std, [5e-3, 5e-3, 1e-2])
        for k, (a, b) in enumerate(r.pairs):
            kind = "ties" if b < 0 else "overlaps"
            if b >= 0 and frames[a].track == frames[b].track:
                kind = "tracks"
            parts = {f: noise[k, f] for f in range(4) if noise[k, f]}
            equations.append(
                Equation(kind, number, r.where, parts, looks[k] * std, r.inflation)
            )
        rows.append(design)
        right.append(values - looks @ known)
    tracks = [f.track for f in frames]
    root = np.linalg.cholesky(
        covariance(equations, offsets.noise, tracks, degrees=True)
    )
    design, values = (np.linalg.solve(root, np.concatenate(v)) for v in (rows, right))
    expected = np.linalg.lstsq(
        np.concatenate([ramps, design]), np.concatenate([np.zeros(8), values])
    )[0]
    np.testing.assert_allclose(offsets.coefficients, expected, rtol=0, atol=1e-6)


def test_what_is_wrong_is_said(tmp_path):
    copy = tmp_path / "frames"
    shutil.copytree(FOLDER, copy, copy_function=shutil.copyfile)
    for folder in [copy, *copy.iterdir()]:
        folder.chmod(0o755)
    options = ("-o", tmp_path / "v", "--gnss", GNSS, "--gnss-unit", "mm/yr")
    assert "does not tell the unit" in mistake("join", copy, *options[:-2])
    frame = copy / "014A_04939_131313"
    for name in "EN":  # looks turned round
        with rasterio.open(frame / f"{name}.geo.tif") as raster:
            values, profile = raster.read(1), raster.profile
        with rasterio.open(frame / f"{name}.geo.tif", "w", **profile) as raster:
            raster.write(-values, 1)
    assert "014A_04939_131313" in mistake("join", copy, *options)
    assert "turned round" in mistake("join", copy, *options)
    (frame / "E.geo.tif").write_bytes((frame / "E.geo.tif").read_bytes()[:20_000])
    assert "E.geo.tif cannot be read" in mistake("join", copy, *options)
    (frame / "E.geo.tif").unlink()
    assert "lacks E.geo.tif" in mistake("join", copy, *options)
    assert not (tmp_path / "v").exists()


def test_one_folder_is_a_frame():
    """The folder itself, not the one that holds it."""
    (frame,) = read_frames([FOLDER / "014A_04939_131313"])
    assert frame.name == "014A_04939_131313" and frame.track == "A014"


def test_a_plate_that_the_ground_leaves_refuses_no_frame(tmp_path):
    """Anatolia goes west faster than North America turns: no look is turned round."""
    plate = ("--plate", "54.2,-98.8,0.63")
    told = done("join", FOLDER, "-o", tmp_path / "v", *plate).stdout
    assert "087A_04904_121313" in told


def test_what_cannot_be_is_said_before_frames_are_read(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "paper.pdf").write_text("")
    for out, words in (
        ("ftp://x/y", "must be a local path"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "other", "holds something else (paper.pdf)"),
    ):
        assert words in mistake("join", FOLDER, "-o", out)
        assert "step between frames" not in call("join", FOLDER, "-o", out).output
    new = ("-o", tmp_path / "v")
    assert "plate='nan,1,1'" in mistake("join", FOLDER, *new, "--plate", "nan,1,1")
    assert "larger than the area" in mistake("join", FOLDER, *new, "--resolution", 80)
    assert not (tmp_path / "v").exists()
