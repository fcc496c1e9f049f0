"""What a step would cost: tasks, bytes, memory and time, from metadata alone.

Counts come from the code that plans the step, so they are what it does. Bytes written
are exact before compression; memory, stored size and time are estimates.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

import xarray as xr

from cube_denoise import store
from cube_denoise.block_cost import (
    ITEM,
    block_memory,
    bytes_of,
    date_count,
    grown,
    inputs_of,
    network_side,
    overlap,
    projection_memory,
    radius_of,
    sides_of,
    stack_network_cost,
    tile_of,
)
from cube_denoise.calibration import (
    Rate,
    codec_speed,
    correction_rate,
    inversion_rate,
)
from cube_denoise.cluster import GPU, cores
from cube_denoise.conventions import CORRECTION_TIME, PAIR, TIME, X, Y
from cube_denoise.correct import correction_cuts
from cube_denoise.correction_errors import STATED
from cube_denoise.corrections import Correction
from cube_denoise.corrections.network import NetworkCorrection
from cube_denoise.extend import states_of
from cube_denoise.grid import grid_of
from cube_denoise.ingest import ReadingPlan
from cube_denoise.interferogram import MASKS
from cube_denoise.inversion_window import OUTPUTS, Settings
from cube_denoise.invert import inversion_block, inversion_cuts, temporary_memory
from cube_denoise.last_inversion import hindrance
from cube_denoise.network import Network, pair_indices

COMPRESSION = 0.8
"""Stored bytes per byte: unwrapped phase and coherence of Mexico City give 0.73 to 0.80
with the cube's codec; noise, which no codec shrinks, 0.9."""
TASK_SECONDS, STEP_SECONDS = 0.03, 0.5
"""Opening the cube in every task, and commits of every step, on a local disk."""
SCAN = 5e8
"""Speed of looking for a reference area, beside decoding, bytes/s."""
READING_COPIES = 8
"""Arrays of a block that an ingest holds at once: rasters, warped, signed, encoded."""


ROLES_OF_PAIR = ("unwrapped_phase", "coherence", *MASKS)
WHOLE_SCENE = ("wiener",)
"""Corrections that cannot be tried on a corner of the scene."""


@dataclass(frozen=True)
class StepEstimate:
    """What one step of a job would do and cost."""

    step: str
    """"ingest", "correct" or "invert"."""
    method: str = ""
    pairs: int = 0
    """Pairs it works on."""
    done: int = 0
    """Pairs it leaves alone because that is done."""
    tasks: int = 0
    """Blocks; pairs (and one for static layers) of an ingest."""
    looks: int = 0
    """Tasks before these, which look through whole pairs."""
    bytes_read: int = 0
    """Before compression; of rasters for an ingest."""
    bytes_written: int = 0
    """What the tasks write, before compression."""
    memory_per_task: int = 0
    """Bytes, beside what a process holds anyway."""
    core_seconds: float = 0.0
    """Of one core of this machine, for what workers share."""
    serial_seconds: float = 0.0
    """For what they do not share."""
    notes: tuple[str, ...] = ()

    @property
    def bytes_stored(self) -> int:
        """Bytes on disk, at the typical `COMPRESSION`."""
        return round(self.bytes_written * COMPRESSION)

    def seconds(self, workers: int) -> float:
        """Time with so many workers, which share the cores of this machine."""
        at_once = max(1, min(workers, cores(), self.tasks + self.looks))
        return self.serial_seconds + self.core_seconds / at_once


def total(steps: Iterable[StepEstimate]) -> StepEstimate:
    """Sum of steps; the memory is that of the largest task."""
    steps = list(steps)
    counts = (
        *("tasks", "looks", "bytes_read", "bytes_written"),
        *("core_seconds", "serial_seconds"),
    )
    return StepEstimate(
        step="total",
        memory_per_task=max((s.memory_per_task for s in steps), default=0),
        **{name: sum(getattr(s, name) for s in steps) for name in counts},
    )


