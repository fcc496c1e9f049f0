"""Where pairs come from, rasters or arrays: their values on blocks of a cube's grid."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cube_denoise import store
from cube_denoise.blocks import Window, spans, windows
from cube_denoise.conventions import PAIR, VARIABLES, X, Y, los_unit_vector
from cube_denoise.interferogram import MASKS, Interferogram
from cube_denoise.normalise import five_numbers, sample_stride
from cube_denoise.record_reader import RecordReader

LOOK_VECTOR = ("los_east", "los_north", "los_up")
"""Roles, and layers of the cube: the unit vector from the ground to the satellite."""
LOOK_HORIZONTAL = LOOK_VECTOR[:2]
"""Roles of the same without what follows from them: satellites are above."""
LOOK_ANGLES = ("look_elevation", "look_orientation")
"""Roles of the same as angles."""
LOOKS = (LOOK_VECTOR, LOOK_HORIZONTAL, LOOK_ANGLES)


@dataclass(frozen=True)
class RasterPairs:
    """Pairs as rasters on grids of their own."""

    grid: GeoBox
    block: int
    records: tuple[Interferogram, ...]

    def only(self, k: int) -> "RasterPairs":
        """Record `k` alone: what a worker needs to read it."""
        return replace(self, records=(self.records[k],))

    def without_pairs(self) -> "RasterPairs":
        """Return the records that static layers can come from."""
        able = {r.id for r in (*self._elevation(), *self._look())}
        return replace(self, records=tuple(r for r in self.records if r.id in able))

    def pair(
        self, k: int, shape: tuple[int, int]
    ) -> Iterator[tuple[dict[str, slice], np.ndarray, np.ndarray | None]]:
        """Window, phase and coherence, if it has one, of every block of record `k`."""
        record = self.records[k]
        roles = ("unwrapped_phase", "coherence", *MASKS)
        with self._open(record, roles) as read:
            for window in _blocks(shape, self.block):
                phase = read("unwrapped_phase", window)
                for role in MASKS:
                    if role in record.assets:
                        phase[~(read(role, window) > 0)] = np.nan
                if record.phase_sign < 0:
                    np.negative(phase, out=phase)
                if "coherence" not in record.assets:
                    yield window, phase, None
                    continue
                coherence = read("coherence", window)
                highest = np.nanmax(coherence, initial=0)
                lowest = np.nanmin(coherence, initial=0)
                if highest > 1.001 or lowest < -0.001:
                    raise store.SkipTask(
                        f"coherence from {lowest:g} to {highest:g}: must be 0 to 1"
                    )
                yield window, phase, coherence

    def static_layers(self) -> list[str]:
        """Names of the static layers that the records can give."""
        names = list(LOOK_VECTOR) if self._look() else []
        return names + (["elevation"] if self._elevation() else [])

    def _look(self) -> list[Interferogram]:
        return [
            r
            for r in self.records
            if any(set(names) <= set(r.assets) for names in LOOKS)
            or (r.incidence_angle is not None and r.heading is not None)
        ]

    def _elevation(self) -> list[Interferogram]:
        return [r for r in self.records if "elevation" in r.assets]

    def static(
        self, shape: tuple[int, int]
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        """Elevation and look vectors of the first record that can give them."""
        if self._elevation():
            yield from _first_readable(self._elevation(), shape, self._read_elevation)
        if self._look():
            yield from _first_readable(self._look(), shape, self._read_look)

    def _read_elevation(
        self, record: Interferogram, shape: tuple[int, int]
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        with self._open(record, ("elevation",)) as read:
            for window in _blocks(shape, self.block):
                yield window, {"elevation": read("elevation", window)}

    def _read_look(
        self, record: Interferogram, shape: tuple[int, int]
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        names = next((n for n in LOOKS if set(n) <= set(record.assets)), ())
        if not names:
            assert record.incidence_angle is not None
            assert record.heading is not None
            los = los_unit_vector(record.incidence_angle, record.heading)
            for window in _blocks(shape, self.block):
                lengths = [window[d].stop - window[d].start for d in (Y, X)]
                yield (
                    window,
                    {
                        name: np.full(lengths, component, "float32")
                        for name, component in zip(LOOK_VECTOR, los, strict=True)
                    },
                )
            return
        with self._open(record, names) as read:
            for window in _blocks(shape, self.block):
                if names == LOOK_VECTOR:
                    yield window, {name: read(name, window) for name in names}
                    continue
                if names == LOOK_HORIZONTAL:
                    east, north = (read(name, window) for name in names)
                    above = np.sqrt(1 - east**2 - north**2)
                    yield (
                        window,
                        dict(zip(LOOK_VECTOR, (east, north, above), strict=True)),
                    )
                    continue
                up, around = (read(name, window) for name in names)
                yield (
                    window,
                    {
                        "los_east": np.cos(up) * np.cos(around),
                        "los_north": np.cos(up) * np.sin(around),
                        "los_up": np.sin(up),
                    },
                )

    def _open(self, record: Interferogram, roles: Sequence[str]) -> RecordReader:
        return RecordReader(record, roles, self.grid)


@dataclass(frozen=True)
class ArrayPairs:
    """Pairs as arrays on the cube's grid."""

    dataset: xr.Dataset
    block: int

    def only(self, k: int) -> "ArrayPairs":
        """Pair `k` alone, without static layers: what a worker needs to read it."""
        names = [n for n in ("unwrapped_phase", "coherence") if n in self.dataset]
        return replace(self, dataset=self.dataset[names].isel({PAIR: [k]}))

    def without_pairs(self) -> "ArrayPairs":
        """Return the static layers alone."""
        return replace(self, dataset=self.dataset[self.static_layers()])

    def pair(
        self, k: int, shape: tuple[int, int]
    ) -> Iterator[tuple[dict[str, slice], np.ndarray, np.ndarray | None]]:
        """Window, phase and coherence, if there is one, of every block of pair `k`."""
        for window in _blocks(shape, self.block):
            part = self.dataset.isel({PAIR: k, **window}).transpose(..., Y, X)
            phase = part["unwrapped_phase"].values.astype("float32")
            coherence = (
                part["coherence"].values.astype("float32")
                if "coherence" in part
                else None
            )
            yield window, phase, coherence

    def static_layers(self) -> list[str]:
        """Names of the static layers that the dataset has."""
        names = ("elevation", "los_east", "los_north", "los_up")
        return [n for n in names if n in self.dataset]

    def static(
        self, shape: tuple[int, int]
    ) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        """Static layers of the dataset, block by block."""
        for window in _blocks(shape, self.block):
            part = self.dataset.isel(window).transpose(..., Y, X)
            yield (
                window,
                {
                    n: part[n].values.astype(VARIABLES[n].dtype)
                    for n in self.static_layers()
                },
            )


