"""Correction does not depend on how, where or by whom the work is cut."""

import pickle
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import dask
import numpy as np
import pytest
import xarray as xr

from cube_denoise import store
from cube_denoise.blocks import lazy
from cube_denoise.cluster import Workers
from cube_denoise.correct import (
    CORRECTED,
    PASSED_THROUGH,
    correct,
    plan_correction,
)
from cube_denoise.corrections.network import NetworkCorrection
from cube_denoise.ingest import ingest_dataset
from cube_denoise.models import zoo
from cube_denoise.simulate import simulate_scene
from cube_denoise.steps import correct_cube

TOLERANCE = 1e-5
"""rad, what the issue asks for; the largest difference is kept in `LARGEST`."""
LARGEST: dict[str, float] = {}
REGIONS: list[dict[str, slice]] = [{}, {"y": slice(37, 281), "x": slice(130, 277)}]
SIZE = (290, 280)
"""More than one tile of 256."""
LAYOUTS = [(64, 128), (90, 180), (256, 1024)]
WORKERS = pytest.mark.parametrize(
    ("scheduler", "count"),
    [
        ("threads", 1),
        ("threads", 2),
        ("processes", 2),
        pytest.param("processes", 1, marks=pytest.mark.slow),
    ],
)


@pytest.fixture(scope="module")
def wide() -> xr.Dataset:
    """Two pairs over two tiles each way; gaps, one pair mostly missing."""
    scene = simulate_scene(
        size=SIZE[0], dates=3, max_temporal_baseline=24, gaps=0.15, seed=4
    )
    dataset = scene.cube.isel(x=slice(0, SIZE[1]), pair=[0, 1]).load()
    dataset["unwrapped_phase"][1, 40:] = np.nan
    dataset["elevation"][100:120, 50:90] = np.nan
    return dataset


@pytest.fixture(scope="module")
def cubes(
    wide: xr.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[int, int], Path]:
    folder = tmp_path_factory.mktemp("chunkings")
    found = {}
    for chunk, shard in LAYOUTS:
        found[chunk, shard] = folder / f"{chunk}-{shard}"
        ingest_dataset(wide, found[chunk, shard], chunk=chunk, shard=shard)
    return found


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[int, Executor]]:
    """One and two processes, each started once, when first used."""
    spawn = get_context("spawn")
    made: dict[int, Executor] = {
        n: ProcessPoolExecutor(n, mp_context=spawn) for n in (1, 2)
    }
    yield made
    for pool in made.values():
        pool.shutdown()


