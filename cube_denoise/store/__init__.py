"""Cubes on disk or in a bucket; only this package writes Zarr.

A cube is an Icechunk repository (transactional Zarr v3) with one root group. Work is
staged on a branch of its own, in commits that survive a crash, and becomes visible to
readers of the target branch in one step at the end.

Use the names of the package. How often a step commits is ``staging.COMMIT_SECONDS``,
there alone: a copy here could be set without effect.
"""

from cube_denoise.store.drafting import Draft, draft
from cube_denoise.store.filling import SkipTask, Work
from cube_denoise.store.layout import (
    CHUNK,
    PAIR_TIMES,
    SERIES_DATES,
    SHARD,
    annotate,
    append_pairs,
    arrange_pairs,
    create_cube,
    declare,
    lengthen,
    remove,
    write_layers,
    writing_unit,
)
from cube_denoise.store.levels import open_level
from cube_denoise.store.owners import presume_gone
from cube_denoise.store.plain import export_zarr
from cube_denoise.store.pyramid import write_pyramid
from cube_denoise.store.repository import (
    CubeChangedError,
    CubeError,
    exists,
    history,
    is_being_made,
    newest,
    newest_step,
    open_cube,
    open_repository,
    storage,
    visible_branches,
)
from cube_denoise.store.staging import Stage, fingerprint, stage
from cube_denoise.store.upkeep import Upkeep, maintain, rollback

__all__ = [
    "CHUNK",
    "PAIR_TIMES",
    "SERIES_DATES",
    "SHARD",
    "CubeChangedError",
    "CubeError",
    "Draft",
    "SkipTask",
    "Stage",
    "Upkeep",
    "Work",
    "annotate",
    "append_pairs",
    "arrange_pairs",
    "create_cube",
    "declare",
    "draft",
    "exists",
    "export_zarr",
    "fingerprint",
    "history",
    "is_being_made",
    "lengthen",
    "maintain",
    "newest",
    "newest_step",
    "open_cube",
    "open_level",
    "open_repository",
    "presume_gone",
    "remove",
    "rollback",
    "stage",
    "storage",
    "visible_branches",
    "write_layers",
    "write_pyramid",
    "writing_unit",
]
