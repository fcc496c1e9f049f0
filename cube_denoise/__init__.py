"""Atmosphere removal and velocity maps for stacks of unwrapped interferograms.

    >>> import cube_denoise as cd
    >>> scene = cd.simulate_scene(size=32, dates=4, seed=1)
    >>> cd.velocity(scene.truth.displacement).velocity.dims
    ('y', 'x')

Names are resolved when they are first used: importing the package costs neither torch
nor Zarr. Where a function is called like its file (``correct``), the name here is the
function; the file is reached by ``from cube_denoise.correct import ...``.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cube_denoise.catalog import search
    from cube_denoise.correct import correct, pair_std
    from cube_denoise.cube_product import product_of_cube
    from cube_denoise.evaluate.judge import evaluate_cube
    from cube_denoise.export import export_geotiff
    from cube_denoise.ingest import ingest, ingest_dataset
    from cube_denoise.invert import invert
    from cube_denoise.joining.frames import read_frames
    from cube_denoise.joining.ground_files import read_ground
    from cube_denoise.joining.join import join
    from cube_denoise.mintpy_export import export_mintpy
    from cube_denoise.models.zoo import load_model
    from cube_denoise.pipeline import run
    from cube_denoise.point_series import point_series
    from cube_denoise.product import open_velocity
    from cube_denoise.profile import profile
    from cube_denoise.publish import publish
    from cube_denoise.separate import separate
    from cube_denoise.simulate.scene import simulate_scene
    from cube_denoise.simulate.stack import simulate_stack
    from cube_denoise.steps import correct_cube, invert_cube
    from cube_denoise.store import export_zarr, open_cube
    from cube_denoise.update import update
    from cube_denoise.velocity import velocity

    __version__: str

__all__ = [
    "__version__",
    "correct",
    "correct_cube",
    "evaluate_cube",
    "export_geotiff",
    "export_mintpy",
    "export_zarr",
    "ingest",
    "ingest_dataset",
    "invert",
    "invert_cube",
    "join",
    "load_model",
    "open_cube",
    "open_velocity",
    "pair_std",
    "point_series",
    "product_of_cube",
    "profile",
    "publish",
    "read_frames",
    "read_ground",
    "run",
    "search",
    "separate",
    "simulate_scene",
    "simulate_stack",
    "update",
    "velocity",
]

_HOMES = {
    "correct": "correct",
    "correct_cube": "steps",
    "evaluate_cube": "evaluate.judge",
    "export_geotiff": "export",
    "export_mintpy": "mintpy_export",
    "export_zarr": "store",
    "ingest": "ingest",
    "ingest_dataset": "ingest",
    "invert": "invert",
    "invert_cube": "steps",
    "join": "joining.join",
    "load_model": "models.zoo",
    "open_cube": "store",
    "open_velocity": "product",
    "pair_std": "correct",
    "point_series": "point_series",
    "product_of_cube": "cube_product",
    "profile": "profile",
    "publish": "publish",
    "read_frames": "joining.frames",
    "read_ground": "joining.ground_files",
    "run": "pipeline",
    "search": "catalog",
    "separate": "separate",
    "simulate_scene": "simulate.scene",
    "simulate_stack": "simulate.stack",
    "update": "update",
    "velocity": "velocity",
}
"""Module of every public name."""


class _Package(ModuleType):
    """The package: public names stay what they are when their files are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds each submodule to its package; some are
        # called like the function in them.
        if name in _HOMES and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("cube-denoise")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