class Kept(Workers):
    """Processes that stay for the next use."""

    def __init__(self, pool: Executor, count: int) -> None:
        super().__init__("processes", count=count)
        self._executor = pool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def close(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    difference = float(np.nanmax(np.abs(found - expected)))
    LARGEST[name] = max(difference, LARGEST.get(name, 0.0))
    assert difference <= TOLERANCE


@pytest.fixture(scope="module")
def whole(wide: xr.Dataset, plain_model: Path, dilated_model: Path) -> dict[Path, Any]:
    """Corrected in one go, in memory."""
    found = {}
    for model in (plain_model, dilated_model):
        with pytest.warns(UserWarning, match="more than half missing"):
            result = correct(wide, model, block=10_000, precision="float32")
        found[model] = result.compute(scheduler="synchronous")
        change = found[model]["corrected_phase"] - wide["unwrapped_phase"]
        assert float(abs(change[0]).max()) > 0.05
    return found


@pytest.fixture(params=["plain_model", "dilated_model"])
def model(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


# --- chunks, regions, workers -----------------------------------------------------


@pytest.mark.filterwarnings("ignore:1 pairs are more than half missing")
@WORKERS
@pytest.mark.parametrize("region", REGIONS, ids=["whole", "part"])
@pytest.mark.parametrize("block", [180, 128, 256])
def test_blocks_regions_and_workers_do_not_matter(
    cubes: dict[tuple[int, int], Path],
    pools: dict[int, Executor],
    whole: dict[Path, xr.Dataset],
    plain_model: Path,
    block: int,
    region: dict[str, slice],
    count: int,
    scheduler: str,
) -> None:
    """Through `correct`, from cubes of three chunkings (one for each block size)."""
    layout = {180: (90, 180), 128: (64, 128), 256: (256, 1024)}[block]
    cube = store.open_cube(cubes[layout])
    result = correct(
        cube, plain_model, region=region or None, block=block, precision="float32"
    )
    options: Any = {"scheduler": scheduler, "num_workers": count}
    if scheduler == "processes":
        options["pool"] = pools[count]
    with dask.config.set(options):
        found = result["corrected_phase"].values
    expected = whole[plain_model]["corrected_phase"].isel(region).values
    close(f"correct, {scheduler}", found, expected)


@pytest.mark.filterwarnings("ignore:1 pairs are more than half missing")
@pytest.mark.parametrize("region", REGIONS, ids=["whole", "part"])
@pytest.mark.parametrize("block", [100, 300])
def test_so_it_is_with_dilations_and_elevation(
    cubes: dict[tuple[int, int], Path],
    whole: dict[Path, xr.Dataset],
    dilated_model: Path,
    block: int,
    region: dict[str, slice],
) -> None:
    cube = store.open_cube(cubes[90, 180])
    result = correct(
        cube, dilated_model, region=region, block=block, precision="float32"
    )
    found = result["corrected_phase"].compute(scheduler="threads", num_workers=2)
    expected = whole[dilated_model]["corrected_phase"].isel(region).values
    close("correct, dilated", found.values, expected)


@WORKERS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cubes_of_any_chunking_are_corrected_alike(
    cubes: dict[tuple[int, int], Path],
    pools: dict[int, Executor],
    whole: dict[Path, xr.Dataset],
    plain_model: Path,
    layout: tuple[int, int],
    count: int,
    scheduler: str,
) -> None:
    branch = f"{scheduler}-{count}"
    workers = (
        Kept(pools[count], count)
        if scheduler == "processes"
        else Workers("threads", count=count)
    )
    report = correct_cube(
        cubes[layout], plain_model, branch=branch, workers=workers, precision="float32"
    )
    assert report.done == 2
    assert any("more than half missing" in note for note in report.notes)
    cube = store.open_cube(cubes[layout], branch=branch)
    expected = whole[plain_model]
    close(
        f"correct_cube, {scheduler}",
        cube["corrected_phase"].values,
        expected["corrected_phase"].values,
    )
    np.testing.assert_array_equal(
        cube["correction_status"], expected["correction_status"]
    )
    known = cube["corrected_phase"].attrs
    assert known["precision"] == "float32"
    assert known["method"] == "plain"
    assert len(known["model_sha256"]) == 64
    newest = store.newest_step(cubes[layout], branch=branch)
    assert newest["details"]["model_sha256"] == known["model_sha256"]
    assert newest["details"]["passed_through"] == ["20230105-20230129"]
    assert "corrected_phase" not in store.open_cube(cubes[layout])


def test_real_workers_of_their_own_processes(
    cubes: dict[tuple[int, int], Path], whole: dict[Path, Any], dilated_model: Path
) -> None:
    url = cubes[64, 128]
    correct_cube(
        url,
        dilated_model,
        branch="own-processes",
        workers=Workers("processes", count=1),
        precision="float32",
    )
    cube = store.open_cube(url, branch="own-processes")
    close(
        "correct_cube, own processes",
        cube["corrected_phase"].values,
        whole[dilated_model]["corrected_phase"].values,
    )


def test_the_differences_are_told() -> None:
    """Last of the above: the invariance is exact but for threads inside torch."""
    print("largest differences, rad:", LARGEST)
    assert all(value <= TOLERANCE for value in LARGEST.values())


@pytest.mark.filterwarnings("ignore:1 pairs are more than half missing")
def test_gaps_are_filled_alike_whatever_the_block(
    wide: xr.Dataset, plain_model: Path
) -> None:
    """Nearly all of one tile is missing; only the lattice says what fills it."""
    holed = wide.copy(deep=True)
    holed["unwrapped_phase"][0, 30:180, 20:220] = np.nan
    results = [
        correct(holed, plain_model, block=b, precision="float32")["corrected_phase"][0]
        for b in (70, 310)
    ]
    one, other = (r.values for r in results)
    close("gaps", one, other)
    assert float(np.nanmax(np.abs(one - holed["unwrapped_phase"][0].values))) > 0.05


def test_a_global_view_does_not_see_the_blocks(wide: xr.Dataset) -> None:
    """A network that looks at its whole tile, on the blended lattice."""
    import torch

    class Global(torch.nn.Module):
        receptive_radius = None

        class config:  # noqa: N801
            inputs = ("displacement",)
            normalisation = "robust"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x - x.mean()) * x.std()

    cube = wide.isel(pair=[0])
    model = Global().eval()
    one, other, part = (
        correct(cube, model, precision="float32", **options)["corrected_phase"].values
        for options in (
            {"block": 1000},
            {"block": 75},
            {"block": 60, "region": REGIONS[1]},
        )
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(part, one[:, REGIONS[1]["y"], REGIONS[1]["x"]])
    assert np.nanstd(one - cube["unwrapped_phase"].values) > 0.1


# --- identity, gaps, pairs passed through ------------------------------------------


@pytest.mark.filterwarnings("ignore:1 pairs are more than half missing")
def test_identity_leaves_everything(wide: xr.Dataset, identity_model: Path) -> None:
    result = correct(wide, identity_model, block=100)
    np.testing.assert_array_equal(
        result["corrected_phase"].values, wide["unwrapped_phase"].values
    )


def test_identity_leaves_everything_on_a_cube(
    cubes: dict[tuple[int, int], Path], identity_model: Path, wide: xr.Dataset
) -> None:
    url = cubes[90, 180]
    correct_cube(url, identity_model, branch="same")
    cube = store.open_cube(url, branch="same")
    np.testing.assert_array_equal(cube["corrected_phase"], wide["unwrapped_phase"])
    np.testing.assert_array_equal(cube["unwrapped_phase"], wide["unwrapped_phase"])


def test_nan_stays_and_nothing_else_becomes_nan(
    whole: dict[Path, xr.Dataset], wide: xr.Dataset, model: Path
) -> None:
    np.testing.assert_array_equal(
        np.isnan(whole[model]["corrected_phase"]), np.isnan(wide["unwrapped_phase"])
    )


def test_pairs_more_than_half_missing_pass_through(
    wide: xr.Dataset, plain_model: Path
) -> None:
    cube = xr.concat([wide, wide.isel(pair=[0])], "pair", data_vars="minimal")
    cube["unwrapped_phase"][2] = np.nan
    message = (
        "2 pairs are more than half missing .* uncorrected: "
        "20230105-20230129, 20230105-20230117"
    )
    with pytest.warns(UserWarning, match=message):
        result = correct(cube, plain_model)
    np.testing.assert_array_equal(
        result["correction_status"], [CORRECTED, PASSED_THROUGH, PASSED_THROUGH]
    )
    np.testing.assert_array_equal(
        result["corrected_phase"][1:], cube["unwrapped_phase"][1:]
    )
    assert np.nanmax(abs(result["corrected_phase"][0] - cube["unwrapped_phase"][0])) > 0


def test_the_constant_of_a_pair_goes_through(stack: xr.Dataset, model: Path) -> None:
    """The network sees normalised pairs: corrected(phase + c) = corrected + c."""
    one = correct(stack, model, precision="float32")["corrected_phase"]
    shifted = stack.assign(unwrapped_phase=stack["unwrapped_phase"] + 20)
    other = correct(shifted, model, precision="float32")["corrected_phase"]
    np.testing.assert_allclose(other - 20, one, atol=1e-3)


def test_elevation_is_used_only_by_those_that_ask(
    stack: xr.Dataset, plain_model: Path, dilated_model: Path
) -> None:
    other = stack.assign(elevation=stack["elevation"] * 2)
    for model, changes in ((plain_model, False), (dilated_model, True)):
        one, two = (
            correct(c, model, precision="float32")["corrected_phase"].values
            for c in (stack, other)
        )
        assert (np.nanmax(np.abs(one - two)) > 1e-3) == changes


# --- what is refused --------------------------------------------------------------


def test_what_is_missing_is_said(
    stack: xr.Dataset, plain_model: Path, dilated_model: Path
) -> None:
    bare = stack.drop_vars("elevation")
    for cube, model, options, message in (
        (bare, dilated_model, {}, "uses elevation and the cube has none"),
        (stack, "no-such-model", {}, "no-such-model.*neither a shipped model"),
        (stack.drop_vars("unwrapped_phase"), plain_model, {}, "must have 'unwrapped"),
        (stack.isel(pair=[]), plain_model, {}, "no pairs"),
        (stack.drop_attrs(deep=False), plain_model, {}, "no 'wavelength'"),
        (stack, plain_model, {"precision": "float16"}, "precision='float16'"),
        (stack, plain_model, {"region": {"y": slice(90, 90)}}, "must be a slice"),
        (stack, plain_model, {"region": {"time": slice(0, 1)}}, "'y' and 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            correct(cube, model, **options)


def test_a_map_too_small_for_the_network_is_refused(
    stack: xr.Dataset, tmp_path: Path
) -> None:
    """Edges are reflected over the largest dilation, 16 pixels."""
    network = zoo.create_model("dncnn-dilated")
    model = zoo.save_model(network, tmp_path / "wide", training={}, card="test")
    message = r"12 x 12 pixels: model=.* needs at least 17 along each side"
    with pytest.raises(ValueError, match=message):
        correct(stack.isel(y=slice(12), x=slice(12)), model)
    assert "corrected_phase" in correct(stack.isel(y=slice(17), x=slice(17)), model)


@pytest.mark.parametrize("name", ["uses elevation", "is not a safetensors file"])
def test_a_refused_correction_leaves_the_cube(
    stack: xr.Dataset,
    make_cube: Callable[..., Path],
    dilated_model: Path,
    tmp_path: Path,
    name: str,
) -> None:
    url = make_cube(stack.drop_vars("elevation").isel(pair=[0]))
    before = store.open_repository(url).lookup_branch("main")
    model = dilated_model
    if name == "is not a safetensors file":
        model = tmp_path / "pickled"
        model.mkdir()
        (model / "config.json").write_text((dilated_model / "config.json").read_text())
        (model / "model.safetensors").write_bytes(pickle.dumps({"layers.0.weight": 1}))
    with pytest.raises(ValueError, match=name):
        correct_cube(url, model)
    repository = store.open_repository(url)
    assert repository.lookup_branch("main") == before
    assert set(repository.list_branches()) == {"main"}


def test_weights_that_do_not_fit_are_refused(
    stack: xr.Dataset, plain_model: Path, dilated_model: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "config.json").write_text((plain_model / "config.json").read_text())
    weights = (dilated_model / "model.safetensors").read_bytes()
    (wrong / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"is not the file that config.json records"):
        correct(stack, wrong)


# --- new pairs, other models, precision, size ---------------------------------------


def test_only_new_pairs_are_corrected(
    stack: xr.Dataset, make_cube: Callable[..., Path], plain_model: Path
) -> None:
    url = make_cube(stack.isel(pair=[0, 1, 2]))
    assert correct_cube(url, plain_model, precision="float32").done == 3
    again = correct_cube(url, plain_model)
    assert again.done == 0
    assert "all pairs are corrected" in again.notes[0]
    ingest_dataset(stack, url)
    grown = store.open_cube(url)
    assert np.isnan(grown["corrected_phase"][3:].values).all()
    np.testing.assert_array_equal(grown["correction_status"][3:], 0)
    assert correct_cube(url, plain_model).done == stack.sizes["pair"] - 3
    once = make_cube(stack)
    correct_cube(once, plain_model, precision="float32")
    for name in ("corrected_phase", "correction_status"):
        np.testing.assert_array_equal(
            store.open_cube(url)[name], store.open_cube(once)[name]
        )


def test_another_model_starts_over(
    stack: xr.Dataset,
    make_cube: Callable[..., Path],
    plain_model: Path,
    identity_model: Path,
) -> None:
    url = make_cube(stack.isel(pair=[0, 1]))
    correct_cube(url, plain_model)
    assert correct_cube(url, identity_model).done == 2
    cube = store.open_cube(url)
    np.testing.assert_array_equal(cube["corrected_phase"], cube["unwrapped_phase"])
    assert cube["corrected_phase"].attrs["method"] == "identity"


def test_precision_is_chosen_once_and_told(stack: xr.Dataset, model: Path) -> None:
    """Whatever "auto" chooses changes the result by less than 0.1 mm rms."""
    auto = correct(stack, model)["corrected_phase"]
    exact = correct(stack, model, precision="float32")["corrected_phase"]
    assert auto.attrs["precision"] in ("float32", "bfloat16")
    assert exact.attrs["precision"] == "float32"
    change = (auto - exact).values * stack.attrs["wavelength"] / (4 * np.pi)
    assert np.sqrt(np.nanmean(change**2)) < 2e-4
    if auto.attrs["precision"] == "float32":
        assert np.nanmax(np.abs(change)) == 0


def test_precision_without_data_to_try_it_on(
    stack: xr.Dataset, plain_model: Path
) -> None:
    """Nothing in the middle of the map shows no change: that is no evidence."""
    phase = np.tile(stack["unwrapped_phase"][:1].values, (1, 6, 6))
    phase[:, 256:512, 256:512] = np.nan
    names = ("reference_time", "secondary_time")
    hollow = xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), phase)},
        coords={n: stack[n][:1] for n in names},
        attrs=stack.attrs,
    )
    result = correct(hollow, plain_model)
    assert result["corrected_phase"].attrs["precision"] == "float32"


