"""Seeded GeoTIFFs of pairs, for the benchmarks of ingest and update."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from cube_denoise.interferogram import Asset, Interferogram

PLACE = Affine(80, 0, 500_000, 0, -80, 2_000_000)
SPAN = 3
"""Most dates between those of a pair."""


def write_pairs(
    folder: Path, count: int, size: int, *, coherence: bool = False
) -> list[Interferogram]:
    """Write pairs of near dates, by their later date, tiled and deflated, float32.

    The phase is turbulence of both dates (power law of exponent -8/3), 3 rad each, with
    noise of 0.2 rad and a lake without data.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    k[0, 0] = np.inf
    dates: list[np.ndarray] = []
    pairs: list[Interferogram] = []
    while len(pairs) < count:
        spectrum = np.fft.rfft2(random.standard_normal((size, size))) * k ** (-4 / 3)
        field = np.fft.irfft2(spectrum, (size, size))
        dates.append(3 * field / field.std())
        late = len(dates) - 1
        for early in range(max(late - SPAN, 0), late)[: count - len(pairs)]:
            phase = dates[late] - dates[early] + random.normal(0, 0.2, (size, size))
            top = size // 8 * (late % 5)
            phase[top : top + size // 6, 3 * size // 4 :] = np.nan
            layers = {"unwrapped_phase": phase}
            if coherence:
                layers["coherence"] = random.uniform(0.2, 0.9, (size, size))
            pairs.append(_pair(folder, early, late, layers))
    return pairs


def _pair(
    folder: Path, early: int, late: int, layers: dict[str, np.ndarray]
) -> Interferogram:
    assets = {}
    for role, values in layers.items():
        path = folder / f"{early:03d}-{late:03d}-{role}.tif"
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=values.shape[0],
            width=values.shape[1],
            count=1,
            dtype="float32",
            crs="EPSG:32613",
            transform=PLACE,
            nodata=np.nan,
            tiled=True,
            compress="deflate",
        ) as target:
            target.write(values.astype("float32"), 1)
        unit = "rad" if role == "unwrapped_phase" else "1"
        assets[role] = Asset(str(path), role, unit, None)
    begin = datetime(2015, 1, 1, 5, tzinfo=UTC)
    return Interferogram(
        id=f"{early:03d}-{late:03d}",
        reference_time=begin + timedelta(12 * early),
        secondary_time=begin + timedelta(12 * late),
        track="A005",
        wavelength=0.0555,
        perpendicular_baseline=10.0,
        crs="EPSG:32613",
        shape=(values.shape[0], values.shape[1]),
        transform=(PLACE.a, PLACE.b, PLACE.c, PLACE.d, PLACE.e, PLACE.f),
        phase_sign=1,
        incidence_angle=None,
        heading=None,
        assets=assets,
        version="2021-01-01T00:00:00Z",
    )


def moved(pairs: Sequence[Interferogram], place: str) -> list[Interferogram]:
    """The same pairs with their rasters, by name, in another place."""
    return [
        replace(
            pair,
            assets={
                role: replace(a, href=f"{place}/{Path(a.href).name}")
                for role, a in pair.assets.items()
            },
        )
        for pair in pairs
    ]
