"""Standard deviations of the dates that stack networks state, kept in the cube."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from frames import START, frames, job_of
from typer.testing import CliRunner

from cube_denoise import halo, store
from cube_denoise.cli import app
from cube_denoise.cluster import Workers
from cube_denoise.correct import correct, plan_correction
from cube_denoise.correction_errors import STATED
from cube_denoise.corrections.correction import in_turn
from cube_denoise.corrections.series import dates_of
from cube_denoise.corrections.stack_network import StackNetworkCorrection
from cube_denoise.dry_run import plan_correct
from cube_denoise.export import export_geotiff
from cube_denoise.ingest import ingest_dataset
from cube_denoise.models import zoo
from cube_denoise.models.autoencoder import SeriesAutoencoder, SeriesAutoencoderConfig
from cube_denoise.models.stack import StackConfig, StackNetwork
from cube_denoise.pipeline import run
from cube_denoise.series_inference import stack_displacement
from cube_denoise.simulate import PairErrors, simulate_stack
from cube_denoise.steps import correct_cube, invert_cube
from cube_denoise.update import update
from cube_denoise.versions import diff


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny stack network with random weights."""
    torch.manual_seed(1)
    network = StackNetwork(StackConfig(channels=(4, 8), heads=2))
    with torch.no_grad():
        for head in (*network.heads, network.finest):
            head.layer.weight.normal_(0, 0.05)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return zoo.save_model(network.eval(), folder, training={}, card="")


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder, which states none."""
    torch.manual_seed(0)
    config = SeriesAutoencoderConfig(dates=3, channels=4, between=0, decoder=1)
    folder = tmp_path_factory.mktemp("models") / "silent"
    return zoo.save_model(SeriesAutoencoder(config), folder, training={}, card="")


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    """Larger than a tile along x, with gaps and a corner without data."""
    errors = PairErrors(gaps=0.1)
    made = simulate_stack(seed=3, shape=(40, 300), dates=5, pair_errors=errors).cube
    made = made.load()
    made["unwrapped_phase"][:, :7, :9] = np.nan
    return made


@pytest.fixture
def url(cube: xr.Dataset, tmp_path: Path) -> Path:
    ingest_dataset(cube, tmp_path / "cube", chunk=64, shard=128)
    return tmp_path / "cube"


def stated(cube: xr.Dataset, model: Path, **options: Any) -> np.ndarray:
    return correct(cube, model, **options)["correction_std"].values


def test_it_is_what_the_network_states(cube: xr.Dataset, model: Path):
    found = correct(cube, model)
    times = np.unique([cube[n].values for n in ("reference_time", "secondary_time")])
    np.testing.assert_array_equal(found["correction_time"], times)
    std = found["correction_std"]
    assert std.dims == ("correction_time", "y", "x")
    assert (std.attrs["units"], std.attrs["method"]) == ("m", "tiny")
    prepared = StackNetworkCorrection(model=model).prepared(cube, in_turn)
    tile = halo.Tile(slice(0, 40), slice(0, 300))
    _, expected, share = stack_displacement(cube, tile, prepared)
    there = np.isfinite(dates_of(cube, {"y": tile.y, "x": tile.x}, prepared.stack))
    assert not there[:, :7, :9].any() and there.mean() > 0.8
    np.testing.assert_array_equal(std, np.where(there, expected, np.nan))
    assert np.nanmin(std) > 0 and np.nanstd(std) > 0
    kept = found["correction_trend_share"]
    assert kept.dims == ("y", "x") and kept.attrs["units"] == "1"
    np.testing.assert_array_equal(kept, np.where(there.any(0), share, np.nan))


def test_blocks_and_regions_do_not_matter(cube: xr.Dataset, model: Path):
    whole = stated(cube, model)
    np.testing.assert_array_equal(stated(cube, model, block=96), whole)
    part = {"y": slice(5, 33), "x": slice(201, 300)}
    some = correct(cube, model, region=part, block=64)
    np.testing.assert_array_equal(
        some["correction_std"], whole[:, part["y"], part["x"]]
    )
    np.testing.assert_array_equal(some["x"], cube["x"][part["x"]])


@pytest.mark.parametrize(("chunk", "shard"), [(30, 60), (64, 512)])
def test_chunks_and_workers_do_not_matter(
    cube: xr.Dataset, model: Path, tmp_path: Path, chunk: int, shard: int
):
    url = tmp_path / "cube"
    ingest_dataset(cube, url, chunk=chunk, shard=shard)
    correct_cube(url, model, workers=Workers("threads", count=2))
    kept = store.open_cube(url)
    np.testing.assert_array_equal(kept["correction_std"], stated(cube, model))
    np.testing.assert_array_equal(
        kept["corrected_phase"], correct(cube, model)["corrected_phase"]
    )
    assert kept["correction_std"].odc.crs == kept["coherence"].odc.crs


def test_networks_that_state_none(cube: xr.Dataset, silent: Path, url: Path):
    assert "correction_std" not in correct(cube, silent)
    job, _ = plan_correction(cube, silent)
    assert job.outputs == ("corrected_phase",) and not job.coords
    correct_cube(url, silent)
    kept = store.open_cube(url)
    assert not {*STATED, "correction_time"} & set(kept.variables)


@pytest.mark.parametrize(
    "other", [pytest.param("ramp", marks=pytest.mark.slow), "silent"]
)
def test_another_method_takes_it_away(url: Path, model: Path, silent: Path, other: str):
    correct_cube(url, model)
    assert "correction_std" in store.open_cube(url)
    before = store.open_repository(url).lookup_branch("main")
    correct_cube(url, silent if other == "silent" else other)
    kept = store.open_cube(url)
    assert not {*STATED, "correction_time"} & set(kept.variables)
    assert kept["corrected_phase"].attrs["method"] == other
    old = store.open_cube(url, snapshot=before)
    assert "correction_std" in old, "both changed at once"
    told = diff(url, before)
    removed = told["variables"]["removed"]
    assert removed == ["correction_std", "correction_trend_share"]
    assert correct_cube(url, model).done
    np.testing.assert_array_equal(
        store.open_cube(url)["correction_std"], old["correction_std"]
    )


def test_it_stands_beside_an_inversion(url: Path, model: Path, tmp_path: Path):
    correct_cube(url, model)
    before = store.open_cube(url)["correction_std"].load()
    invert_cube(url, weights="none")
    kept = store.open_cube(url)
    assert {"time", "correction_time"} <= set(kept.coords)
    xr.testing.assert_identical(kept["correction_std"].load(), before)
    (path,) = export_geotiff(kept, tmp_path / "maps", variables=["correction_std"])
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(), before.values)
        assert str(before["correction_time"].values[1])[:10] in raster.descriptions[1]
    store.export_zarr(store.open_cube(url, chunks={}), tmp_path / "plain")
    plain = xr.open_zarr(tmp_path / "plain")
    np.testing.assert_array_equal(plain["correction_std"], before)
    np.testing.assert_array_equal(plain["correction_time"], before["correction_time"])


def test_it_is_planned_as_written(url: Path, model: Path, silent: Path):
    sides = 40 * 300 * 4
    pairs = store.open_cube(url).sizes["pair"]
    (with_std,) = plan_correct(url, model).steps
    (without,) = plan_correct(url, silent).steps
    assert with_std.bytes_written == (pairs + 5 + 1) * sides
    assert without.bytes_written == pairs * sides
    said = CliRunner().invoke(app, ["correct", str(url), "--method", str(model)])
    assert said.exit_code == 0, said.output
    kept = store.open_cube(url)
    names = ("corrected_phase", "correction_std", "correction_trend_share")
    written = sum(kept[name].nbytes for name in names)
    assert written == with_std.bytes_written
    said = CliRunner().invoke(app, ["info", str(url)])
    assert said.exit_code == 0, said.output


def test_an_update_with_new_dates_writes_it_anew(model: Path, tmp_path: Path):
    nine = frames(tmp_path / "frames")
    last = START.replace(tzinfo=None)
    early = [r for r in nine if "5" not in r.id.removeprefix("frame")]
    assert 3 < len(early) < 9
    told = {"correct": {"method": str(model)}}
    grown, anew = tmp_path / "grown", tmp_path / "anew"
    with warnings.catch_warnings(action="ignore"):
        run(job_of(tmp_path, early, grown, **told))
        before = store.open_cube(grown)
        assert before["correction_std"].sizes["correction_time"] == 5
        state = store.open_repository(grown).lookup_branch("main")
        report = update(job_of(tmp_path, nine, grown, **told))
        run(job_of(tmp_path, nine, anew, **told))
    assert report.correct is not None and report.correct.done == 9
    one, other = (store.open_cube(c)["correction_std"] for c in (grown, anew))
    assert one.sizes["correction_time"] == 6
    assert one["correction_time"].values[0] == np.datetime64(last)
    np.testing.assert_array_equal(one["correction_time"], other["correction_time"])
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)
    told = diff(grown, state)["values"]["correction_std"]
    assert told["units"] == "m" and told["max_abs"] > 0


def test_pairs_alone_leave_it_until_they_are_corrected(model: Path, tmp_path: Path):
    """Its dates are its own: a cube whose pairs have others can still be read."""
    nine = frames(tmp_path / "frames")
    url = tmp_path / "cube"
    early = [r for r in nine if "5" not in r.id.removeprefix("frame")]
    with warnings.catch_warnings(action="ignore"):
        run(job_of(tmp_path, early, url, correct={"method": str(model)}))
        correct_cube(url, model)
        job = job_of(tmp_path, nine, url)
        CliRunner().invoke(app, ["ingest", job["source"], str(url)])
        kept = store.open_cube(url)
        assert kept.sizes["pair"] == 9
        sizes = kept.sizes["correction_time"], kept.sizes["time"]
        assert sizes == (5, 5)
        assert correct_cube(url, model).done == 9
        kept = store.open_cube(url)
        sizes = kept.sizes["correction_time"], kept.sizes["time"]
        assert sizes == (6, 5), "displacement is of the last inversion still"
        assert invert_cube(url).done
        assert store.open_cube(url).sizes["time"] == 6
