"""What a correction is: settings, a look at the cube, then work window by window."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window, spans, windows
from cube_denoise.cluster import CPU_IO
from cube_denoise.conventions import PAIR, X, Y

READ_SIZE = 1024
"""Side of the windows in which a whole pair is looked through, px. They are counted
from the first pixel of the cube: sums do not depend on how it is chunked."""

Apply = Callable[[xr.Dataset, Window], np.ndarray | tuple[np.ndarray, ...]]
"""``apply(cube, window)``: corrected phase, rad, float32, of exactly that window, NaN
where it cannot be known; shape (pairs, rows, columns). Picklable; bit-equal for a pixel
whatever the window. The window has one pair, or all where the correction is of the
`Correction.whole_stack`. A tuple where there are several `Correction.outputs`."""

Run = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
"""``run(function, tasks)``: results in the order of the tasks, perhaps computed by
several workers; the function must be picklable."""


@dataclass(frozen=True)
class Plan:
    """A correction that has looked at a cube."""

    apply: Apply
    """Does the work."""
    passed: frozenset[int] = frozenset()
    """Positions of the pairs that are passed through as they are."""
    settled: Mapping[str, str] = field(default_factory=dict)
    """Settings that were left to be chosen: recorded, and kept for later pairs."""
    within: Callable[[Window], Apply] | None = None
    """Gives `apply` for one window alone, where the whole would be much to send."""
    coords: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Coordinates of the dimensions that outputs have beside pair, y and x."""


@dataclass(frozen=True, kw_only=True)
class Correction(ABC):
    """Base of all corrections; the fields of a subclass are its options."""

    name: ClassVar[str]
    """How it is called in `correct.correct`."""
    whole_stack: ClassVar[bool] = False
    """Whether a corrected pair depends on the other pairs."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Variables of the cube needed beside ``unwrapped_phase``."""
    passes: ClassVar[str] = "hold no data"
    """Why pairs are passed through."""
    resource: ClassVar[str] = CPU_IO
    """What its tasks ask for where workers offer it (`cluster.Workers.asking`)."""

    @property
    def label(self) -> dict[str, str]:
        """What was done, for attributes and histories."""
        options = json.dumps(asdict(self), sort_keys=True, default=str)
        return {"method": self.name, "method_options": options}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Variables computed; more than the first by corrections of the whole stack."""
        return ("corrected_phase",)

    def again(self, known: Mapping[str, Any]) -> Self | None:
        """Give the correction for more pairs of a cube whose attributes are `known`.

        None if the cube was corrected otherwise.
        """
        same = all(known.get(key) == value for key, value in self.label.items())
        return self if same else None

    def shared_by(self, workers: int) -> Self:
        """Give the correction for tasks of which `workers` run on a machine at once."""
        return self

    def reach(self, cube: xr.Dataset) -> tuple[int, int]:
        """Rows and columns beyond a block that correcting it reads."""
        return 0, 0

    def caution(self) -> list[str]:
        """What the user should know before trusting the result."""
        return []

    @abstractmethod
    def plan(self, cube: xr.Dataset, pairs: Sequence[int], run: Run) -> Plan:
        """Look at the cube and say how to correct a window of it.

        Parameters
        ----------
        cube : xarray.Dataset
            The whole cube; checked to have `needs` and to be in rad.
        pairs : sequence of int
            Positions of the pairs that will be corrected; all of them where the
            correction is of the `whole_stack`.
        run : callable
            For what must be computed of whole pairs first; see `Run`.

        Raises
        ------
        ValueError
            If the cube lacks something, or an option does not fit it.
        """


def in_turn(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """`Run` in this thread."""
    return [function(task) for task in tasks]


def pair_windows(cube: xr.Dataset) -> tuple[dict[str, slice], ...]:
    """Windows (y, x) of at most `READ_SIZE` that cover the scene, in a fixed order."""
    return windows(y=spans(cube.sizes[Y], READ_SIZE), x=spans(cube.sizes[X], READ_SIZE))


def read(cube: xr.Dataset, name: str, window: Window) -> np.ndarray:
    """Values of a variable in a window, float64, dims (pair, y, x) or (y, x)."""
    array = cube[name]
    part = array.isel({d: s for d, s in window.items() if d in array.dims})
    order = [d for d in (PAIR, Y, X) if d in array.dims]
    return np.asarray(part.transpose(*order).values, "float64")
