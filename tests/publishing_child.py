"""Publishers that end where they are told to, each in a process of its own.

Run as ``python publishing_child.py URL VALUE POINT``: publish a product that is VALUE
everywhere, and be killed at POINT. Several (URL, VALUE, POINT) give as many processes,
forked, so that imports cost once.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from velocity_products import velocity_product

from cube_denoise import product_folder, publish, store
from cube_denoise.store import pyramid

POINTS = (
    "begun",
    "half a level",
    "whole store",
    "before the record",
    "after the record",
)
SMALL = {"chunk": 16, "shard": 16, "workers": 2, "cog": False}


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def put(owner: Any, name: str, before: Callable, after: Callable) -> None:
    original = getattr(owner, name)

    def wrapper(*args: Any, **options: Any) -> Any:
        before()
        result = original(*args, **options)
        after()
        return result

    setattr(owner, name, wrapper)


def nothing() -> None:
    pass


def arrange(point: str) -> None:
    """Be killed at a point of publishing."""
    folder = product_folder.ProductFolder
    if point == "begun":
        put(folder, "begin", nothing, die)
    elif point == "half a level":
        written = iter(range(100))
        put(pyramid, "_put", lambda: next(written) == 5 and die(), nothing)
    elif point == "whole store":
        put(store, "write_pyramid", nothing, die)
    elif point == "before the record":
        put(folder, "replace_record", die, nothing)
    elif point == "after the record":
        put(folder, "replace_record", nothing, die)


def constant(value: float) -> Any:
    """A product that is one value everywhere."""
    product = velocity_product((24, 40), gaps=0.0)[["velocity", "velocity_std"]]
    return (product * 0 + value).astype("float32").assign_attrs(product.attrs)


def one(url: str, value: float, point: str) -> None:
    arrange(point)
    publish(constant(value), url, **SMALL)


if __name__ == "__main__":
    children = []
    told = iter(sys.argv[1:])
    for url, value, point in zip(told, told, told, strict=True):
        if (child := os.fork()) == 0:
            try:
                one(url, float(value), point)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
    print(*ends)