def test_the_model_is_not_in_the_graph(
    small_cube: Path, plain_model: Path, dilated_model: Path
) -> None:
    cube = store.open_cube(small_cube)
    for model in (plain_model, dilated_model):
        weights = (model / "model.safetensors").stat().st_size
        job, _ = plan_correction(cube, model)
        assert len(pickle.dumps(job.compute)) < min(weights, 5_000)
        assert len(pickle.dumps(cube)) < 50_000
        graph = lazy(job, cube)["corrected_phase"].data.__dask_graph__()
        assert (
            sum(
                "_correct_block" in str(k) or "Task" in str(type(v))
                for k, v in dict(graph).items()
            )
            <= 4 * len(job.windows) + 1
        )


def test_cores_are_shared_by_tasks(
    monkeypatch: pytest.MonkeyPatch, plain_model: Path
) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", 8)
    network = NetworkCorrection(model=plain_model)
    threads = [network.shared_by(n).threads for n in (1, 2, 3, 8, 20)]
    assert threads == [8, 4, 2, 1, 1]


def test_bfloat16_does_not_depend_on_the_cut_either(
    stack: xr.Dataset, plain_model: Path
) -> None:
    whole = correct(stack, plain_model, precision="bfloat16")["corrected_phase"].values
    cut = correct(stack, plain_model, precision="bfloat16", block=27)
    np.testing.assert_array_equal(cut["corrected_phase"].values, whole)
    exact = correct(stack, plain_model, precision="float32")["corrected_phase"].values
    assert not np.array_equal(exact, whole, equal_nan=True)


def test_weights_trained_anew_are_loaded_anew(
    stack: xr.Dataset, plain_model: Path, identity_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    raw = stack["unwrapped_phase"].values
    shutil.copytree(plain_model, folder)
    before = correct(stack, folder, precision="float32")["corrected_phase"].values
    assert not np.array_equal(before, raw, equal_nan=True)
    shutil.copytree(identity_model, folder, dirs_exist_ok=True)
    after = correct(stack, folder, precision="float32")["corrected_phase"].values
    np.testing.assert_array_equal(after, raw)