PairSource: TypeAlias = RasterPairs | ArrayPairs
"""What `ingest` reads pairs and static layers from."""


class ReadTask(NamedTuple):
    """Read one pair, or the static layers; it brings no more than that."""

    place: int | None
    """Of the pair, in the cube; None for the static layers."""
    source: PairSource
    """Of that pair alone, or of the static layers."""


def read_tasks(source: PairSource, pairs: range, *, static: bool) -> list[ReadTask]:
    """Tasks that read the pairs of `source` to their places, then the static layers."""
    tasks = [ReadTask(place, source.only(k)) for k, place in enumerate(pairs)]
    return tasks + ([ReadTask(None, source.without_pairs())] if static else [])


def read_task(
    cube: xr.Dataset, task: ReadTask
) -> Iterator[tuple[Window, Mapping[str, np.ndarray]]]:
    """Read the blocks of one pair, then its summary; or the static layers."""
    shape = (cube.sizes[Y], cube.sizes[X])
    if task.place is None:
        yield from task.source.static(shape)
        return
    pair = {PAIR: slice(task.place, task.place + 1)}
    stride = sample_stride(shape)
    sample: list[np.ndarray] = []
    valid = 0
    for window, phase, coherence in task.source.pair(0, shape):
        valid += int(np.isfinite(phase).sum())
        offsets = [-window[d].start % stride for d in (Y, X)]
        sample.append(phase[offsets[0] :: stride, offsets[1] :: stride].ravel())
        layers = {"unwrapped_phase": phase[None]}
        if coherence is not None:
            layers["coherence"] = coherence[None]
        yield {**pair, **window}, layers
    if not valid:
        raise store.SkipTask("no valid pixel on the grid of the cube")
    yield (
        pair,
        {
            "phase_quantiles": five_numbers(
                np.concatenate(sample) if len(sample) > 1 else sample[0]
            )[None],
            "valid_fraction": np.array([valid / (shape[0] * shape[1])], "float32"),
        },
    )


def _blocks(shape: tuple[int, int], size: int) -> tuple[dict[str, slice], ...]:
    return windows(y=spans(shape[0], size), x=spans(shape[1], size))


def _first_readable(
    records: Sequence[Interferogram],
    shape: tuple[int, int],
    read: Callable[..., Iterator[tuple[Window, dict[str, np.ndarray]]]],
) -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
    """Whole layers of the first record that gives them; a later one starts over."""
    for record in records:
        try:
            yield from read(record, shape)
            return
        except store.SkipTask as reason:
            failure = reason
    raise failure
