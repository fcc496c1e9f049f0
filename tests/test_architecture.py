"""Walls of the package: who imports what, and who may write or distribute."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cube_denoise

PACKAGE = Path(cube_denoise.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = (
    # 1: outside packages only, or each other.
    "blocks closure coarsening cluster cluster_kinds cluster_workers conditions "
    "conventions "
    "cluster_jobs json_objects processes "
    "cycle_search device export_folder file_parts gamma gaps grid hdf5_access "
    "interferogram inversion "
    "inversion.carried_spread inversion.continuation inversion.elimination "
    "inversion.gaps inversion.incremental inversion.kernel inversion.lanes "
    "inversion.robust inversion.solver inversion.spread inversion.tensor_spread "
    "inversion.tensor_tiles inversion.tensors inversion.tiles longitudes mintpy_files "
    "models.autoencoder "
    "models.bridge models.coloured models.diffusion models.dncnn models.latent "
    "models.registry models.restormer models.samplers models.stack "
    "models.stack_features models.stack_loss models.swinir models.unet models.vae "
    "models.vae_fit models.zoo "
    "network normalise pair_variances places product_region product_variables "
    "progress raster_access same_pixels "
    "simulate.assembly simulate.atmosphere simulate.climate simulate.crack "
    "simulate.deformation simulate.ground simulate.ionosphere simulate.pair_errors "
    "simulate.residual_fields simulate.seeds simulate.sensor simulate.sources "
    "view view.source view.window "
    "simulate.spectrum simulate.stack_delays simulate.stations simulate.surface "
    "simulate.time_functions simulate.turbulence time_models",
    # 2: one thing each.
    "aria corrections corrections.catalogue corrections.common_scene "
    "corrections.components corrections.correction corrections.elevation "
    "corrections.independent corrections.local_elevation corrections.network "
    "corrections.principal corrections.ramp corrections.separation corrections.series "
    "corrections.stack_network corrections.temporal_filter corrections.weather "
    "corrections.wiener correction_errors "
    "delay_files delays evaluate evaluate.consistency "
    "evaluate.gnss evaluate.scores evaluate.similarity evaluate.station_misfit "
    "evaluate.stations evaluate.structure evaluate.uncertainty halo hyp3 inference "
    "licsbas map_axes mintpy model_card nisar opera product_files products "
    "raster_stack rate_error reference reference_area "
    "reference_date reference_pixels resolve separation separation.clusters "
    "separation.cluster_removal separation.coarse separation.evidence "
    "separation.methods separation.removal "
    "separation.sources series_inference series_pairs simulate "
    "simulate.frames simulate.hyp3 simulate.noise_bank simulate.pair simulate.recipes "
    "simulate.recipes.autoencoder_paper "
    "simulate.recipes.dncnn_paper simulate.recipes.poster_sources "
    "simulate.recipes.recipe simulate.recipes.stacks simulate.scene simulate.stack "
    "simulate.transplant source_profiles stac_item stac_source store store.answers "
    "store.drafting "
    "store.filling store.layout store.levels store.owners store.plain store.pyramid "
    "store.repository "
    "store.shards store.staging store.upkeep time_fit velocity view.controls "
    "view.figures",
    # 3: what is done to a cube.
    "archive frame_status "
    "append catalog changes charts correct cube_fit dataset evaluate.columns "
    "evaluate.held_out evaluate.injection evaluate.recovery evaluate.redrawn "
    "evaluate.scoring export extend inversion_window invert last_inversion "
    "joining joining.checks joining.decompose joining.equations joining.frames "
    "joining.ground joining.ground_files joining.join joining.lattice "
    "joining.likelihood joining.mosaic joining.noise joining.offsets "
    "joining.pictures joining.seams "
    "mintpy_attributes mintpy_export pair_residuals pair_sources pixel_series plot "
    "point_series "
    "cube_product product product_folder product_stac profile record_reader "
    "series_sums stack_samples state summary "
    "unwrapping versions",
    # 4: what fills a cube or a network.
    "block_cost calibration cluster_sheet estimate "
    "evaluate.detection_pictures evaluate.findings "
    "evaluate.injection_pictures evaluate.judge evaluate.page evaluate.pictures "
    "evaluate.record evaluate.report evaluate.station_pictures evaluate.tables ingest "
    "planned_cube publish steps training training.adapt training.checkpoint "
    "training.fit "
    "training.gate training.generative training.learner training.loader "
    "training.noise2noise training.pairs training.recipe training.run "
    "training.series training.stacks training.task training.transplant "
    "training.trend_share view.cube "
    "view.page view.product warm",
    # 5: composed.
    "bulk bulk_plan bulk_status demo dry_run job pipeline separate update "
    "view.opening view.server",
    # 6: thin.
    "cli.bulk cli.join "
    "__main__ cli cli.application cli.closure cli.judge cli.look cli.make "
    "cli.plan_table cli.publish cli.residuals cli.separate cli.sources cli.steps "
    "cli.versions "
    "cli.view",
)
FLOOR = {name: k for k, names in enumerate(FLOORS, 1) for name in names.split()}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


def imports_of(path: Path) -> set[str]:
    """Full names of all modules imported anywhere in a file but for type checking."""
    found: set[str] = set()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped |= {id(n) for child in node.body for n in ast.walk(child)}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                inside = PACKAGE.parent / Path(*full.split("."))
                is_module = inside.with_suffix(".py").is_file() or inside.is_dir()
                found.add(full if is_module else node.module)
    return found


def own(modules: set[str]) -> set[str]:
    """Those of the package, by their short names."""
    return {m.removeprefix("cube_denoise.") for m in modules if "cube_denoise." in m}


IMPORTS = {name_of(p): imports_of(p) for p in FILES}


def test_every_module_has_a_floor() -> None:
    missing = sorted(set(IMPORTS) - set(FLOOR) - {"", "models"})
    assert not missing, f"give {missing} a floor in FLOORS"


@pytest.mark.parametrize("name", sorted(set(IMPORTS) - {"", "models"}))
def test_imports_go_down(name: str) -> None:
    upward = {m for m in own(IMPORTS[name]) if FLOOR.get(m, 0) > FLOOR.get(name, 99)}
    assert not upward, f"{name} (floor {FLOOR[name]}) imports {sorted(upward)}"


def test_there_is_no_circle() -> None:
    graph = {name: own(found) for name, found in IMPORTS.items() if name}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("path", sorted((PACKAGE / "models").glob("*.py")))
def test_models_import_torch_alone(path: Path) -> None:
    allowed = {"torch", "safetensors", "cube_denoise"} | set(sys.stdlib_module_names)
    found = imports_of(path)
    assert {m.split(".")[0] for m in found} <= allowed
    assert all(m.startswith("models") for m in own(found)), path


def test_only_few_know_torch() -> None:
    knowing = {
        n for n, f in IMPORTS.items() if any(m.split(".")[0] == "torch" for m in f)
    }
    outside = {n for n in knowing if n.split(".")[0] not in ("models", "training")}
    tensors = {f"inversion.{n}" for n in ("tensors", "tensor_spread", "tensor_tiles")}
    assert outside <= {"dataset", "device", "inference", "stack_samples"} | tensors


def test_only_cluster_knows_distributed() -> None:
    packages = {"distributed", "dask_cuda", "dask_gateway", "dask_kubernetes"}
    knowing = {n for n, f in IMPORTS.items() if {m.split(".")[0] for m in f} & packages}
    submodule = {n for n, f in IMPORTS.items() if "dask.distributed" in f}
    assert knowing | submodule <= {"cluster", "cluster_kinds", "cluster_workers"}


def writing_calls(source: str) -> list[str]:
    """Calls that write Zarr, or open it for writing."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name = node.func.attr
        holder = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        strings = {
            a.value
            for a in [*node.args, *(k.value for k in node.keywords)]
            if isinstance(a, ast.Constant) and isinstance(a.value, str)
        }
        if (
            name in ("to_zarr", "to_icechunk", "create_array", "create_group", "commit")
            or (holder == "zarr" and name.startswith(("create", "save", "empty")))
            or (holder == "zarr" and strings & {"w", "w-", "a", "r+"})
            or name in ("writable_session", "reset_branch", "delete_branch")
        ):
            found.append(f"line {node.lineno}: {name}")
    return found


