"""Pairs into a cube: read behind those that are there, put in place, shown at once."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from cube_denoise import store
from cube_denoise.cluster import Workers
from cube_denoise.conventions import PAIR, X, Y
from cube_denoise.pair_sources import PairSource, read_task, read_tasks
from cube_denoise.progress import progress

log = logging.getLogger(__name__)


class NewPairs(NamedTuple):
    """Coordinates of pairs to read, as `store.append_pairs` takes them."""

    reference_time: np.ndarray
    secondary_time: np.ndarray
    perpendicular_baseline: np.ndarray
    items: list[dict[str, Any]]


def append(
    url: str | Path,
    pairs: NewPairs,
    source: PairSource,
    *,
    base: str,
    branch: str,
    asked: Mapping[str, Any],
    layers: Sequence[str] = (),
    workers: Workers | None = None,
    replaced: Mapping[int, int] | None = None,
    withdrawn: Sequence[int] = (),
) -> dict[int, str]:
    """Read pairs into a cube and take others out, in one change.

    Parameters
    ----------
    url, branch, workers
        As in `ingest.ingest`.
    pairs : NewPairs
        What is read.
    source : pair_sources.PairSource
        Where from.
    base : str
        State of the branch that the positions are of.
    asked : mapping
        What tells this step from others, see `store.stage`.
    layers : sequence of str
        Static layers to read as well.
    replaced : mapping, optional
        Position in `pairs` -> position in the cube of the pair it replaces.
    withdrawn : sequence of int
        Positions in the cube of the pairs taken out.

    Returns
    -------
    dict
        Position in `pairs` -> why it could not be read. If none could, and none is
        taken out, the cube stays as it was.
    """
    replaced = replaced or {}
    count = len(pairs.items)
    with store.stage(
        url, step="ingest", branch=branch, asked=asked, base=base
    ) as stage:
        if not stage.resumed():

            def extend(root: zarr.Group) -> None:
                sizes = {d: stage.cube.sizes[d] for d in (Y, X)}
                store.append_pairs(root, **pairs._asdict())
                store.declare(root, layers, sizes)

            if count:
                stage.change(extend, f"room for {count} pairs")
        before = stage.cube.sizes[PAIR] - count
        _read(stage, source, count, before, bool(layers), workers)
        failed = {k: stage.skipped[k] for k in sorted(stage.skipped) if k < count}
        sources = new_order(before, count, replaced, withdrawn, failed)

        def finish(root: zarr.Group) -> None:
            store.arrange_pairs(root, sources)
            if count in stage.skipped:
                log.warning("no elevation or look vectors: %s", stage.skipped[count])
                for name in layers:
                    del root[name]
            root.attrs["failed"] = [
                {"id": pairs.items[k]["id"], "reason": why} for k, why in failed.items()
            ]

        added = count - len(failed)
        if not added and not withdrawn:
            stage.discard()
            return failed
        told = {
            "replaced": len(set(replaced) - set(failed)),
            "withdrawn": len(withdrawn),
            "failed": len(failed),
        }
        parts = [f"{n} {what}" for what, n in told.items() if n]
        reasons = {pairs.items[k]["id"]: why for k, why in failed.items()}
        stage.publish(
            ", ".join([f"{added} pairs", *parts]),
            details={"failed": reasons},
            edit=finish,
        )
    return failed


def _read(
    stage: store.Stage,
    source: PairSource,
    count: int,
    before: int,
    static: bool,
    workers: Workers | None,
) -> None:
    """Read the pairs, and the static layers, as far as that is not done."""
    tasks = read_tasks(source, range(before, before + count), static=static)
    if not tasks:
        return
    size = 2 * 4 * stage.cube.sizes[Y] * stage.cube.sizes[X]  # phase and coherence
    with (
        workers or Workers() as pool,
        progress("ingest", count, unit="pairs", size=size) as advance,
    ):
        stage.fill(
            read_task,
            tasks,
            pool,
            advance=advance,
            amount=lambda task: float(task.place is not None),
        )


def new_order(
    before: int,
    read: int,
    replaced: Mapping[int, int],
    withdrawn: Sequence[int],
    failed: Collection[int],
) -> list[int]:
    """Which pairs make the cube, as `store.arrange_pairs` takes it.

    `before` pairs were there and `read` were put behind them. What replaces a pair goes
    to its place; the last pairs fill the places of those taken out.

    Examples
    --------
    >>> new_order(3, 2, {0: 1}, [0], ())
    [4, 3, 2]
    """
    order: list[int | None] = list(range(before))
    for new, old in replaced.items():
        if new not in failed:
            order[old] = before + new
    for gone in withdrawn:
        order[gone] = None
    order += [before + k for k in range(read) if k not in failed and k not in replaced]
    while None in order:
        last = order.pop()
        if last is not None:
            order[order.index(None)] = last
    return [k for k in order if k is not None]
