"""Arrays of one's own through the general door, `ingest_dataset`: the files of Etna."""

from datetime import date
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import cube_denoise as cd
from cube_denoise.ingest import ingest_dataset

ETNA = Path(__file__).parents[2] / "shared/data/etna-envisat"
pytestmark = pytest.mark.skipif(
    not ETNA.is_dir(), reason=f"real data not found: {ETNA}"
)
WAVELENGTH = 299_792_458 / 5.331e9
"""ENVISAT, m."""


def read(name: str) -> xr.Dataset:
    """Pairs of a file: mm of range, earlier minus later; places only nominal, 80 m."""
    with h5py.File(ETNA / name) as file:
        values, design = file["igram"][:], file["Jmat"][:]
        days = [date.fromordinal(int(d)) for d in file["dates"][:]]
        depth = file["bperp"][:]
    times = np.array(days, "datetime64[ns]")
    away = -1e-3 * values.astype("float64")  # later minus earlier, m
    step = np.arange(values.shape[-1])
    dataset = xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), 4 * np.pi / WAVELENGTH * away)},
        {
            "reference_time": ("pair", times[(design == 1).argmax(1)]),
            "secondary_time": ("pair", times[(design == -1).argmax(1)]),
            "perpendicular_baseline": ("pair", depth),
            "y": 4_150_000.0 - 80 * step,
            "x": 500_000.0 + 80 * step,
        },
        {"wavelength": WAVELENGTH, "track": "D222"},
    )
    return dataset.odc.assign_crs("EPSG:32633")


def test_pairs_and_then_the_later_ones(tmp_path: Path) -> None:
    url = tmp_path / "cube"
    first = ingest_dataset(read("Etna_sample.h5"), url, chunk=16, shard=32)
    later = ingest_dataset(read("Etna_sample_new.h5"), url)
    assert (first.added, later.added, later.present) == (214, 8, 0)
    cube = cd.open_cube(url).load()
    with h5py.File(ETNA / "Etna_sample.h5") as file:
        values, design, ordinals = file["igram"][:], file["Jmat"][:], file["dates"][:]
    for k in (0, 57, 213):
        there, back = (
            np.datetime64(
                date.fromordinal(int(ordinals[np.flatnonzero(design[k] == s)[0]]))
            )
            for s in (1, -1)
        )
        assert there < back
        pair = cube.sel(
            pair=(cube.reference_time == there) & (cube.secondary_time == back)
        )
        range_grown = -values[k] * 1e-3
        got = pair.unwrapped_phase.values[0] * WAVELENGTH / (4 * np.pi)
        np.testing.assert_allclose(got, range_grown, rtol=1e-5, atol=1e-9)
    assert len(np.unique([cube.reference_time, cube.secondary_time])) == 63


def test_another_unit_than_radians_is_refused(tmp_path: Path) -> None:
    dataset = read("Etna_sample_new.h5")
    dataset["unwrapped_phase"].attrs["units"] = "mm"
    with pytest.raises(ValueError, match="in units='mm': must be in 'rad'"):
        ingest_dataset(dataset, tmp_path / "cube")
    assert not (tmp_path / "cube").exists()