def test_only_store_writes_zarr() -> None:
    inside = {p for p in FILES if p.is_relative_to(PACKAGE / "store")}
    writing = {p for p in FILES if writing_calls(p.read_text())}
    names = {p.stem for p in writing & inside}
    moving = {"repository", "owners"}  # branches only
    assert names == {
        *("layout", "staging", "answers", "drafting", "plain", "pyramid"),
        *moving,
    }
    assert not writing - inside


def test_store_is_used_as_a_package() -> None:
    """No other module knows the files in it, and no file hides a public name."""
    from cube_denoise import store

    files = {n for n in IMPORTS if n.startswith("store.")}
    assert not {n.removeprefix("store.") for n in files} & set(store.__all__)
    knowing = {n for n, f in IMPORTS.items() if own(f) & files}
    assert knowing <= {"store", *files}


def test_writing_is_recognised() -> None:
    for line in (
        "cube.to_zarr('x')",
        "zarr.create_group(s)",
        "zarr.open_group(s, mode='r+')",
        "zarr.save('x', a)",
        "repository.writable_session('main')",
    ):
        assert writing_calls(line), line
    assert not writing_calls("zarr.open_group(s, mode='r')\nxr.open_zarr(s)")


def loaded_after(code: str) -> set[str]:
    """Top-level packages in memory after running `code` in a new process."""
    script = f"{code}\nimport sys\nprint(*sorted(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_is_light(small_cube: Path) -> None:
    """Neither import nor opening a cube costs torch, distributed or matplotlib."""
    heavy = {"bokeh", "torch", "distributed", "matplotlib", "typer", "rich"}
    assert not loaded_after("import cube_denoise") & (heavy | {"xarray", "icechunk"})
    code = (
        "import cube_denoise\n"
        f"cube = cube_denoise.open_cube({str(small_cube)!r})\n"
        "float(cube['unwrapped_phase'][0, 0, 0])\n"
        "dir(cube_denoise)"
    )
    loaded = loaded_after(code)
    assert {"xarray", "icechunk"} <= loaded
    assert not loaded & heavy


def test_every_public_name_is_there() -> None:
    for name in cube_denoise.__all__:
        assert getattr(cube_denoise, name) is not None
    assert set(cube_denoise.__all__) <= set(dir(cube_denoise))
    with pytest.raises(AttributeError, match="no_such_name"):
        cube_denoise.no_such_name  # noqa: B018