@dataclass
class Rates:
    """Rates of this machine, measured when first asked for.

    Stacks of as many pairs share them, so many frames cost no more than one.
    """

    known: dict[tuple[str, ...], Rate] = field(default_factory=dict)

    def correction(self, cube: xr.Dataset, correction: Correction) -> Rate:
        """See `calibration.correction_rate`."""
        pairs = cube.sizes[PAIR] if correction.whole_stack else 0
        key = (*correction.label.values(), str(pairs))
        if key not in self.known:
            self.known[key] = correction_rate(cube, correction)
        return self.known[key]

    def inversion(self, cube: xr.Dataset, settings: Settings, variable: str) -> Rate:
        """See `calibration.inversion_rate`."""
        key = (*asdict(settings).values(), variable, str(cube.sizes[PAIR]))
        if key not in self.known:
            self.known[key] = inversion_rate(cube, settings, variable)
        return self.known[key]


def estimate_ingest(cube: xr.Dataset, plan: ReadingPlan, asked: int) -> StepEstimate:
    """Cost of reading pairs into a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        As it is, or `empty_cube`.
    plan : ingest.ReadingPlan
        What is read.
    asked : int
        Pairs that were asked for.
    """
    records = plan.source.records
    grid = grid_of(cube.attrs)
    count, pixels = len(records), cube.sizes[Y] * cube.sizes[X]
    places = Counter(
        (r.crs, r.shape, r.transform, sum(role in r.assets for role in ROLES_OF_PAIR))
        for r in records
    )
    seen = {place: overlap(*place[:3], grid) for place in places}
    read = sum(ITEM * seen[p] * p[3] * many for p, many in places.items())
    static = {role for r in records for role in r.assets} - set(ROLES_OF_PAIR)
    if plan.layers:
        read += ITEM * next(iter(seen.values())) * len(static)
    summary = sum(bytes_of(n, {PAIR: 1}) for n in ("phase_quantiles", "valid_fraction"))
    written = count * (2 * ITEM * pixels + summary) + len(plan.layers) * ITEM * pixels
    tasks = count + bool(plan.layers)
    side = plan.source.block
    block = min(side, cube.sizes[Y]) * min(side, cube.sizes[X])
    speed = codec_speed()
    notes = []
    if records:
        notes.append("rasters taken as float32; time without that of the network")
    if plan.replaced or plan.withdrawn:
        notes.append(
            f"{len(plan.replaced)} pairs replaced, {len(plan.withdrawn)} withdrawn: "
            "pairs that change place are copied beside this"
        )
    return StepEstimate(
        step="ingest",
        pairs=count,
        done=asked - count,
        tasks=tasks,
        bytes_read=round(read),
        bytes_written=written,
        memory_per_task=READING_COPIES * ITEM * block if tasks else 0,
        core_seconds=written / speed.raster
        + written / speed.encode
        + tasks * TASK_SECONDS,
        serial_seconds=STEP_SECONDS if tasks else 0.0,
        notes=tuple(notes),
    )


