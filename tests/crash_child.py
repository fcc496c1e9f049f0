"""Steps done in a process that is to be killed; it tells where it is."""

import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import icechunk
import rasterio  # noqa: F401  imported here, once for all processes
import torch  # noqa: F401

from cube_denoise import inference, store, warm  # noqa: F401
from cube_denoise.cluster import Workers
from cube_denoise.ingest import ingest
from cube_denoise.inversion import solver  # noqa: F401
from cube_denoise.products import find_products
from cube_denoise.steps import correct_cube, invert_cube
from cube_denoise.store import layout, staging


def carry_out(
    telling: Connection, step: str, url: str, extra: str, hold_at: tuple[str, ...]
) -> None:
    """Do a step and tell of its progress; hold still at the points named."""
    warnings.simplefilter("ignore")
    staging.COMMIT_SECONDS = 0

    def say(what: str, number: int = 0) -> None:
        telling.send((what, number))
        if what in hold_at:
            time.sleep(600)

    def after(owner: Any, name: str, told: Callable[..., None]) -> None:
        original = getattr(owner, name)

        def wrapper(self: Any, *args: Any, **options: Any) -> Any:
            result = original(self, *args, **options)
            told(self)
            return result

        setattr(owner, name, wrapper)

    after(store.Stage, "_resume_or_start", lambda s: say("begin", s.tasks_done))
    after(store.Stage, "_commit", lambda s: say("staged", s.tasks_done))
    after(staging.Fill, "__call__", lambda s: time.sleep(0.03))
    reset = icechunk.Repository.reset_branch

    def reset_branch(self: Any, branch: str, *args: Any, **options: Any) -> None:
        if branch == "main":
            say("publishing")
        reset(self, branch, *args, **options)
        if branch == "main":
            say("shown")

    icechunk.Repository.reset_branch = reset_branch  # type: ignore[method-assign]
    create = layout.create_repository

    def create_repository(place: Any) -> Any:
        made = create(place)
        say("created")
        return made

    layout.create_repository = create_repository
    one = Workers("threads", count=1)
    if step == "ingest":
        ingest(find_products(extra)[0], url, chunk=32, shard=64, workers=one)
    elif step == "correct":
        correct_cube(url, extra, precision="float32", workers=one)
    else:
        invert_cube(url, workers=one)
    say("finished")
