"""Tasks that fill a cube: each writes into a forked session, in a worker."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from cube_denoise.blocks import Window, variable_window
from cube_denoise.conventions import PAIR, VARIABLES, X, Y
from cube_denoise.store.answers import writable_group
from cube_denoise.store.repository import open_snapshot
from cube_denoise.store.shards import quick


class SkipTask(Exception):  # noqa: N818
    """Raised in a task that can give nothing, with the reason; the others go on."""


Work = Callable[[xr.Dataset, Any], Iterable[tuple[Window, Mapping[str, np.ndarray]]]]
"""What a worker does for one task: see `staging.Stage.fill`."""


class Part(NamedTuple):
    """Values of a variable along pairs alone: no task has a chunk of it to itself."""

    name: str
    window: Window
    values: np.ndarray


class Done(NamedTuple):
    """What came of a task."""

    fork: Any
    summaries: list[Part]
    reason: str | None
    """Why it gave nothing."""


@dataclass(frozen=True)
class Fill:
    """Do one task and write what it gives into a forked session."""

    url: str
    snapshot: str
    fork: Any
    work: Work

    @functools.cached_property
    def arrays(self) -> dict[str, Any]:
        """Variables to write to, of this process; opened once for all its threads."""
        root = writable_group(self.fork, self.url)
        return {name: quick(array) for name, array in root.arrays()}

    def __call__(self, numbered: tuple[int, Any]) -> Done:
        """Do a task, given with its number."""
        cube = open_snapshot(self.url, self.snapshot)
        summaries: list[Part] = []
        try:
            for window, parts in self.work(cube, numbered[1]):
                for name, values in parts.items():
                    if {Y, X} & set(VARIABLES[name].dims):
                        self.arrays[name][variable_window(name, window)] = values
                    else:
                        summaries.append(Part(name, window, values))
        except SkipTask as reason:
            return Done(self.fork, [], str(reason))
        return Done(self.fork, summaries, None)


def write_summaries(root: Any, summaries: Sequence[Part]) -> None:
    """Write what the tasks gave for their pairs, each variable at once."""
    for name in {part.name for part in summaries}:
        parts = [part for part in summaries if part.name == name]
        begin = min(part.window[PAIR].start for part in parts)
        values = root[name][begin : max(part.window[PAIR].stop for part in parts)]
        for part in parts:
            pairs = part.window[PAIR]
            values[pairs.start - begin : pairs.stop - begin] = part.values
        root[name][begin : begin + len(values)] = values