def estimate_correction(
    cube: xr.Dataset, correction: Correction, pairs: Sequence[int], rates: Rates
) -> StepEstimate:
    """Cost of correcting pairs of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        As it is, or would be (`cube_after`).
    correction : corrections.Correction
        What to do.
    pairs : sequence of int
        Positions of the pairs to correct (`state.pairs_to_correct`).
    rates : Rates
        Of this machine.

    Raises
    ------
    ValueError
        As for `correct.correct`, as far as that shows without data.
    """
    method = correction.label["method"]
    count = cube.sizes.get(PAIR, 0)
    if count and not pairs:
        return StepEstimate("correct", method, done=count)
    block = store.writing_unit(cube, "corrected_phase")[0]
    cuts = correction_cuts(cube, correction, pairs, block=block)
    tasks = math.prod(len(c) for c in cuts.values())
    rows, columns = cube.sizes[Y], cube.sizes[X]
    sizes = {PAIR: len(pairs), CORRECTION_TIME: date_count(cube), Y: rows, X: columns}
    written = sum(bytes_of(name, sizes) for name in correction.outputs)
    notes = []
    if correction.name in WHOLE_SCENE:
        rate, notes = Rate(0, 0), [f"{method} is not timed: it needs the whole scene"]
    elif isinstance(correction, NetworkCorrection):
        # Projecting on dates costs next to nothing beside the network.
        alone = replace(correction, closure_consistent=False)
        rate = rates.correction(cube, alone)
    else:
        rate = rates.correction(cube, correction)
    static = len({"elevation"} & set(inputs_of(correction)))
    if isinstance(correction, NetworkCorrection):
        radius = radius_of(correction)
        grown_sides, seen_sides = (
            [network_side(n, c, radius, reading) for n, c in sides_of(cube, cuts)]
            for reading in (True, False)
        )
        values = len(pairs) * math.prod(grown_sides)
        work = len(pairs) * math.prod(seen_sides)
        shape = (min(block, rows), min(block, columns))
        memory = 4 * ITEM * math.prod(shape)
        memory += round(tile_of(cube, radius) * (rate.activations + rate.memory))
        if correction.whole_stack:
            memory += projection_memory(cube, shape)
    else:
        read_sides, widest = [], []
        for (n, c), reach in zip(
            sides_of(cube, cuts), correction.reach(cube), strict=True
        ):
            read_sides.append(grown(n, c, reach))
            widest.append(max(grown(n, [cut], reach) for cut in c))
        values = work = len(pairs) * math.prod(read_sides)
        memory = block_memory(cube, correction, rate, (widest[0], widest[1]), static)
        if correction.resource == GPU:
            tile, seen = stack_network_cost(cube)
            work, memory = seen * work, memory + tile
    looked = rate.looks * len(pairs) * rows * columns
    shared = correction.whole_stack and not isinstance(correction, NetworkCorrection)
    read = (values + looked) * ITEM * (1 + (0 if shared else static))
    speed = codec_speed()
    looks = rate.looks * len(pairs) + rate.once
    return StepEstimate(
        step="correct",
        method=method,
        pairs=len(pairs),
        done=count - len(pairs),
        tasks=tasks,
        looks=looks,
        bytes_read=read,
        bytes_written=written,
        memory_per_task=memory,
        core_seconds=work * rate.seconds
        + len(pairs) * rows * columns * rate.look_seconds
        + rate.once_seconds
        + read / speed.decode
        + written / speed.encode
        + tasks * TASK_SECONDS,
        serial_seconds=STEP_SECONDS,
        notes=tuple(notes),
    )


def estimate_inversion(
    cube: xr.Dataset, *, settings: Settings, variable: str, chosen: bool, rates: Rates
) -> StepEstimate:
    """Cost of inverting a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        As it is, or would be.
    settings : invert.Settings
    variable : str
        Both checked by `invert.check_inversion`.
    chosen : bool
        Whether the reference area is to be chosen, which reads everything once more.
    rates : Rates
        Of this machine.
    """
    count, rows, columns = (cube.sizes[d] for d in (PAIR, Y, X))
    first, second, times = pair_indices(
        cube["reference_time"].values, cube["secondary_time"].values
    )
    block = inversion_block(cube)
    cuts = inversion_cuts(cube, block)
    layers = 1 + ("coherence" in cube)
    stated = variable == "corrected_phase" and all(name in cube for name in STATED)
    values = layers * count + stated * (times.size + 1)
    read = values * rows * columns * ITEM
    sizes = {TIME: times.size, Y: rows, X: columns}
    written = sum(bytes_of(name, sizes) for name in OUTPUTS)
    here = {TIME: times.size, Y: min(block[0], rows), X: min(block[1], columns)}
    pixels = here[Y] * here[X]
    outputs = sum(bytes_of(name, here) for name in OUTPUTS)
    if hindrance({"settings": asdict(settings)}) is None and not stated:
        states = 8 * math.prod(states_of(first, second, times.size, 0))
        written += states * rows * columns
        outputs += states * pixels
    network = Network(first, second, times.size, 0)
    # Temporary arrays are gone when the outputs are encoded.
    temporary = max(temporary_memory(network, count, pixels), outputs)
    memory = values * pixels * ITEM + outputs + temporary
    rate = rates.inversion(cube, settings, variable)
    speed = codec_speed()
    tasks = math.prod(len(c) for c in cuts.values())
    scan = (1 + ("coherence" in cube)) * count * rows * columns * ITEM if chosen else 0
    notes = ("the reference area is looked for first, by one process",) * chosen
    return StepEstimate(
        step="invert",
        method=variable,
        pairs=count,
        tasks=tasks,
        bytes_read=read + scan,
        bytes_written=written,
        memory_per_task=memory,
        core_seconds=count * rows * columns * rate.seconds
        + read / speed.decode
        + written / speed.encode
        + tasks * TASK_SECONDS,
        serial_seconds=STEP_SECONDS + scan / speed.decode + scan / SCAN,
        notes=notes,
    )
