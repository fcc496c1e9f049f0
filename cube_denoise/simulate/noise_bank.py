"""Real noise from a user's own stack, in place of simulated atmosphere."""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.conventions import PAIR, X, Y, phase_to_displacement
from cube_denoise.gaps import fill_gaps
from cube_denoise.grid import pixel_spacing
from cube_denoise.network import pair_indices
from cube_denoise.simulate.residual_fields import residual_fields
from cube_denoise.simulate.seeds import dates_of_split

KINDS = ("short-pairs", "residual")

MOST_MISSING = 0.5
"""Fields and crops with more than this part missing are not used (Popescu et al.)."""

TRIES = 50
"""Crops drawn before a bank is said to be too full of gaps."""


class RealNoise(NamedTuple):
    """A crop of real noise, turned and mirrored; maps have shape (rows, columns)."""

    displacement: np.ndarray
    """m, positive toward the satellite, NaN = no data, mean removed; (rows, columns),
    or (dates, rows, columns) of `NoiseBank.draw_series`. Float32."""
    elevation: np.ndarray
    """m, relative to its median, turned like the noise."""
    coherence: np.ndarray
    """Mean over pairs, 0..1, turned like the noise; NaN where there is none."""
    spacing: tuple[float, float]
    """Of the rows and of the columns, m."""
    dates: np.ndarray
    """datetime64[s]: of a pair the earlier and the later, else one for each field."""


@dataclass(frozen=True)
class NoiseBank:
    """Fields of real noise, all of one split of the dates.

    The dates of the stack, in order of time, are divided: the first 60 % are for
    training, the next 20 % for validation, the last 20 % for tests. A pair belongs to a
    split if both of its dates do; pairs across are not used. A stack that grows at its
    end never moves a date from training to the tests.

    Make one with `from_cube`. Everything is held in memory, 4 bytes for each pixel of
    each field: take a part of a large cube.
    """

    kind: str
    """Where the fields come from."""
    split: str | None
    """Split of the dates; None = all."""
    fields: np.ndarray
    """m, positive toward the satellite, float32, shape (fields, rows, columns), NaN =
    no data."""
    dates: np.ndarray
    """datetime64[s], shape (fields, 2) of pairs, (fields, 1) of residual fields."""
    elevation: np.ndarray
    """m, shape (rows, columns), without gaps."""
    coherence: np.ndarray
    """Mean over the pairs used, shape (rows, columns); NaN where there is none."""
    spacing: tuple[float, float]
    """Of rows and columns, m on the ground."""
    wavelength: float
    """m"""

    @classmethod
    def from_cube(
        cls,
        cube: xr.Dataset,
        *,
        kind: str = "short-pairs",
        split: str | None = "train",
        max_days: float = 24.0,
        seasonal: bool = False,
    ) -> "NoiseBank":
        """Take the noise out of a stack.

        Parameters
        ----------
        cube : xarray.Dataset
            ``unwrapped_phase`` (pair, y, x), rad, positive away; ``elevation`` (y, x),
            m, and ``coherence`` (pair, y, x) where there are; coordinates
            ``reference_time`` and ``secondary_time``; attribute ``wavelength``, m; a
            CRS.
        kind : {"short-pairs", "residual"}
            "short-pairs" takes the pairs of at most `max_days` as they are: what moved
            between their dates counts as noise. "residual" solves the pairs of the
            split for dates and takes a straight line in time out of each pixel
            (`residual_fields`): what did not move steadily counts as noise.
        split : {"train", "validation", "test"} or None
            Dates to use; None for all of them, to adapt a network to this stack.
        max_days : float
            Of "short-pairs".
        seasonal : bool
            Of "residual": take an annual cycle out as well.

        Returns
        -------
        NoiseBank

        Raises
        ------
        ValueError
            If an option or the cube is not as above, or fewer than two fields are left.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind=}: must be one of {', '.join(KINDS)}")
        wavelength = cube.attrs.get("wavelength")
        if wavelength is None or not wavelength > 0:
            raise ValueError(
                f"{wavelength=}: cube.attrs must give the wavelength in metres"
            )
        spacing = pixel_spacing(cube)
        early, late = cube["reference_time"].values, cube["secondary_time"].values
        first, second, times = pair_indices(early, late)
        mine = dates_of_split(times, split)
        inside = np.isin(times[first], mine) & np.isin(times[second], mine)
        # Acquisitions are some seconds off whole days.
        days = np.rint((times[second] - times[first]) / np.timedelta64(86400, "s"))
        if kind == "short-pairs":
            inside &= days <= max_days
        told = f"the {split} split" if split else "the stack"
        if not inside.any():
            limit = f" of at most {max_days:g} days" if kind == "short-pairs" else ""
            raise ValueError(
                f"no pair{limit} lies within {told}, {mine.size} of {times.size} dates"
            )
        part = cube.isel({PAIR: np.flatnonzero(inside)}).transpose(..., Y, X)
        if kind == "short-pairs":
            fields = _short_pairs(part, float(wavelength))
            dates = np.stack([times[first], times[second]], 1)[inside]
        else:
            fields, solved = residual_fields(part, seasonal=seasonal)
            dates = solved[:, None]
        full = np.isfinite(fields).mean((1, 2)) >= 1 - MOST_MISSING
        if full.sum() < 2:
            raise ValueError(
                f"{full.sum()} field(s) of {told} hold data in half of the area: two "
                "are needed"
            )
        return cls(
            kind,
            split,
            fields[full],
            dates[full],
            _elevation(part),
            _mean_coherence(part),
            spacing,
            float(wavelength),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the fields."""
        return self.fields.shape[1], self.fields.shape[2]

    def check_split(self, split: str) -> None:
        """Check that samples of a split may have this noise.

        Raises
        ------
        ValueError
            If the bank is of another split, or of all dates and the samples are not for
            training.
        """
        if self.split != split and not (self.split is None and split == "train"):
            raise ValueError(
                f"noise is of split {self.split}, the samples of {split=}: make the "
                "bank with the same split"
            )

    def draw(self, shape: tuple[int, int], generator: np.random.Generator) -> RealNoise:
        """Draw the noise of one pair.

        A field is cropped at random, turned by a multiple of 90 degrees, mirrored or
        not, and its sign flipped or not. Of residual fields it is the difference of two
        dates, later drawn minus earlier drawn.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns.
        generator : numpy.random.Generator
            Source of randomness.

        Returns
        -------
        RealNoise

        Raises
        ------
        ValueError
            If the scene is smaller than the crop, or too full of gaps.
        """
        if self.kind == "residual":
            two = self._cut(2, shape, generator)
            field = two.displacement[1] - two.displacement[0]
            return two._replace(displacement=_centred(field[None])[0])
        one = self._cut(1, shape, generator)
        return one._replace(displacement=one.displacement[0])

    def draw_series(
        self,
        dates: int,
        shape: tuple[int, int],
        generator: np.random.Generator,
        *,
        directed: bool = False,
    ) -> RealNoise:
        """Draw the noise of a series of dates: residual fields, permuted in time.

        One crop, turn and reflection holds for all dates and for the elevation. The
        sign is flipped date by date: what the straight line left of a true signal then
        does not add up over time.

        Parameters
        ----------
        dates : int
            How many; no field is used twice.
        shape : (int, int)
            Rows and columns.
        generator : numpy.random.Generator
            Source of randomness.
        directed : bool
            Turn by 180 degrees or not at all, and do not mirror: waves and streaks keep
            their direction.

        Returns
        -------
        RealNoise

        Raises
        ------
        ValueError
            If the bank holds pairs, or fewer dates; if the scene is smaller than the
            crop, or too full of gaps.
        """
        if self.kind != "residual":
            raise ValueError(f"kind={self.kind!r}: a series needs a bank of 'residual'")
        return self._cut(dates, shape, generator, directed=directed)

    def _cut(
        self,
        count: int,
        shape: tuple[int, int],
        rng: np.random.Generator,
        *,
        directed: bool = False,
    ) -> RealNoise:
        """Distinct fields in random order with one crop and orientation."""
        if not 1 <= count <= len(self.fields):
            raise ValueError(
                f"dates={count}: the bank has {len(self.fields)} fields"
                + (f" of the {self.split} split" if self.split else "")
            )
        for _ in range(TRIES):
            chosen = rng.choice(len(self.fields), count, replace=False)
            signs = rng.choice([-1.0, 1.0], (count, 1, 1)).astype("float32")
            turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
            if directed:
                turns, mirrored = turns // 2 * 2, False
            rows, columns = shape[::-1] if turns % 2 else shape
            if rows > self.shape[0] or columns > self.shape[1]:
                if max(shape) > max(self.shape) or min(shape) > min(self.shape):
                    raise ValueError(
                        f"{shape=} is larger than the scene the noise is taken from, "
                        f"{self.shape}"
                    )
                continue  # of an oblong scene only some turns fit
            top = int(rng.integers(self.shape[0] - rows + 1))
            left = int(rng.integers(self.shape[1] - columns + 1))
            here = slice(top, top + rows), slice(left, left + columns)
            cut = self.fields[(chosen, *here)]
            if np.isfinite(cut).mean((1, 2)).min() < 1 - MOST_MISSING:
                continue
            height = self.elevation[here]
            spacing = self.spacing[::-1] if turns % 2 else self.spacing
            return RealNoise(
                _oriented(_centred(cut * signs), turns, mirrored),
                _oriented(height - np.median(height), turns, mirrored),
                _oriented(self.coherence[here], turns, mirrored),
                spacing,
                self.dates[chosen].ravel(),
            )
        raise ValueError(
            f"{shape=}: {TRIES} crops drawn at random were more than half empty"
        )


