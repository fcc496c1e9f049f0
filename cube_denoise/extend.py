"""Bring displacement and velocity up to date from where the last inversion stood.

An inversion of a cube leaves its states at every `store.SERIES_DATES`-th date in the
variable ``inversion_state`` (`inversion.continuation`). The next one takes the last of
them that no new, replaced or withdrawn pair touches, reads the pairs after it alone,
and writes the dates after it. Dates before it change by no more than those that they
have pairs with: if one of these changed by more than `TOLERANCE`, or was linked or
ceased to be, the state before is taken, in the end none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr

from cube_denoise import store
from cube_denoise.blocks import BlockJob, Window
from cube_denoise.conventions import (
    CHECKPOINT,
    PAIR,
    TIME,
    VARIABLES,
    X,
    Y,
    phase_to_displacement,
)
from cube_denoise.inversion.continuation import (
    continuation,
    frontier_at,
    frontier_size,
    rows_of,
)
from cube_denoise.inversion_window import Settings, check_coherence
from cube_denoise.last_inversion import Stand, hindrance, pair_seconds
from cube_denoise.network import pair_indices
from cube_denoise.reference import read_window
from cube_denoise.series_sums import maps_of
from cube_denoise.state import pair_marks

Parts = Iterator[tuple[Window, Mapping[str, np.ndarray]]]

TOLERANCE = 1e-7
"""Change of a date, m, up to which older ones are not written anew."""
MOST_DRIFT = 5e-7
"""Sum of such changes, m, from which on all dates are."""
WORTH = 1.0
"""Most bytes that all states may take, over those of phase and coherence of all pairs:
beyond it they are not kept."""
LEAD = 12, 3
"""Dates, and so many more per date of the frontier, that a state should lie before the
first date touched: over these, changes of a few millimetres fell below `TOLERANCE` in
simulated networks of 2 to 10 nearest neighbours. A state nearer by is not tried."""


@dataclass(frozen=True)
class Extension:
    """Windows of an inversion that leaves states, and may begin at one."""

    first: np.ndarray
    second: np.ndarray
    constants: np.ndarray
    origin: int
    years: np.ndarray
    """Of all dates, from the first."""
    begins: tuple[int, ...]
    """Dates at which to begin, in the order to be tried; the last is 0, all dates."""
    rows: int
    """Numbers of a state."""
    variable: str
    settings: Settings
    wavelength: float

    @property
    def fresh(self) -> bool:
        """Whether all dates are inverted."""
        return self.begins[0] == 0

    @property
    def saves(self) -> np.ndarray:
        """Dates at which states are kept."""
        return np.arange(store.SERIES_DATES, self.years.size, store.SERIES_DATES)

    def lay_out(
        self,
        root: zarr.Group,
        cube: xr.Dataset,
        job: BlockJob,
        attributes: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Make room in a cube for what there is to write."""
        sizes = {**job.sizes, CHECKPOINT: self.saves.size, "state": self.rows}
        if self.fresh:
            store.declare(root, ("inversion_state", "inversion_drift"), sizes)
        else:
            names = ("displacement", "displacement_std", "inversion_state")
            store.lengthen(root, names, sizes, np.asarray(job.coords[TIME]))
            store.annotate(root, attributes)
            since = str(job.coords[TIME][self.begins[0]])[:10]
            told = {
                "residuals_of": f"all pairs, for dates from {since} on; older dates "
                "have the scale of the residuals of when they were last written"
            }
            store.annotate(root, {"displacement_std": told})
        common, marks = pair_marks(cube, self.variable)
        record = np.column_stack([pair_seconds(cube), marks, self.constants])
        store.remove(root, ["inverted_pairs"])
        store.write_layers(root, {"inverted_pairs": record})
        known = attributes["velocity"]["pair_state"]
        store.annotate(
            root, {"inverted_pairs": {"common": common, "pair_state": known}}
        )

    def __call__(self, cube: xr.Dataset, window: Window) -> Parts:
        """Compute what is to be written in one window."""
        for begin in self.begins:
            parts = self._from(begin, cube, window)
            if parts is not None:
                break
        else:
            raise AssertionError(self.begins)
        yield from parts

    def _from(
        self, begin: int, cube: xr.Dataset, window: Window
    ) -> list[tuple[Window, dict[str, np.ndarray]]] | None:
        """What there is to write if the work begins at a date; None if not valid."""
        from cube_denoise.inversion.incremental import resume

        step = store.SERIES_DATES
        later = self.saves[self.saves > begin]
        plan = continuation(
            self.first,
            self.second,
            self.years.size,
            self.origin,
            begin=begin,
            saves=later,
            rows=self.rows,
        )
        part = cube.isel({PAIR: _compact(plan.pairs)})
        phase = read_window(part, self.variable, window)
        shape = phase.shape[1:]
        coherence = None
        if "coherence" in cube:
            coherence = _flat(read_window(part, "coherence", window), "float32")
            check_coherence(coherence, window)
        state = None
        here = {d: window[d] for d in (Y, X)}
        if begin:
            kept = cube["inversion_state"].isel({CHECKPOINT: begin // step - 1, **here})
            state = _flat(kept.values, "float64")
        found = resume(
            _flat(phase, "float32"),
            plan,
            years=self.years[begin:],
            state=state,
            coherence=coherence,
            constants=self.constants[plan.pairs],
            weights=self.settings.weights,
        )
        # In place: clearing memory for more arrays of this size takes longer.
        metres = float(phase_to_displacement(1.0, self.wavelength))
        displacement = np.multiply(found.phase, metres, out=found.phase)
        deviation = np.multiply(found.phase_std, abs(metres), out=found.phase_std)
        displacement = displacement.reshape(-1, *shape)
        maps = maps_of(found.sums, self.years, self.settings, self.wavelength)
        maps = {name: values.reshape(shape) for name, values in maps.items()}
        drift = np.zeros(shape)
        if begin:
            end = frontier_at(self.first, self.second, self.origin, begin)
            stored = cube["displacement"].isel({TIME: slice(begin, end), **here}).values
            change = _change(displacement[: end - begin], stored)
            drift = change + cube["inversion_drift"].isel(here).values
            if change.max(initial=0) > TOLERANCE or drift.max() > MOST_DRIFT:
                return None
            before = cube["gap_count"].isel(here).values
            if self.origin < begin and ((before < 0) != (maps["gap_count"] < 0)).any():
                return None  # The reference date gains or loses its data.
        series = {
            "displacement": displacement,
            "displacement_std": deviation.reshape(-1, *shape),
        }
        maps["inversion_drift"] = drift
        states = found.states.reshape(*found.states.shape[:2], *shape)
        given = [({TIME: slice(begin, self.years.size), **here}, series)]
        if later.size:
            checkpoints = slice(begin // step, self.saves.size)
            given.append(
                ({CHECKPOINT: checkpoints, **here}, {"inversion_state": states})
            )
        given.append((here, maps))
        return [
            (where, {n: v.astype(VARIABLES[n].dtype, copy=False) for n, v in p.items()})
            for where, p in given
        ]


def plan_extension(
    cube: xr.Dataset, job: BlockJob, asked: Mapping[str, Any], stand: Stand | None
) -> tuple[Extension | None, str | None]:
    """How an inversion leaves states, and from which of `stand` on it can go.

    Parameters
    ----------
    cube : xarray.Dataset
    job : blocks.BlockJob
        The inversion in full (`invert.plan_inversion`).
    asked : mapping
        Its options (`steps.inversion_options`).
    stand : Stand, optional
        From `last_stand`; `job` then has its reference and constants.

    Returns
    -------
    extension : Extension or None
        None where no states are kept and the inversion is done in full.
    note : str or None
        Why, where a user would want to know.
    """
    size = job.sizes[TIME]
    if size <= store.SERIES_DATES:
        return None, None
    if (name := hindrance(asked)) is not None:
        return None, f"updates invert in full with {name}"
    told: dict[str, Any] = getattr(job.compute, "keywords", {})
    if (device := told["device"]) != "cpu":
        return None, f"{device=} keeps no states: the next update inverts in full"
    if told["stated"] is not None:
        return None, None  # such corrections change all pairs anew
    first, second, times = pair_indices(
        cube["reference_time"].values, cube["secondary_time"].values
    )
    origin = int(np.searchsorted(times, np.datetime64(_origin_of(job), "s")))
    rows, count = states_of(first, second, size, origin)
    if not count:
        return None, (
            f"updates invert in full: a state of the inversion would take {rows} "
            f"numbers a pixel, all pairs take {first.size}, since pairs span many dates"
        )
    begins = [0]
    there = cube.sizes.get("state", 0)
    if stand is not None and rows <= there and stand.origin == times[origin]:
        rows = there
        begins = [*_begins(first, second, times, origin, stand), 0]
    return (
        Extension(
            first=first,
            second=second,
            constants=told["constants"],
            origin=origin,
            years=told["design"].years,
            begins=tuple(begins),
            rows=rows,
            variable=told["variable"],
            settings=told["settings"],
            wavelength=told["wavelength"],
        ),
        None,
    )


def states_of(
    first: np.ndarray, second: np.ndarray, size: int, origin: int
) -> tuple[int, int]:
    """Numbers (float64) of a pixel's state, and how many states are kept: 0 = none.

    Parameters are those of `inversion.continuation.continuation`.
    """
    saves = range(store.SERIES_DATES, size, store.SERIES_DATES)
    sizes = [rows_of(frontier_size(first, second, origin, s)) for s in saves]
    rows = max(sizes, default=0)
    # Phase and coherence of a pair take the bytes of one number of a state.
    return rows, len(saves) if rows * len(saves) <= WORTH * first.size else 0


def _begins(
    first: np.ndarray,
    second: np.ndarray,
    times: np.ndarray,
    origin: int,
    stand: Stand,
) -> list[int]:
    """Dates of the states that hold, the latest first."""
    touched = int(np.searchsorted(times, stand.touched))
    found = []
    for date in range(store.SERIES_DATES, times.size, store.SERIES_DATES):
        end = frontier_at(first, second, origin, date)
        if (
            date + LEAD[0] + LEAD[1] * (end - date) <= touched
            and date < stand.times.size
            and np.array_equal(times[:end], stand.times[:end])
        ):
            found.append(date)
    return found[::-1]


def _origin_of(job: BlockJob) -> str:
    return str(job.attributes["velocity"]["reference_time"])


def _change(new: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Largest change of a pixel over dates, m, beyond the last digit of float32."""
    if not new.size:
        return np.zeros(new.shape[1:])
    change = np.abs(new.astype("float64") - stored)
    digit = np.spacing(np.abs(np.nan_to_num(stored)).astype("float32"))
    change = np.where(change <= digit, 0.0, change)
    change = np.where(np.isnan(new) & np.isnan(stored), 0.0, change)
    return np.nan_to_num(change, nan=np.inf).max(0)


def _compact(numbers: np.ndarray) -> Any:
    """Numbers as a slice where they are one."""
    if numbers.size and numbers[-1] - numbers[0] + 1 == numbers.size:
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers


def _flat(values: np.ndarray, dtype: str) -> np.ndarray:
    return np.require(values.reshape(values.shape[0], -1), dtype, ["C", "W"])
