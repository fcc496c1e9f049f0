"""The best linear filter of one pair, for simulated pairs whose truth is known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import scipy.fft
import xarray as xr

from cube_denoise.blocks import Window
from cube_denoise.conventions import PAIR, TIME, X, Y, displacement_to_phase, pair_label
from cube_denoise.corrections.correction import Correction, Plan, Run, read
from cube_denoise.gaps import fill_gaps

NEEDED = ("displacement", "delay")


@dataclass(frozen=True, kw_only=True)
class Wiener(Correction):
    r"""Filter every pair with the true spectra of its signal and of its noise.

    .. math:: H(f) = \frac{S_d(f)}{S_d(f) + S_n(f)}

    with the radially averaged periodograms of the true deformation and of the true
    noise of that pair: the differential delay and white noise of the variance of what
    is left of the phase without both. The transform is the cosine transform, that of
    the scene mirrored at its edges, so nothing wraps around. Gaps are filled
    smoothly first, and the mean of the pair is kept as it is.

    An oracle for benchmarks, not for data: it bounds what a linear, isotropic,
    stationary filter of one pair can do. What uses several pairs, the elevation or the
    shapes of sources may be better. The whole pair is transformed for every window,
    and must fit into memory.

    Parameters
    ----------
    truth : xarray.Dataset, str or pathlib.Path
        ``displacement`` and ``delay`` (time, y, x), m, on the grid of the cube, as
        ``cube-denoise simulate`` writes (plain Zarr) or `simulate.simulate_scene`
        returns.
    """

    name: ClassVar[str] = "wiener"
    truth: "xr.Dataset | str | Path"

    @property
    def label(self) -> dict[str, str]:
        """See `Correction.label`; a truth in memory has no name."""
        at = "in memory" if isinstance(self.truth, xr.Dataset) else str(self.truth)
        return {"method": self.name, "method_options": json.dumps({"truth": at})}

    def again(self, known: Mapping[str, Any]) -> Self | None:
        """See `Correction.again`; a truth in memory may be another one each time."""
        return None if isinstance(self.truth, xr.Dataset) else super().again(known)

    def caution(self) -> list[str]:
        """That no one has this filter for data."""
        return ["the Wiener filter knows the truth: a bound, not a correction of data"]

    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """See `Correction.plan`."""
        truth = _opened(self.truth)
        _check(truth, cube)
        gains = run(partial(_gain, cube, truth=truth), pairs)
        found = dict(zip(pairs, gains, strict=True))
        return Plan(
            partial(_apply, gains=found),
            frozenset(k for k, gain in found.items() if gain.size == 0),
        )


def _opened(truth: "xr.Dataset | str | Path") -> xr.Dataset:
    if isinstance(truth, xr.Dataset):
        return truth
    try:
        return xr.open_zarr(truth)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"truth={str(truth)!r} cannot be read: it must be plain Zarr as written by "
            f"cube-denoise simulate ({error})"
        ) from None


def _check(truth: xr.Dataset, cube: xr.Dataset) -> None:
    missing = [n for n in NEEDED if n not in truth]
    if missing:
        raise ValueError(
            f"truth has the variables {sorted(map(str, truth.data_vars))} and must "
            f"have {missing}"
        )
    for dim in (Y, X):
        if truth.sizes[dim] != cube.sizes[dim] or (
            dim in truth.coords
            and dim in cube.coords
            and not np.allclose(truth[dim], cube[dim], rtol=0, atol=1e-6)
        ):
            raise ValueError(
                f"truth and cube differ along {dim}: truth must be on the grid of the "
                f"cube, {cube.sizes[dim]} pixels"
            )
    known = truth[TIME].values.astype("datetime64[s]")
    for name in ("reference_time", "secondary_time"):
        absent = np.setdiff1d(cube[name].values.astype("datetime64[s]"), known)
        if absent.size:
            raise ValueError(f"truth lacks the dates {', '.join(map(str, absent))}")


def _gain(cube: xr.Dataset, pair: int, *, truth: xr.Dataset) -> np.ndarray:
    """H at whole radial frequencies (`_radius`); empty for a pair without data."""
    phase = read(cube, "unwrapped_phase", _whole(cube, pair))[0]
    valid = np.isfinite(phase)
    if not valid.any():
        return np.empty(0)
    known = truth[TIME].values.astype("datetime64[s]")
    first, second = (
        int(np.flatnonzero(known == cube[n].values[pair].astype("datetime64[s]"))[0])
        for n in ("reference_time", "secondary_time")
    )
    deformation, delay = (
        truth[n].isel({TIME: [first, second]}).transpose(TIME, Y, X).values
        for n in NEEDED
    )
    wavelength = cube.attrs["wavelength"]
    signal, noise = (
        displacement_to_phase(sign * (v[1].astype("f8") - v[0]), wavelength)
        for sign, v in ((1, deformation), (-1, delay))
    )
    for name, values in (("displacement", signal), ("delay", noise)):
        if not np.isfinite(values).all():
            raise ValueError(
                f"truth has no {name} at some pixels of {pair_label(cube, pair)}: it "
                "must be known everywhere"
            )
    white = float((phase - signal - noise)[valid].var())
    radius = _radius(signal.shape)
    power = [
        np.bincount(radius.ravel(), (scipy.fft.dctn(v, norm="ortho") ** 2).ravel())
        for v in (signal, noise)
    ]
    count = np.bincount(radius.ravel())
    # Of the orthonormal transform, white noise has its variance at every frequency.
    total = power[0] + power[1] + count * white
    gain = np.divide(power[0], total, out=np.zeros(total.size), where=total > 0)
    gain[0] = 1.0
    return np.asarray(gain)


def _radius(shape: tuple[int, int]) -> np.ndarray:
    """Radial frequency of every coefficient, in cycles per twice the longer side.

    Rounded up, so that only the mean has radius 0.
    """
    longest = max(shape)
    y, x = (np.arange(n) * (longest / n) for n in shape)
    return np.ceil(np.hypot(y[:, None], x) - 1e-9).astype(int)


def _whole(cube: xr.Dataset, pair: int) -> dict[str, slice]:
    return {
        PAIR: slice(pair, pair + 1),
        Y: slice(0, cube.sizes[Y]),
        X: slice(0, cube.sizes[X]),
    }


def _apply(
    cube: xr.Dataset, window: Window, *, gains: dict[int, np.ndarray]
) -> np.ndarray:
    pair = window[PAIR].start
    phase = read(cube, "unwrapped_phase", _whole(cube, pair))[0]
    filled = fill_gaps(phase).astype("float64")
    spectrum = scipy.fft.dctn(filled, norm="ortho") * gains[pair][_radius(phase.shape)]
    filtered = scipy.fft.idctn(spectrum, norm="ortho")
    filtered[~np.isfinite(phase)] = np.nan
    return filtered[None, window[Y], window[X]].astype("float32")