def _short_pairs(cube: xr.Dataset, wavelength: float) -> np.ndarray:
    fields = np.empty(cube["unwrapped_phase"].shape, "float32")
    for k in range(len(fields)):
        phase = cube["unwrapped_phase"].isel({PAIR: k}).values
        fields[k] = phase_to_displacement(phase, wavelength)
    return fields


def _centred(fields: np.ndarray) -> np.ndarray:
    """Fields less the mean of their valid pixels."""
    return np.asarray(fields - np.nanmean(fields, (1, 2), keepdims=True))


def _oriented(array: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    turned = np.rot90(array, turns, (-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if mirrored else turned)


def _elevation(cube: xr.Dataset) -> np.ndarray:
    if "elevation" not in cube:
        warnings.warn(
            "cube has no elevation: its noise goes with flat terrain", stacklevel=3
        )
        return np.zeros((cube.sizes[Y], cube.sizes[X]), "float32")
    return fill_gaps(cube["elevation"].values)


def _mean_coherence(cube: xr.Dataset) -> np.ndarray:
    shape = cube.sizes[Y], cube.sizes[X]
    if "coherence" not in cube:
        return np.full(shape, np.nan, "float32")
    total, count = np.zeros(shape), np.zeros(shape)
    for k in range(cube.sizes[PAIR]):
        values = cube["coherence"].isel({PAIR: k}).values
        there = np.isfinite(values)
        total += np.where(there, values, 0)
        count += there
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype("float32")
